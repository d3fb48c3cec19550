package wal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

// inventory lays segments ("1:2-5,7" is timeline, runs) and histories, and lists them.
func (d *depot) inventory(t testing.TB, segments []string, histories map[pg.Timeline]string) *wal.Inventory {
	t.Helper()
	for _, s := range segments {
		tli, list, _ := strings.Cut(s, ":")
		for part := range strings.SplitSeq(list, ",") {
			var n pg.Timeline
			var first, last uint64
			_, _ = fmt.Sscan(tli, &n)
			if _, err := fmt.Sscanf(part, "%d-%d", &first, &last); err != nil {
				last = first
			}
			for i := first; i <= last; i++ {
				d.put(t, []byte("x"), seg(n, i))
			}
		}
	}
	for tli, text := range histories {
		d.put(t, []byte(text), tli.HistoryName())
	}
	return d.list(t)
}

func (d *depot) list(t testing.TB) *wal.Inventory {
	t.Helper()
	inv, err := wal.List(t.Context(), d.Repository, "c1")
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func describe(inv *wal.Inventory) string {
	var b strings.Builder
	for _, tl := range inv.Timelines {
		fmt.Fprintf(&b, "%d:", tl.Timeline)
		for _, r := range tl.Runs {
			fmt.Fprintf(&b, " %d-%d", r.First, r.Last)
		}
		if tl.HasPartial {
			fmt.Fprintf(&b, " partial %d", tl.Partial)
		}
		for _, g := range tl.Gaps() {
			fmt.Fprintf(&b, " gap %s..%s", g.From.Name(inv.SegmentSize)[16:], g.To.Name(inv.SegmentSize)[16:])
		}
		b.WriteString("; ")
	}
	return b.String()
}

func TestList(t *testing.T) {
	d := newDepot(t)
	if _, err := wal.List(t.Context(), d.Repository, "c1"); !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("an unknown cluster: %v", err)
	}
	d.identify(t, size1)
	inv := d.list(t)
	if len(inv.Timelines) != 0 || inv.Newest() != 0 || inv.SegmentSize != size1 {
		t.Errorf("an empty inventory is %+v", inv)
	}
	// Segment 4096 is the first of the next log file.
	d.inventory(t, []string{"1:2-4,6,8-9,4094-4097", "2:6", "10:7-8", "3:1"}, map[pg.Timeline]string{2: "1\t0/600000\tx\n"})
	d.put(t, []byte("x"), seg(1, 9)+".partial", seg(2, 7)+".partial", seg(11, 1)+".partial", seg(1, 5)+".00000028.backup")
	inv = d.list(t)
	want := "1: 2-4 6-6 8-9 4094-4097 partial 9 gap 00000005..00000005 gap 00000007..00000007 gap 0000000A..00000FFD; " +
		"2: 6-6 partial 7; 3: 1-1; 10: 7-8; 11: partial 1; "
	if got := describe(inv); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for n, want := range map[uint64]bool{1: false, 2: true, 4: true, 5: false, 6: true, 7: false, 9: true, 10: false, 4095: true, 4098: false} {
		if inv.Timeline(1).Has(n) != want {
			t.Errorf("Has(%d) is %v", n, !want)
		}
	}
	if inv.Timeline(4) != nil || inv.Timeline(2) == nil {
		t.Error("Timeline finds what is not there, or not what is")
	}
	if inv.Newest() != 11 {
		t.Errorf("the newest timeline is %d", inv.Newest())
	}
	for _, op := range []fault.Op{fault.List, fault.Get} {
		broken := newDepot(t)
		broken.identify(t, size1)
		broken.put(t, []byte("1\t0/600000\tx\n"), "00000002.history")
		broken.store.Add(fault.Rule{Op: op, Nth: 2, Do: fault.Fail(nil)})
		if _, err := wal.List(t.Context(), broken.Repository, "c1"); !errors.Is(err, fault.ErrInjected) {
			t.Errorf("with a failing %v: %v", op, err)
		}
		broken.allFaultsHappened(t)
	}
}

