package wal_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/blob/fault"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

const size1 = pg.SegmentSize(mib)

// seg names a segment of 1 MiB.
func seg(tli pg.Timeline, n uint64) string { return pg.Segment{Timeline: tli, Number: n}.Name(size1) }

// fetch asks for a file with some patience, into a new directory, and checks that Dest is whole or not there and
// that nothing else is left.
func (d *depot) fetch(t testing.TB, name string, need wal.Need) ([]byte, error) {
	t.Helper()
	dir := t.TempDir()
	dest := filepath.Join(dir, "RECOVERYXLOG")
	err := wal.Fetch(t.Context(), wal.FetchOptions{
		Repo: d.Repository, Cluster: "c1", Name: name, Dest: dest, Need: need, Patience: 600 * time.Millisecond,
	})
	entries, rerr := os.ReadDir(dir)
	if rerr != nil {
		t.Fatal(rerr)
	}
	if err != nil {
		if len(entries) > 0 {
			t.Errorf("%v, and %s is left", err, entries[0].Name())
		}
		return nil, err
	}
	if len(entries) != 1 {
		t.Errorf("%d files are left", len(entries))
	}
	data, rerr := os.ReadFile(dest)
	if rerr != nil {
		t.Fatal(rerr)
	}
	return data, nil
}

// Outcomes of wal-fetch: served exits 0, absent 1, stop 126.
const (
	served = "served"
	absent = "absent"
	stop   = "stop"
)

