package repo_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/repo"
)

// acquire takes the lease "backup" of c1 for a minute.
func acquire(ctx context.Context, r *repo.Repository, owner string) (*repo.Lease, error) {
	return r.AcquireLease(ctx, "c1", "backup", owner, "host of "+owner, time.Minute)
}

func TestLease_RaceHasOneWinner(t *testing.T) {
	r, _ := newRepo(t)
	for round := range 20 {
		name := fmt.Sprintf("round%d", round)
		leases := make([]*repo.Lease, 16)
		var wg sync.WaitGroup
		for i := range leases {
			wg.Go(func() {
				l, err := r.AcquireLease(t.Context(), "c1", name, fmt.Sprintf("owner%d", i), "h", time.Minute)
				var busy *repo.BusyError
				if err != nil && !errors.As(err, &busy) {
					t.Error(err)
				}
				leases[i] = l
			})
		}
		wg.Wait()
		winners := 0
		for _, l := range leases {
			if l != nil {
				winners++
				if err := l.Check(t.Context()); err != nil || l.Token() != 1 {
					t.Errorf("the winner's lease, token %d: %v", l.Token(), err)
				}
			}
		}
		if winners != 1 {
			t.Fatalf("%d winners", winners)
		}
	}
}

// TestLease_AttemptsOfOneOwner lets attempts of one workflow race: all may begin a term, and the newest has the lease.
func TestLease_AttemptsOfOneOwner(t *testing.T) {
	r, _ := newRepo(t)
	leases := make([]*repo.Lease, 8)
	var wg sync.WaitGroup
	for i := range leases {
		wg.Go(func() {
			var err error
			if leases[i], err = acquire(t.Context(), r, "workflow"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	newest := int64(0)
	tokens := map[int64]bool{}
	if t.Failed() {
		return
	}
	for _, l := range leases {
		newest = max(newest, l.Token())
		if tokens[l.Token()] {
			t.Errorf("token %d was given twice", l.Token())
		}
		tokens[l.Token()] = true
	}
	for _, l := range leases {
		if err := l.Check(t.Context()); (l.Token() == newest) != (err == nil) || err != nil && !errors.Is(err, repo.ErrLeaseLost) {
			t.Errorf("Check of token %d of %d: %v", l.Token(), newest, err)
		}
	}
}

// TestLease_AttemptsOfOneOwnerCollide lets another attempt of the owner begin the very term that one is about to begin.
func TestLease_AttemptsOfOneOwnerCollide(t *testing.T) {
	inner := mem.New()
	r := newSmall(t, inner)
	var other *repo.Lease
	store := fault.New(inner, fault.Rule{Op: fault.PutIfAbsent, Key: fault.Contains("/leases/"), Do: fault.Before(func(ctx context.Context, _ fault.Call) (err error) {
		other, err = acquire(ctx, r, "workflow")
		return err
	})})
	slow, err := repo.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	l, err := acquire(t.Context(), slow, "workflow")
	if err != nil || l.Token() != 2 || other.Token() != 1 {
		t.Fatalf("acquire: %v", err)
	}
	if err := other.Check(t.Context()); !errors.Is(err, repo.ErrLeaseLost) {
		t.Errorf("Check of the other: %v", err)
	}
}

func TestLease_SameOwnerReenters(t *testing.T) {
	r, _ := newRepo(t)
	first, err := acquire(t.Context(), r, "workflow")
	if err != nil {
		t.Fatal(err)
	}
	second, err := acquire(t.Context(), r, "workflow")
	if err != nil || second.Token() <= first.Token() {
		t.Fatalf("the next attempt: %v", err)
	}
	for what, err := range map[string]error{"Check": first.Check(t.Context()), "Renew": first.Renew(t.Context(), time.Minute), "Release": first.Release(t.Context())} {
		if !errors.Is(err, repo.ErrLeaseLost) || !strings.Contains(err.Error(), "host of workflow") {
			t.Errorf("%s of the old attempt: %v", what, err)
		}
	}
	if err := second.Check(t.Context()); err != nil {
		t.Error(err)
	}
	var busy *repo.BusyError
	if _, err := acquire(t.Context(), r, "other"); !errors.As(err, &busy) || busy.Owner != "workflow" || !strings.Contains(err.Error(), "wait for it") {
		t.Errorf("another owner: %v", err)
	}
}

// TestLease_DropsTermsLongPast checks that a term stays for an hour after the next one began, and no longer.
func TestLease_DropsTermsLongPast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := mem.New()
		r := newSmall(t, store)
		for i, tt := range []struct {
			after time.Duration
			want  string // the terms that are there then
		}{{0, "1"}, {time.Second, "12"}, {3 * time.Hour, "23"}, {59 * time.Minute, "234"}, {2 * time.Minute, "345"}, {9 * time.Hour, "56"}} {
			<-time.After(tt.after)
			if _, err := acquire(t.Context(), r, "a"); err != nil {
				t.Fatal(err)
			}
			got := ""
			for _, key := range slices.Sorted(keysOf(objects(t, store, "clusters/c1/leases/"))) {
				got += key[len(key)-1:]
			}
			if got != tt.want {
				t.Errorf("after acquisition %d: terms %s, want %s", i+1, got, tt.want)
			}
		}
	})
}

// TestLease_Expiry watches a lease over time: it is respected until it expired and clocks may differ.
func TestLease_Expiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSmall(t, mem.New())
		first, err := acquire(t.Context(), r, "a")
		if err != nil {
			t.Fatal(err)
		}
		busyAt := func(after time.Duration) {
			t.Helper()
			<-time.After(after)
			var busy *repo.BusyError
			if _, err := acquire(t.Context(), r, "b"); !errors.As(err, &busy) {
				t.Errorf("acquired: %v", err)
			}
		}
		busyAt(59 * time.Second)
		busyAt(2 * time.Second)                // expired, but perhaps not by the owner's clock
		busyAt(28*time.Second + time.Second/2) // 89.5 s
		if err := first.Renew(t.Context(), time.Minute); err != nil {
			t.Errorf("a late renewal that nobody forestalled: %v", err)
		}
		busyAt(89 * time.Second)
		<-time.After(2 * time.Second)
		second, err := acquire(t.Context(), r, "b")
		if err != nil || second.Token() != first.Token()+1 {
			t.Fatalf("after expiry and skew: %v", err)
		}
		if err := first.Renew(t.Context(), time.Minute); !errors.Is(err, repo.ErrLeaseLost) {
			t.Errorf("Renew by the one who lost it: %v", err)
		}
		if err := first.Release(t.Context()); !errors.Is(err, repo.ErrLeaseLost) {
			t.Errorf("Release by the one who lost it: %v", err)
		}
		if err := second.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestLease_Release(t *testing.T) {
	r, _ := newRepo(t)
	for i, owner := range []string{"a", "b", "b", "c"} {
		l, err := acquire(t.Context(), r, owner)
		if err != nil {
			t.Fatalf("%s: %v", owner, err)
		}
		if l.Token() != int64(i+1) {
			t.Errorf("token %d, want %d: they must rise over releases", l.Token(), i+1)
		}
		if err := l.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestLease_StalledOwner stalls an owner before it creates its term, while others begin and end that very term and
// later ones, until its object is dropped. The stalled one must not believe that it has the lease.
func TestLease_StalledOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New()
		r := newSmall(t, inner)
		first, err := acquire(t.Context(), r, "a")
		if err != nil {
			t.Fatal(err)
		}
		if err := first.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		var owner *repo.Lease
		stalled := fault.New(inner, fault.Rule{Op: fault.PutIfAbsent, Key: fault.Contains("/leases/"), Do: fault.Before(func(ctx context.Context, c fault.Call) error {
			for _, other := range []string{"b", "c", "d"} {
				<-time.After(2 * time.Hour)
				if owner, err = acquire(ctx, r, other); err != nil {
					return err
				}
			}
			if _, err := inner.Stat(ctx, c.Key); !errors.Is(err, blob.ErrNotFound) {
				t.Errorf("the term that the stalled owner wants is still there: %v", err)
			}
			return nil
		})})
		slow, err := repo.Open(t.Context(), stalled)
		if err != nil {
			t.Fatal(err)
		}
		var busy *repo.BusyError
		if l, err := acquire(t.Context(), slow, "slow"); !errors.As(err, &busy) || busy.Owner != "d" {
			t.Errorf("the stalled owner has term %v, %v", l, err)
		}
		if err := owner.Check(t.Context()); err != nil {
			t.Errorf("the lease of d: %v", err)
		}
		if unused := stalled.Unused(); len(unused) > 0 {
			t.Errorf("faults that did not happen: %v", unused)
		}
	})
}