// What nobody asks for must not make a restore impossible, whoever put it there.
func TestList_PassesOverHostileNames(t *testing.T) {
	d := newDepot(t)
	d.identify(t, size1)
	inv := d.inventory(t, []string{"1:1-3"}, nil)
	want := describe(inv)
	const segments, history = "clusters/c1/wal/segments/", "clusters/c1/wal/history/"
	for _, key := range []string{
		segments + "README",
		segments + "0000000100000000/" + seg(1, 4) + ".tmp",
		segments + "0000000100000000/" + strings.ToLower("00000001000000000000000A"),
		segments + "0000000100000000/00000001000000000000FFFF", // beyond what 4 GiB hold in segments of 1 MiB
		segments + "0000000100000000/0000000100000000000000",
		segments + "0000000000000000/000000000000000000000001", // there is no timeline 0
		segments + "0000000100000000/" + seg(1, 4) + ".00000028.backup",
		segments + "zzz/x",
		history + "junk", history + "0000000Z.history", history + "00000007.history.tmp", history + seg(1, 9),
	} {
		if err := blob.PutBytes(t.Context(), d.inner, key, []byte("junk")); err != nil {
			t.Fatal(err)
		}
	}
	inv = d.list(t)
	if got := describe(inv); got != want || inv.Newest() != 1 {
		t.Errorf("got %s (newest %d), want %s", got, inv.Newest(), want)
	}
}

// One rotten history must not keep anybody from restoring along other timelines, and must not look absent.
func TestList_BrokenHistories(t *testing.T) {
	d := newDepot(t)
	d.identify(t, size1)
	d.put(t, []byte("1\t0/380000\tx\n"), "00000002.history")
	d.put(t, []byte("7\t0/380000\tx\n"), "00000003.history")                 // an ancestor from the future
	d.put(t, bytes.Repeat([]byte("# x\n"), 1<<20), "00000004.history")       // endless
	d.put(t, []byte("1\t0/380000\tx\n2\t0/480000\tx\n"), "00000005.history") // to be damaged
	d.put(t, []byte("x"), seg(1, 1), seg(2, 3))
	d.spoil(t, "00000005.history")
	inv := d.list(t)
	if h, err := inv.History(2); err != nil || len(h.Entries) != 1 {
		t.Errorf("history of 2: %+v, %v", h, err)
	}
	if h, err := inv.History(1); err != nil || h.Timeline != 1 || len(h.Entries) != 0 {
		t.Errorf("history of 1: %+v, %v", h, err)
	}
	for _, tli := range []pg.Timeline{3, 4, 5} {
		if _, err := inv.History(tli); err == nil || !strings.Contains(err.Error(), "cannot be followed, others can") {
			t.Errorf("history of %d: %v", tli, err)
		}
	}
	if _, err := inv.History(6); err == nil || !strings.Contains(err.Error(), "00000006.history") {
		t.Errorf("a missing history: %v", err)
	}
	if inv.Newest() != 5 {
		t.Errorf("the newest timeline is %d: an unreadable one was taken for absent", inv.Newest())
	}
}

