package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"lifeboat/internal/blob"
)

// Lease keeps two runs of one kind apart: the backups of a cluster, for example. Terms are numbered objects that are
// created only if absent, so exactly one owner begins each term; the newest term is the lease, and its number is the
// fencing token. An owner is a workflow, not a process: the next attempt of the same workflow takes over at once.
//
// A lease does not stop a stalled owner from writing (R12): whoever depends on being alone checks Check before and
// after the write that counts. Its methods may be called concurrently.
type Lease struct {
	repo    *Repository
	cluster string
	name    string
	mu      sync.Mutex // of the term's times; its token never changes
	term    leaseTerm
}

type leaseTerm struct {
	Token   int64     `json:"token"`
	Owner   string    `json:"owner"`
	Host    string    `json:"host"`
	Renewed time.Time `json:"renewed"`
	Expires time.Time `json:"expires"`

	damage  error     // the object cannot be read: its token is known by its key, its owner is not
	written time.Time // then, by the store's clock
}

// BusyError says that somebody else holds a lease.
type BusyError struct {
	Cluster, Name, Owner, Host string
	Expires                    time.Time
	// Damage says that the lease's object cannot be read, so that nobody knows who holds it: Owner and Host are empty. It
	// mends itself: a living owner writes it anew, else it is over at Expires.
	Damage error
}

// Unwrap gives the damage, if any.
func (e *BusyError) Unwrap() error { return e.Damage }

// Error tells who holds it and until when.
func (e *BusyError) Error() string {
	if e.Damage != nil {
		return fmt.Sprintf("%s of cluster %s may be held by a run whose lease cannot be read (%v): %s", e.Name, e.Cluster, e.Damage, e.Remedy())
	}
	return fmt.Sprintf("%s of cluster %s is held by %s on %s until %s unless it is renewed: %s",
		e.Name, e.Cluster, e.Owner, e.Host, e.Expires.UTC().Format(time.RFC3339), e.Remedy())
}

// Remedy is what to do about it.
func (e *BusyError) Remedy() string {
	if e.Damage != nil {
		return fmt.Sprintf("try again after %s, when the lease is over unless that run still renews it", e.Expires.UTC().Format(time.RFC3339))
	}
	return "wait for it, or end that run"
}

// ErrLeaseLost says that another owner has begun a later term.
var ErrLeaseLost = errors.New("the lease was lost to another owner")

// leaseSkew is how far clocks may differ: a lease is taken from a silent owner only that long after it expired.
const leaseSkew = 30 * time.Second

// AcquireLease begins a term for owner, good for ttl and renewed by Renew. It fails with *BusyError while another
// owner's term runs.
func (r *Repository) AcquireLease(ctx context.Context, cluster, name, owner, host string, ttl time.Duration) (*Lease, error) {
	if err := CheckName(cluster); err != nil {
		return nil, err
	}
	if owner == "" || ttl <= 0 {
		return nil, fmt.Errorf("acquire the lease %s of cluster %s: owner %q for %v: both must be given", name, cluster, owner, ttl)
	}
	l := &Lease{repo: r, cluster: cluster, name: name}
	for {
		err := l.begin(ctx, owner, host, ttl)
		if err == nil {
			l.dropOld(ctx)
			return l, nil
		}
		var busy *BusyError
		if errors.As(err, &busy) && busy.Owner == owner {
			continue // two attempts of one owner began a term at once: take over from the other
		}
		return nil, err
	}
}

// begin tries to become the owner of the next term.
func (l *Lease) begin(ctx context.Context, owner, host string, ttl time.Duration) error {
	newest, err := l.newest(ctx)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	if newest.damage != nil {
		// A living owner writes its object anew before ttl is over, so one that is older is nobody's. Meanwhile it counts as
		// running: not to know the owner is no reason to be one more.
		newest.Renewed, newest.Expires = newest.written, newest.written.Add(ttl)
	}
	if newest.Owner != owner && newest.running(now) {
		return l.busy(newest)
	}
	l.term = leaseTerm{Token: newest.Token + 1, Owner: owner, Host: host, Renewed: now, Expires: now.Add(ttl)}
	sealed, err := l.repo.sealJSON(KindDocument, l.key(), l.term)
	if err != nil {
		return err
	}
	err = l.repo.putSealed(ctx, l.key(), sealed)
	if err != nil && !errors.Is(err, blob.ErrExists) {
		return fmt.Errorf("acquire the lease %s of cluster %s: %w", l.name, l.cluster, err)
	}
	// A term that was created is not yet the newest: while this owner was stalled, others may have begun and ended this
	// very term and later dropped its object, but never the newest.
	won, rerr := l.newest(ctx)
	if rerr != nil {
		return rerr
	}
	if err != nil || won.Token != l.term.Token {
		return l.busy(won)
	}
	return nil
}