// TestFetch_NeverEndsARecoveryEarly is the table of R16.
func TestFetch_NeverEndsARecoveryEarly(t *testing.T) {
	whole, short := bytes.Repeat([]byte("whole"), mib/5), []byte("partial")
	history2 := []byte("1\t0/580000\tpromoted in segment 5\n")
	must := func(names ...string) (need wal.Need) {
		for _, n := range names {
			need = append(need, wal.NeedRange{First: n, Last: n})
		}
		return need
	}
	// Timeline 1 has 2, 3, 5, 6 and the partial 7; timeline 2 begins in 5 and has 6 and 8; 3 has only a history; 4 only
	// a partial.
	lay := func(t *testing.T) *depot {
		d := newDepot(t)
		d.identify(t, size1)
		d.put(t, whole, seg(1, 2), seg(1, 3), seg(1, 5), seg(1, 6), seg(2, 6), seg(2, 8))
		d.put(t, short, seg(1, 7)+".partial", seg(4, 9)+".partial", seg(1, 5)+".00000028.backup")
		d.put(t, history2, "00000002.history")
		d.put(t, []byte("1\t0/580000\tx\n2\t0/980000\tx\n"), "00000003.history")
		return d
	}
	for _, c := range []struct {
		name, ask string
		need      wal.Need
		change    func(t *testing.T, d *depot)
		want      string
	}{
		{"there", seg(1, 3), nil, nil, served},
		{"there and needed", seg(1, 3), must(seg(1, 3)), nil, served},
		{"beyond the frontier", seg(2, 9), nil, nil, absent},
		{"beyond the frontier, others are needed", seg(2, 9), must(seg(1, 3), seg(2, 6)), nil, absent},
		{"beyond the frontier and needed", seg(2, 9), must(seg(2, 9)), nil, stop},
		{"far beyond", seg(1, 1000), nil, nil, absent},
		{"in a gap", seg(1, 4), nil, nil, stop},
		{"in a gap and needed", seg(1, 4), must(seg(1, 4)), nil, stop},
		{"in a gap of another timeline", seg(2, 7), nil, nil, stop},
		{"before the first", seg(1, 1), nil, nil, stop},
		{"before the first and needed", seg(1, 1), must(seg(1, 1)), nil, stop},
		{"the child's first is missing, the parent has that number", seg(2, 5), nil, nil, stop},
		{"before the child began", seg(2, 4), nil, nil, absent},
		{"of a timeline with a history and no WAL", seg(3, 9), nil, nil, absent},
		{"of an unknown timeline", seg(9, 5), nil, nil, absent},
		{"of an unknown timeline and needed", seg(9, 5), must(seg(9, 5)), nil, stop},
		{"damaged", seg(1, 3), nil, func(t *testing.T, d *depot) { d.spoil(t, seg(1, 3)) }, stop},
		{"damaged and needed", seg(1, 3), must(seg(1, 3)), func(t *testing.T, d *depot) { d.spoil(t, seg(1, 3)) }, stop},
		{"damaged newest", seg(2, 8), nil, func(t *testing.T, d *depot) { d.spoil(t, seg(2, 8)) }, stop},
		{"unreadable", seg(1, 3), nil, func(t *testing.T, d *depot) {
			d.store.Add(fault.Rule{Op: fault.Get, Key: fault.Contains(seg(1, 3)), Count: fault.Forever, Do: fault.Fail(nil)})
		}, stop},
		{"not there, and the store cannot be listed", seg(2, 9), nil, func(t *testing.T, d *depot) {
			d.store.Add(fault.Rule{Op: fault.List, Count: fault.Forever, Do: fault.Fail(nil)})
		}, stop},
		{"not there, and the listing breaks off", seg(2, 9), nil, func(t *testing.T, d *depot) {
			d.store.Add(fault.Rule{Op: fault.List, Key: fault.Contains("segments"), Count: fault.Forever, At: 3, Do: fault.Fail(nil)})
		}, stop},
		{"not there, and the identity is damaged", seg(2, 9), nil, func(t *testing.T, d *depot) { d.spoil(t, "/identity") }, stop},
		{"read with one failure", seg(1, 3), nil, func(t *testing.T, d *depot) {
			d.store.Add(fault.Rule{Op: fault.Get, Key: fault.Contains(seg(1, 3)), Do: fault.Fail(nil)})
		}, served},
		{"cut off once", seg(1, 3), nil, func(t *testing.T, d *depot) {
			d.store.Add(fault.Rule{Op: fault.GetRead, Key: fault.Contains(seg(1, 3)), At: 200, Do: fault.Truncate()})
		}, served},
		{"arrives between reading and listing", seg(1, 4), nil, func(t *testing.T, d *depot) {
			d.store.Add(fault.Rule{Op: fault.Get, Key: fault.Contains("identity"), Do: fault.Before(
				func(context.Context, fault.Call) error { d.put(t, whole, seg(1, 4)); return nil })})
		}, served},
		{"the newest arrives between reading and listing", seg(2, 9), nil, func(t *testing.T, d *depot) {
			d.store.Add(fault.Rule{Op: fault.Get, Key: fault.Contains("identity"), Do: fault.Before(
				func(context.Context, fault.Call) error { d.put(t, whole, seg(2, 9)); return nil })})
		}, served},
		{"partial, the last of its timeline", seg(1, 7), nil, nil, served + " zero-filled"},
		{"partial, the only one of its timeline", seg(4, 9), nil, nil, served + " zero-filled"},
		{"partial, but needed whole", seg(1, 7), must(seg(1, 7)), nil, stop},
		{"partial, needed as far as it goes", seg(1, 7), must(seg(1, 7) + ".partial"), nil, served + " zero-filled"},
		{
			"partial, needed as far as it goes, and whole by now", seg(1, 7), must(seg(1, 7) + ".partial"),
			func(t *testing.T, d *depot) { d.put(t, whole, seg(1, 7)) }, served,
		},
		{"partial, needed and gone", seg(1, 8), must(seg(1, 8) + ".partial"), nil, stop},
		{"partial, damaged", seg(1, 7), nil, func(t *testing.T, d *depot) { d.spoil(t, seg(1, 7)) }, stop},
		{"partial, and a later segment is whole", seg(1, 7), nil, func(t *testing.T, d *depot) { d.put(t, whole, seg(1, 8)) }, stop},
		{"missing before a partial", seg(1, 7), nil, func(t *testing.T, d *depot) { d.put(t, short, seg(1, 8)+".partial") }, stop},
		{"beyond a partial", seg(1, 8), nil, nil, absent},
		{"whole beside its partial", seg(1, 7), nil, func(t *testing.T, d *depot) { d.put(t, whole, seg(1, 7)) }, served},
		{"history", "00000002.history", nil, nil, served + " history"},
		{"missing history", "00000005.history", nil, nil, absent},
		{"history of timeline 1", "00000001.history", nil, nil, absent},
		{"damaged history", "00000002.history", nil, func(t *testing.T, d *depot) { d.spoil(t, "00000002.history") }, stop},
		{"unreadable history", "00000002.history", nil, func(t *testing.T, d *depot) {
			d.store.Add(fault.Rule{Op: fault.Get, Key: fault.Contains("history"), Count: fault.Forever, Do: fault.Fail(nil)})
		}, stop},
		{"missing backup history", seg(1, 3) + ".00000028.backup", nil, nil, absent},
		{"beyond the frontier, with a damaged history elsewhere", seg(2, 9), nil, func(t *testing.T, d *depot) { d.spoil(t, "00000003.history") }, absent},
		{"impossible with this segment size", "000000010000000000001000", nil, nil, stop},
		{"no WAL name", "RECOVERYXLOG", nil, nil, stop},
		{"a path", "../../etc/passwd", nil, nil, stop},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := lay(t)
			if c.change != nil {
				c.change(t, d)
			}
			data, err := d.fetch(t, c.ask, c.need)
			got := stop
			switch {
			case errors.Is(err, wal.ErrAbsent):
				got = absent
			case err == nil && bytes.Equal(data, whole):
				got = served
			case err == nil && bytes.Equal(data, history2):
				got = served + " history"
			case err == nil && len(data) == mib && bytes.HasPrefix(data, short) && len(bytes.Trim(data[len(short):], "\x00")) == 0:
				got = served + " zero-filled"
			case err == nil:
				got = "something else"
			}
			if got != c.want {
				t.Errorf("%s: %s (%v), want %s", c.ask, got, err, c.want)
			}
			d.allFaultsHappened(t)
		})
	}
}