// TestLease_LostWhileRenewing lets another owner begin a term between the check and the write of a renewal.
func TestLease_LostWhileRenewing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New()
		r := newSmall(t, inner)
		store := fault.New(inner, fault.Rule{Op: fault.Put, Key: fault.Contains("/leases/"), Do: fault.Before(func(ctx context.Context, _ fault.Call) error {
			<-time.After(2 * time.Minute)
			_, err := acquire(ctx, r, "b")
			return err
		})})
		slow, err := repo.Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		l, err := acquire(t.Context(), slow, "a")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Renew(t.Context(), time.Minute); !errors.Is(err, repo.ErrLeaseLost) {
			t.Errorf("Renew: %v", err)
		}
	})
}

func TestLease_LostReply(t *testing.T) {
	for _, do := range []fault.Action{fault.FailAfter(nil), fault.Fail(nil)} {
		inner := mem.New()
		newSmall(t, inner)
		store := fault.New(inner, fault.Rule{Op: fault.PutIfAbsent, Do: do})
		r, err := repo.Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		l, err := acquire(t.Context(), r, "a")
		if err != nil || l.Token() != 1 {
			t.Fatalf("acquire: %v", err)
		}
		if unused := store.Unused(); len(unused) > 0 {
			t.Errorf("faults that did not happen: %v", unused)
		}
	}
}