// TestFileAndFrontier goes along histories whose switches lie inside segments (n.5 is the middle of segment n).
func TestFileAndFrontier(t *testing.T) {
	at := func(f float64) pg.LSN { return pg.LSN(f * mib) }
	history := func(points ...any) string { // timeline, position, ...
		var b strings.Builder
		for i := 0; i < len(points); i += 2 {
			fmt.Fprintf(&b, "%d\t%s\tx\n", points[i], at(points[i+1].(float64)))
		}
		return b.String()
	}
	for _, c := range []struct {
		name      string
		segments  []string
		histories map[pg.Timeline]string
		tli       pg.Timeline
		from      float64
		frontier  float64
		files     string // "n:tli", "-" for none
	}{
		{"one run", []string{"1:2-9"}, nil, 1, 3.5, 10, "1:- 2:1 9:1 10:-"},
		{"a gap", []string{"1:2-4,6-9"}, nil, 1, 2, 5, "4:1 5:- 6:1"},
		{"from behind the gap", []string{"1:2-4,6-9"}, nil, 1, 6, 10, "6:1"},
		{"from inside the gap", []string{"1:2-4,6-9"}, nil, 1, 5.5, 5, "5:-"},
		{"from before the first", []string{"1:2-4"}, nil, 1, 1.5, 1, "1:-"},
		{"exactly behind the last", []string{"1:2-4"}, nil, 1, 5, 5, "5:-"},
		{"nothing at all", nil, nil, 1, 3.2, 3, "3:-"},
		{"a switch inside a segment", []string{"1:2-4", "2:5-7"}, map[pg.Timeline]string{2: history(1, 5.5)}, 2, 2, 8, "4:1 5:2 7:2 8:-"},
		{"the parent has its own copy of the seam", []string{"1:2-5", "2:5-7"}, map[pg.Timeline]string{2: history(1, 5.5)}, 2, 2, 8, "4:1 5:2"},
		{"the parent went on", []string{"1:2-20", "2:5-7"}, map[pg.Timeline]string{2: history(1, 5.5)}, 2, 2, 8, "4:1 5:2 7:2 8:- 9:-"},
		{"the parent went on, the child has archived nothing", []string{"1:2-20"}, map[pg.Timeline]string{2: history(1, 5.5)}, 2, 2, 5, "4:1 5:- 6:- 20:-"},
		{"the parent went on, the child's first is missing", []string{"1:2-20", "2:6-7"}, map[pg.Timeline]string{2: history(1, 5.5)}, 2, 2, 5, "4:1 5:- 6:2"},
		{"along the parent itself", []string{"1:2-20", "2:5-7"}, map[pg.Timeline]string{2: history(1, 5.5)}, 1, 2, 21, "5:1 20:1"},
		{"a gap in the child", []string{"1:2-4", "2:5,7"}, map[pg.Timeline]string{2: history(1, 5.5)}, 2, 2, 6, "5:2 6:- 7:2"},
		{"a gap in the parent", []string{"1:2,4", "2:5-7"}, map[pg.Timeline]string{2: history(1, 5.5)}, 2, 2, 3, "2:1 3:- 4:1 5:2"},
		{"a switch at a boundary", []string{"1:2-4", "2:5-7"}, map[pg.Timeline]string{2: history(1, 5.0)}, 2, 2, 8, "4:1 5:2"},
		{"two switches", []string{"1:2-4", "2:5-6", "3:7-8"}, map[pg.Timeline]string{3: history(1, 5.5, 2, 7.25)}, 3, 2, 9, "4:1 5:2 6:2 7:3 8:3"},
		{"two switches in one segment", []string{"1:2-4", "2:5", "3:5-6"}, map[pg.Timeline]string{3: history(1, 5.25, 2, 5.75)}, 3, 2, 7, "4:1 5:3 6:3"},
		{"two switches in one segment, the youngest has not archived", []string{"1:2-9", "2:5-9"}, map[pg.Timeline]string{3: history(1, 5.25, 2, 5.75)}, 3, 2, 5, "4:1 5:-"},
		{"a restore to before a switch", []string{"1:2-9", "2:5-9", "3:4-6"}, map[pg.Timeline]string{3: history(1, 5.5, 2, 4.5)}, 3, 2, 7, "3:1 4:3 5:3 6:3 7:-"},
		{"an ancestor that nothing was replayed of", []string{"1:2-4", "2:9", "3:5-6"}, map[pg.Timeline]string{3: history(1, 5.5, 2, 5.5)}, 3, 2, 7, "4:1 5:3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDepot(t)
			d.identify(t, size1)
			inv := d.inventory(t, c.segments, c.histories)
			h, err := inv.History(c.tli)
			if err != nil {
				t.Fatal(err)
			}
			if got := inv.Frontier(h, at(c.from)); got != at(c.frontier) {
				t.Errorf("the frontier is %v, want %v", got, at(c.frontier))
			}
			for want := range strings.FieldsSeq(c.files) {
				var n uint64
				_, _ = fmt.Sscanf(want, "%d:", &n)
				got := fmt.Sprintf("%d:-", n)
				if s, ok := inv.File(h, n); ok {
					if got = fmt.Sprintf("%d:%d", n, s.Timeline); s.Number != n {
						t.Errorf("asked for %d, got %d", n, s.Number)
					}
				}
				if got != want {
					t.Errorf("file is %s, want %s", got, want)
				}
			}
		})
	}
}