func (l *Lease) busy(t leaseTerm) error {
	return &BusyError{Cluster: l.cluster, Name: l.name, Owner: t.Owner, Host: t.Host, Expires: t.Expires, Damage: t.damage}
}

// running tells whether the term must be respected at now: a released one need not be.
func (t *leaseTerm) running(now time.Time) bool {
	return now.Before(t.Expires.Add(leaseSkew)) && !t.Expires.Equal(t.Renewed)
}

func (l *Lease) key() string {
	return fmt.Sprintf("%s%012d", leasePrefix(l.cluster, l.name), l.term.Token)
}

// Token is the fencing token: it rises with every term.
func (l *Lease) Token() int64 { return l.term.Token }

// newest reads the newest term; the zero term if there has been none.
func (l *Lease) newest(ctx context.Context) (leaseTerm, error) {
	for try := 0; ; try++ {
		t, err := l.lookUp(ctx)
		if err == nil {
			return t, nil
		}
		// A term is dropped only by the owner of a later one: look again.
		if try == 10 || !errors.Is(err, blob.ErrNotFound) {
			return leaseTerm{}, fmt.Errorf("read the lease %s of cluster %s: %w", l.name, l.cluster, err)
		}
	}
}

func (l *Lease) lookUp(ctx context.Context) (t leaseTerm, err error) {
	var last blob.Info
	for info, err := range l.repo.store.List(ctx, leasePrefix(l.cluster, l.name), "") {
		if err != nil {
			return t, err
		}
		last = info
	}
	if last.Key == "" {
		return t, nil
	}
	token, err := strconv.ParseInt(last.Key[strings.LastIndexByte(last.Key, '/')+1:], 10, 64)
	if err != nil || token <= 0 {
		return t, fmt.Errorf("%s is no term of a lease, and hides those that are: remove it", last.Key)
	}
	err = l.repo.readJSON(ctx, KindDocument, last.Key, &t)
	if err == nil && token != t.Token {
		err = &DamageError{Key: last.Key, Frame: 0, Reason: "its token is not its name"}
	}
	if IsDamage(err) {
		return leaseTerm{Token: token, damage: err, written: last.ModTime}, nil
	}
	return t, err
}

// Check fails with ErrLeaseLost if another term has begun.
func (l *Lease) Check(ctx context.Context) error {
	newest, err := l.newest(ctx)
	if err != nil {
		return err
	}
	if newest.Token != l.term.Token {
		return fmt.Errorf("%s of cluster %s, term %d: %w: %s on %s holds term %d",
			l.name, l.cluster, l.term.Token, ErrLeaseLost, newest.Owner, newest.Host, newest.Token)
	}
	return nil
}

// Renew extends the term to ttl from now, or fails with ErrLeaseLost. Only the owner of a term writes its object.
func (l *Lease) Renew(ctx context.Context, ttl time.Duration) error {
	if err := l.rewrite(ctx, ttl); err != nil {
		return err
	}
	return l.Check(ctx) // it may have been lost while it was written
}

// Release ends the term: expiry equal to renewal says that nobody holds the lease.
func (l *Lease) Release(ctx context.Context) error { return l.rewrite(ctx, 0) }

func (l *Lease) rewrite(ctx context.Context, ttl time.Duration) error {
	if err := l.Check(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term.Renewed = time.Now().UTC()
	l.term.Expires = l.term.Renewed.Add(ttl)
	return l.put(ctx)
}

func (l *Lease) put(ctx context.Context) error {
	sealed, err := l.repo.sealJSON(KindDocument, l.key(), l.term)
	if err != nil {
		return err
	}
	if err := l.repo.store.Put(ctx, l.key(), bytes.NewReader(sealed), int64(len(sealed))); err != nil {
		return fmt.Errorf("renew the lease %s of cluster %s: %w", l.name, l.cluster, err)
	}
	return nil
}

// termKept is how long a term is kept after a later one began: longer than any listing takes. So every listing shows
// the term that was the newest when it began, or a later one. If terms were dropped at once, a listing could pass over
// the old one, which was just dropped, and over the new one, which came too late for it (blob.Store allows both), and its
// reader would take the lease for free.
const termKept = time.Hour

// dropOld removes terms long past, by the store's own clock. What it misses, the next owner removes.
func (l *Lease) dropOld(ctx context.Context) {
	var terms []blob.Info
	for info, err := range l.repo.store.List(ctx, leasePrefix(l.cluster, l.name), "") {
		if err != nil {
			return
		}
		terms = append(terms, info)
	}
	mine := slices.IndexFunc(terms, func(t blob.Info) bool { return t.Key == l.key() })
	for i := 0; i < mine; i++ {
		if next := terms[i+1]; terms[mine].ModTime.Sub(next.ModTime) < termKept || l.repo.store.Delete(ctx, terms[i].Key) != nil {
			return
		}
	}
}