// TestLease_DroppedWhileReading drops the newest term between the listing and the reading of it, as the owner of a
// later term may when the reader was stalled there.
func TestLease_DroppedWhileReading(t *testing.T) {
	inner := mem.New()
	r := newSmall(t, inner)
	if _, err := acquire(t.Context(), r, "a"); err != nil {
		t.Fatal(err)
	}
	store := fault.New(inner, fault.Rule{Op: fault.Get, Key: fault.Contains("/leases/"), Do: fault.Before(func(ctx context.Context, _ fault.Call) error {
		if _, err := acquire(ctx, r, "a"); err != nil {
			return err
		}
		return inner.Delete(ctx, "clusters/c1/leases/backup/000000000001")
	})})
	slow, err := repo.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := acquire(t.Context(), slow, "a"); err != nil || l.Token() != 3 {
		t.Errorf("acquire: %v", err)
	}
	if unused := store.Unused(); len(unused) > 0 {
		t.Errorf("faults that did not happen: %v", unused)
	}
}

// TestLease_StoreFails checks that no failure of the store makes anybody an owner.
func TestLease_StoreFails(t *testing.T) {
	for _, op := range []fault.Op{fault.List, fault.PutIfAbsent, fault.Get} {
		inner := mem.New()
		if _, err := acquire(t.Context(), newSmall(t, inner), "a"); err != nil {
			t.Fatal(err)
		}
		store := fault.New(inner, fault.Rule{Op: op, Key: fault.Contains("/leases/"), Count: fault.Forever, Do: fault.Fail(nil)})
		r, err := repo.Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := acquire(t.Context(), r, "a"); !errors.Is(err, fault.ErrInjected) {
			t.Errorf("acquire while every %v fails: %v", op, err)
		}
	}
}

func TestLease_Refuses(t *testing.T) {
	r, store := newRepo(t)
	for _, tt := range []struct {
		cluster, name, owner string
		ttl                  time.Duration
	}{{"C", "backup", "a", 1}, {"c1", "", "a", 1}, {"c1", "../x", "a", 1}, {"c1", "backup", "", 1}, {"c1", "backup", "a", 0}, {"c1", "backup", "a", -1}} {
		if _, err := r.AcquireLease(t.Context(), tt.cluster, tt.name, tt.owner, "h", tt.ttl); err == nil {
			t.Errorf("%+v was accepted", tt)
		}
	}
	// A term under another number is not what its owner wrote.
	if _, err := acquire(t.Context(), r, "a"); err != nil {
		t.Fatal(err)
	}
	body := objects(t, store, "clusters/c1/leases/backup/")["clusters/c1/leases/backup/000000000001"]
	if err := blob.PutBytes(t.Context(), store, "clusters/c1/leases/backup/000000000007", body); err != nil {
		t.Fatal(err)
	}
	if _, err := acquire(t.Context(), r, "a"); !repo.IsDamage(err) {
		t.Errorf("acquire over a copied term: %v", err)
	}
	stranger := "clusters/c1/leases/backup/notes"
	if err := blob.PutBytes(t.Context(), store, stranger, body); err != nil {
		t.Fatal(err)
	}
	if _, err := acquire(t.Context(), r, "a"); err == nil || !strings.Contains(err.Error(), stranger) {
		t.Errorf("acquire behind an object that is no term: %v", err)
	}
}

// TestLease_DamagedTermMendsItself: nobody knows who holds a lease whose object is damaged, so it is respected. A living
// owner writes it anew; a dead one's is over when it would have been, and no person need remove anything.
func TestLease_DamagedTermMendsItself(t *testing.T) {
	const key = "clusters/c1/leases/backup/000000000001"
	rot := func(t *testing.T, store *mem.Store) {
		t.Helper()
		body := objects(t, store, key)[key]
		body[100] ^= 1
		if err := blob.PutBytes(t.Context(), store, key, body); err != nil {
			t.Fatal(err)
		}
	}
	busy := func(t *testing.T, r *repo.Repository, owner string, damaged bool) {
		t.Helper()
		var busy *repo.BusyError
		_, err := acquire(t.Context(), r, owner)
		if !errors.As(err, &busy) || (busy.Damage != nil) != damaged || damaged && !strings.Contains(err.Error(), key) {
			t.Errorf("acquired: %v", err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		store := mem.New()
		r := newSmall(t, store)
		first, err := acquire(t.Context(), r, "a")
		if err != nil {
			t.Fatal(err)
		}
		rot(t, store)
		busy(t, r, "b", true)
		if err := first.Renew(t.Context(), time.Minute); err != nil {
			t.Errorf("the owner could not renew it: %v", err)
		}
		busy(t, r, "b", false)
		rot(t, store)
		busy(t, r, "a", true) // also the owner's next attempt cannot know
		<-time.After(89 * time.Second)
		busy(t, r, "b", true)
		<-time.After(2 * time.Second)
		second, err := acquire(t.Context(), r, "b")
		if err != nil || second.Token() != first.Token()+1 {
			t.Fatalf("after expiry and skew: %v", err)
		}
		if err := first.Check(t.Context()); !errors.Is(err, repo.ErrLeaseLost) {
			t.Errorf("Check by the one who lost it: %v", err)
		}
	})
}