// TestInventory_OfARealPromotion: what servers archived is one history without a gap.
func TestInventory_OfARealPromotion(t *testing.T) {
	c := archived(t)
	d := newDepot(t)
	for _, name := range inArchiveOrder(c.files) {
		if _, err := d.push(t, name, c.files[name]); err != nil {
			t.Fatal(err)
		}
	}
	inv := d.list(t)
	h, err := inv.History(2)
	if err != nil || inv.Newest() != 2 || len(inv.Timelines) != 2 {
		t.Fatalf("%s, newest %d, %v", describe(inv), inv.Newest(), err)
	}
	one, two := inv.Timeline(1), inv.Timeline(2)
	sw, ok := h.SwitchPoint(1)
	if !ok || two.Runs[0].First != uint64(sw)/mib || !one.HasPartial || one.Partial != uint64(sw)/mib || one.Runs[0].Last != one.Partial-1 {
		t.Errorf("timeline 1 was left at %v, but the inventory is %s", sw, describe(inv))
	}
	from := pg.LSN(one.Runs[0].First * mib)
	if got, want := inv.Frontier(h, from), pg.LSN((two.Runs[0].Last+1)*mib); got != want || len(two.Runs) != 1 {
		t.Errorf("frontier is %v, want %v", got, want)
	}
	// The partial is served as the whole segment that recovery along timeline 1 asks for.
	data, err := d.fetch(t, seg(1, one.Partial), nil)
	if err != nil || !bytes.Equal(data, c.files[seg(1, one.Partial)+".partial"]) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

func TestFacts_OfWhatIsNotASegment(t *testing.T) {
	d := newDepot(t)
	if _, err := wal.Facts(t.Context(), d.Repository, "c1", seg(1, 1)); !errors.Is(err, repo.ErrNotFound) {
		t.Errorf("a missing segment: %v", err)
	}
	d.put(t, []byte("1\t0/600000\tx\n"), "00000002.history")
	if _, err := wal.Facts(t.Context(), d.Repository, "c1", "00000002.history"); err == nil {
		t.Error("a history has facts")
	}
	h := repo.WALHeader{Name: seg(1, 2), Facts: []byte(`"x"`)}
	if _, err := d.PutWAL(t.Context(), "c1", h, nil, repo.Zstd); err != nil {
		t.Fatal(err)
	}
	if _, err := wal.Facts(t.Context(), d.Repository, "c1", seg(1, 2)); err == nil {
		t.Error("facts that are no facts are read")
	}
}

// wait waits for segments 3 to 5 of timeline 1, and tells what progress said.
func (d *depot) wait(ctx context.Context, patience time.Duration, progress func(done, total int64, awaited string)) error {
	return wal.Wait(ctx, wal.WaitOptions{
		Repo: d.Repository, Cluster: "c1", Timeline: 1, From: 3*mib + 40, To: 6 * mib, SegmentSize: size1,
		Patience: patience, Progress: progress,
	})
}

func TestWait(t *testing.T) {
	t.Parallel()
	t.Run("all there", func(t *testing.T) {
		d := newDepot(t)
		d.put(t, nil, seg(1, 3), seg(1, 4), seg(1, 5))
		if err := d.wait(t.Context(), time.Millisecond, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("missing", func(t *testing.T) {
		for missing, others := range map[string][]string{
			seg(1, 3): {seg(1, 2), seg(1, 4), seg(1, 5)},
			seg(1, 4): {seg(1, 3), seg(1, 4) + ".partial", seg(1, 4) + ".00000028.backup", seg(1, 5), seg(2, 4)},
			seg(1, 5): {seg(1, 3), seg(1, 4), seg(1, 6), seg(2, 5)},
		} {
			d := newDepot(t)
			d.put(t, nil, others...)
			var gone *wal.MissingError
			if err := d.wait(t.Context(), 120*time.Millisecond, nil); !errors.As(err, &gone) || gone.Segment != missing ||
				!strings.Contains(err.Error(), "archive_command") {
				t.Errorf("without %s: %v", missing, err)
			}
		}
	})
	t.Run("a range that ends at a boundary needs nothing beyond", func(t *testing.T) {
		d := newDepot(t)
		d.put(t, nil, seg(1, 3))
		for _, to := range []pg.LSN{3*mib + 41, 4 * mib} {
			err := wal.Wait(t.Context(), wal.WaitOptions{Repo: d.Repository, Cluster: "c1", Timeline: 1, From: 3*mib + 40, To: to, SegmentSize: size1})
			if err != nil {
				t.Errorf("to %v: %v", to, err)
			}
		}
		err := wal.Wait(t.Context(), wal.WaitOptions{Repo: d.Repository, Cluster: "c1", Timeline: 1, From: 3*mib + 40, To: 4*mib + 1, SegmentSize: size1})
		var gone *wal.MissingError
		if !errors.As(err, &gone) || gone.Segment != seg(1, 4) {
			t.Errorf("to the first byte of the next: %v", err)
		}
	})
	t.Run("across log files", func(t *testing.T) {
		d := newDepot(t)
		d.put(t, nil, seg(1, 4095), seg(1, 4096))
		err := wal.Wait(t.Context(), wal.WaitOptions{Repo: d.Repository, Cluster: "c1", Timeline: 1, From: 4095 * mib, To: 4097 * mib, SegmentSize: size1})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		d := newDepot(t)
		why := errors.New("why")
		ctx, cancel := context.WithCancelCause(t.Context())
		err := d.wait(ctx, time.Minute, func(int64, int64, string) { cancel(why) })
		if !errors.Is(err, why) {
			t.Errorf("error is %v", err)
		}
	})
}

// Each segment that comes renews the patience, and progress says what is awaited.
func TestWait_ProgressExtendsPatience(t *testing.T) {
	t.Parallel()
	d := newDepot(t)
	const patience = time.Second
	var seen []string
	last, came := time.Now(), uint64(3)
	begin := time.Now()
	err := d.wait(t.Context(), patience, func(done, total int64, awaited string) {
		seen = append(seen, fmt.Sprintf("%d/%d %s", done/mib, total/mib, awaited[23:]))
		if time.Since(last) > patience*6/10 { // two of these pauses exceed the patience
			d.put(t, nil, seg(1, came))
			came, last = came+1, time.Now()
		}
	})
	if err != nil || time.Since(begin) < patience*3/2 {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	all := strings.Join(seen, "; ")
	for _, want := range []string{"0/3 3", "1/3 4", "2/3 5"} {
		if !strings.Contains(all, want) {
			t.Errorf("progress was %s; want %s in it", all, want)
		}
	}
}

// A store that fails for a moment must not end a wait; one that keeps failing does, with its own error.
func TestWait_OutlivesAFailingStore(t *testing.T) {
	t.Parallel()
	d := newDepot(t)
	d.put(t, nil, seg(1, 3), seg(1, 4), seg(1, 5))
	d.store.Add(fault.Rule{Op: fault.List, Count: 3, Do: fault.Fail(nil)}, fault.Rule{Op: fault.List, At: 1, Do: fault.Fail(nil)})
	if err := d.wait(t.Context(), 20*time.Second, nil); err != nil {
		t.Error(err)
	}
	d.allFaultsHappened(t)
	d.store.Add(fault.Rule{Op: fault.List, Count: fault.Forever, Do: fault.Fail(nil)})
	if err := d.wait(t.Context(), 100*time.Millisecond, nil); !errors.Is(err, fault.ErrInjected) {
		t.Errorf("a store that keeps failing: %v", err)
	}
}