// An empty or mistaken repository must not look like the end of WAL.
func TestFetch_UnknownClusterIsNotTheEnd(t *testing.T) {
	t.Parallel()
	d := newDepot(t)
	if _, err := d.fetch(t, seg(1, 1), nil); err == nil || errors.Is(err, wal.ErrAbsent) {
		t.Errorf("error is %v", err)
	}
	d.identify(t, size1)
	if _, err := d.fetch(t, seg(1, 1), nil); !errors.Is(err, wal.ErrAbsent) {
		t.Errorf("a cluster that has archived nothing: %v", err)
	}
}

func TestFetch_ReplacesDestAsAWhole(t *testing.T) {
	t.Parallel()
	d := newDepot(t)
	d.identify(t, size1)
	d.put(t, []byte("new"), seg(1, 1))
	dir := t.TempDir()
	dest := filepath.Join(dir, "RECOVERYXLOG")
	if err := os.WriteFile(dest, []byte("what was there before"), 0o600); err != nil {
		t.Fatal(err)
	}
	opts := wal.FetchOptions{Repo: d.Repository, Cluster: "c1", Name: seg(1, 1), Dest: dest, Patience: 150 * time.Millisecond}
	check := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(dest); err != nil || string(got) != want {
			t.Errorf("Dest holds %q (%v), want %q", got, err, want)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("%v are left", entries)
		}
	}
	// Damage in the last byte is noticed when everything has been written out.
	d.store.Add(fault.Rule{Op: fault.GetRead, Key: fault.Contains(seg(1, 1)), At: 150, Count: fault.Forever, Do: fault.Fail(nil)})
	if err := wal.Fetch(t.Context(), opts); err == nil {
		t.Fatal("a broken read is served")
	}
	check("what was there before")
	d.allFaultsHappened(t)

	clean := &depot{Repository: d.Repository, store: d.store, inner: d.inner}
	var err error
	if clean.Repository, err = repo.Open(t.Context(), d.inner); err != nil {
		t.Fatal(err)
	}
	opts.Repo = clean.Repository
	// What killed processes left goes; what another is writing stays.
	old, young := filepath.Join(dir, ".lifeboat-wal-1"), filepath.Join(dir, ".lifeboat-wal-2")
	for _, name := range []string{old, young} {
		if err := os.WriteFile(name, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	if err := wal.Fetch(t.Context(), opts); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Error("what a killed process left is still there")
	}
	if err := os.Remove(young); err != nil {
		t.Errorf("what another process writes is gone: %v", err)
	}
	check("new")

	opts.Dest = filepath.Join(dir, "missing", "RECOVERYXLOG")
	if err := wal.Fetch(t.Context(), opts); err == nil || errors.Is(err, wal.ErrAbsent) {
		t.Errorf("a directory that is not there: %v", err)
	}
}

// TestFetch_Patience: failures are retried, and given up within Patience, also those of a store that does not answer.
func TestFetch_Patience(t *testing.T) {
	t.Parallel()
	object := fault.Contains(seg(1, 1))
	whole := make([]byte, 4*mib) // several frames
	for i := range whole {
		whole[i] = byte(i * i >> 7)
	}
	run := func(t *testing.T, patience time.Duration, rules ...fault.Rule) (time.Duration, error) {
		d := newDepot(t)
		d.identify(t, 4*size1)
		d.put(t, whole, seg(1, 1))
		d.store.Add(rules...)
		begin := time.Now()
		err := wal.Fetch(t.Context(), wal.FetchOptions{
			Repo: d.Repository, Cluster: "c1", Name: seg(1, 1), Dest: filepath.Join(t.TempDir(), "x"), Patience: patience,
		})
		if err == nil || !errors.Is(err, wal.ErrAbsent) {
			d.allFaultsHappened(t)
		}
		return time.Since(begin), err
	}
	t.Run("retried", func(t *testing.T) {
		t.Parallel()
		if took, err := run(t, 30*time.Second, fault.Rule{Op: fault.Get, Key: object, Count: 3, Do: fault.Fail(nil)}); err != nil {
			t.Errorf("after %v: %v", took, err)
		}
	})
	t.Run("given up", func(t *testing.T) {
		t.Parallel()
		took, err := run(t, 700*time.Millisecond, fault.Rule{Op: fault.Get, Key: object, Count: fault.Forever, Do: fault.Fail(nil)})
		if !errors.Is(err, fault.ErrInjected) || took > 5*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
	t.Run("silent at once", func(t *testing.T) {
		t.Parallel()
		took, err := run(t, 300*time.Millisecond, fault.Rule{Op: fault.Get, Key: object, Count: fault.Forever, Do: fault.Hang()})
		if err == nil || errors.Is(err, wal.ErrAbsent) || took > 5*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
	t.Run("silent in the middle", func(t *testing.T) {
		t.Parallel()
		took, err := run(t, 300*time.Millisecond, fault.Rule{Op: fault.GetRead, Key: object, At: 5000, Count: fault.Forever, Do: fault.Hang()})
		if err == nil || errors.Is(err, wal.ErrAbsent) || took > 5*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		d := newDepot(t)
		d.identify(t, size1)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		d.store.Add(fault.Rule{Op: fault.Get, Count: fault.Forever, Do: fault.Hang()})
		begin := time.Now()
		err := wal.Fetch(ctx, wal.FetchOptions{Repo: d.Repository, Cluster: "c1", Name: seg(1, 1), Dest: filepath.Join(t.TempDir(), "x")})
		if err == nil || errors.Is(err, wal.ErrAbsent) || time.Since(begin) > 10*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}

func TestNeed(t *testing.T) {
	a, b, c := seg(1, 2), seg(1, 9), seg(2, 9)
	for _, text := range []string{"", a + ".." + a, a + ".." + b, a + ".." + b + "," + c + ".." + c} {
		need, err := wal.ParseNeed(text)
		if err != nil || need.String() != text {
			t.Errorf("%q came back as %q, %v", text, need, err)
		}
	}
	for _, text := range []string{
		"x", a, a + "..", ".." + a, a + "." + a, b + ".." + a, a + ".." + c, a + ".." + b + ",", "," + a + ".." + b,
		a + ".." + b + ".." + b, a + ".partial.." + b, "00000002.history..00000002.history", strings.ToLower("0000000A0000000000000001.." + "0000000A0000000000000001"),
		a + " .. " + b, a + "..\n" + b,
	} {
		if need, err := wal.ParseNeed(text); err == nil {
			t.Errorf("%q is read as %v", text, need)
		}
	}
	need, err := wal.ParseNeed(a + ".." + b + "," + c + ".." + c)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		a: true, seg(1, 5): true, b: true, c: true,
		seg(1, 1): false, seg(1, 10): false, seg(2, 5): false, seg(2, 10): false, seg(3, 5): false,
		a + ".partial": false, "00000001.history": false, seg(1, 5) + ".00000028.backup": false, "": false,
	} {
		if need.Has(name) != want {
			t.Errorf("Has(%s) is %v", name, !want)
		}
	}
	if wal.Need(nil).Has(a) {
		t.Error("an empty need has something")
	}
}
