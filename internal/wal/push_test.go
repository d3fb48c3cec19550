package wal_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/blob/fault"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

// content reads a stored WAL file.
func (d *depot) content(t testing.TB, name string) []byte {
	t.Helper()
	w, err := d.OpenWAL(t.Context(), "c1", name)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestPush_TakesWhatServersArchive pushes everything that real servers handed to archive_command (R15), in their order,
// twice: each file is one object, and comes back as it was.
func TestPush_TakesWhatServersArchive(t *testing.T) {
	c := archived(t)
	t.Run("1 MiB, two timelines", func(t *testing.T) { pushAll(t, c.files, 1) })
	for _, sizeMB := range []int{16, 64} {
		t.Run(fmt.Sprintf("%d MiB", sizeMB), func(t *testing.T) {
			pushAll(t, archiveOf(t, sizeMB, false), sizeMB)
		})
	}
	if len(c.of(pg.WALSegment, 1)) < 2 || len(c.of(pg.WALSegment, 2)) < 2 || len(c.of(pg.WALPartial, 1)) != 1 ||
		len(c.of(pg.WALHistory, 2)) != 1 || len(c.of(pg.WALBackupHistory, 1)) != 1 {
		t.Errorf("the servers did not archive files of all kinds: %v", inArchiveOrder(c.files))
	}
}

func pushAll(t *testing.T, files map[string][]byte, sizeMB int) {
	d := newDepot(t)
	for round := range 2 {
		for _, name := range inArchiveOrder(files) {
			res, err := d.push(t, name, files[name])
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if res.Name != name || res.PlainBytes != int64(len(files[name])) || (res.StoredBytes == 0) != (round == 1) {
				t.Errorf("round %d: %+v of %d bytes", round, res, len(files[name]))
			}
		}
	}
	for name, data := range files {
		if !bytes.Equal(d.content(t, name), data) {
			t.Errorf("%s came back changed", name)
		}
		f, err := pg.ParseWALFileName(name)
		if err != nil {
			t.Fatal(err)
		}
		if f.Kind != pg.WALSegment {
			continue
		}
		facts, err := wal.Facts(t.Context(), d.Repository, "c1", name)
		if err != nil {
			t.Fatal(err)
		}
		seg, err := f.Segment(pg.SegmentSize(sizeMB * mib))
		if err != nil || facts.StartLSN != seg.Start(facts.SegmentSize) || facts.SegmentSize != pg.SegmentSize(sizeMB*mib) || facts.Records == 0 {
			t.Errorf("facts of %s are %+v (%v)", name, facts, err)
		}
	}
	id, err := d.Identity(t.Context(), "c1")
	if err != nil || id.WALSegmentSize != pg.SegmentSize(sizeMB*mib) {
		t.Errorf("identity is %+v, %v", id, err)
	}
}

// inArchiveOrder puts histories first, as pgarch.c does.
func inArchiveOrder(files map[string][]byte) []string {
	var first, rest []string
	for name := range files {
		if strings.HasSuffix(name, ".history") {
			first = append(first, name)
		} else {
			rest = append(rest, name)
		}
	}
	slices.Sort(first)
	slices.Sort(rest)
	return append(first, rest...)
}

// TestPush_RefusesWhatIsNotWhatItsNameSays: nothing of it may be stored, not even an identity, because it would keep
// the true file out (R14) or pin the wrong server.
func TestPush_RefusesWhatIsNotWhatItsNameSays(t *testing.T) {
	c := archived(t)
	segs1, segs2 := c.of(pg.WALSegment, 1), c.of(pg.WALSegment, 2)
	first, next := segs1[0], segs1[1]
	newborn := segs2[0] // begins with bytes of timeline 1
	partial, history, backup := c.of(pg.WALPartial, 1)[0], c.of(pg.WALHistory, 2)[0], c.of(pg.WALBackupHistory, 1)[0]
	whole := c.files[first]
	zeroTail := append(slices.Clone(whole[:mib/2]), make([]byte, mib/2)...)
	recycled := append(slices.Clone(whole[:mib/2]), c.files[next][mib/2:]...)
	flipped := slices.Clone(whole)
	flipped[mib/2+100] ^= 1
	for _, test := range []struct {
		name, file string
		data       []byte
		want       string
	}{
		{"renamed to the next", next, whole, "renamed or recycled"},
		{"recycled, not yet written", segs2[len(segs2)-1], whole, "renamed or recycled"},
		{"renamed to a later timeline", "00000002" + first[8:], whole, "of timeline 1, its name of timeline 2"},
		{"child renamed to the parent", "00000001" + newborn[8:], c.files[newborn], "of timeline 2, its name of timeline 1"},
		{"cut off", first, whole[:mib/2], "incomplete"},
		{"cut off within its first page", first, whole[:100], "incomplete"},
		{"cut off within its header", first, whole[:20], "not a WAL segment"},
		{"empty", first, nil, "not a WAL segment"},
		{"zeroes", first, make([]byte, mib), "not a WAL segment"},
		{"too long", first, append(slices.Clone(whole), 0), "not a WAL segment"},
		{"half of it never written", first, zeroTail, "full segments only"},
		{"half of it from before", first, recycled, "full segments only"},
		{"a flipped bit", first, flipped, "full segments only"},
		{"partial under a whole name", strings.TrimSuffix(partial, ".partial"), c.files[partial], "full segments only"},
		{"renamed partial", first + ".partial", c.files[partial], "renamed or recycled"},
		{"cut off partial", partial, c.files[partial][:mib/2], "incomplete"},
		{"a text", first, []byte("not WAL at all, just some text that somebody put there by accident"), "not a WAL segment"},
		{"empty history", history, nil, "incomplete"},
		{"history without its end", history, c.files[history][:bytes.IndexByte(c.files[history], '/')+2], "incomplete"},
		{"history of another timeline", "00000001.history", c.files[history], "as an ancestor of 1"},
		{"history of nobody", history, []byte("# nothing\n"), "incomplete"},
		{"garbage for a history", history, []byte("\x00\x01\x02\n"), "parse"},
		{"endless history", history, bytes.Repeat([]byte("# x\n"), mib), "at most"},
		{"empty backup history", backup, nil, "no backup history"},
		{"renamed backup history", "000000010000000000000001.00000028.backup", c.files[backup], "no backup history"},
		{"no WAL name", "postgresql.conf", whole, "parse WAL file name"},
		{"lower case", strings.ToLower("0000000A0000000000000001"), whole, "parse WAL file name"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDepot(t)
			before := d.keys(t)
			res, err := d.push(t, test.file, test.data)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error is %v, want %q in it", err, test.want)
			}
			if res.StoredBytes != 0 || !slices.Equal(d.keys(t), before) {
				t.Errorf("stored %v", d.keys(t))
			}
		})
	}
}

// A new timeline's first segment may hold the parent's bytes alone, if the switch lies behind its last page: then the
// history decides, and until it is there PostgreSQL must try again.
func TestPush_BelievesTheHistoryAboutAFirstSegment(t *testing.T) {
	c := archived(t)
	seg := c.of(pg.WALSegment, 1)[1]
	f, err := pg.ParseSegment(seg, mib)
	if err != nil {
		t.Fatal(err)
	}
	child := "00000005" + seg[8:]
	history := func(at pg.LSN) []byte { return fmt.Appendf(nil, "1\t%s\tfor a test\n", at) }
	d := newDepot(t)
	if _, err := d.push(t, child, c.files[seg]); err == nil {
		t.Error("without a history it is accepted")
	}
	if _, err := d.push(t, "00000005.history", history(f.End(mib)-8)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.push(t, child, c.files[seg]); err != nil {
		t.Errorf("with its history it is refused: %v", err)
	}
	other := newDepot(t)
	if _, err := other.push(t, "00000005.history", history(f.End(mib)+8)); err != nil {
		t.Fatal(err)
	}
	if _, err := other.push(t, child, c.files[seg]); err == nil {
		t.Error("it is accepted although the switch lies in the next segment")
	}
}

// TestPush_ConflictsAndStrangers: the same file again is success, other content is an error that pages (R14), and a
// server that is not the cluster's is refused each time (R15).
func TestPush_ConflictsAndStrangers(t *testing.T) {
	c := archived(t)
	d := newDepot(t)
	segs := c.of(pg.WALSegment, 1)
	if _, err := d.push(t, segs[0], c.files[segs[0]]); err != nil {
		t.Fatal(err)
	}
	before := d.keys(t)

	var stranger *repo.IdentityError
	for name, data := range c.foreign {
		if f, err := pg.ParseWALFileName(name); err != nil || f.Kind != pg.WALSegment {
			continue
		}
		if _, err := d.push(t, name, data); !errors.As(err, &stranger) {
			t.Errorf("%s of another server: %v", name, err)
		}
	}

	// A history of the same server whose content differs: its last byte is a newline in both.
	history := c.of(pg.WALHistory, 2)[0]
	d.put(t, []byte("1\t0/100028\tanother promotion\n"), history)
	before = append(before, "clusters/c1/wal/history/"+history)
	var conflict *repo.WALConflictError
	if _, err := d.push(t, history, c.files[history]); !errors.As(err, &conflict) || conflict.Name != history || conflict.Cluster != "c1" {
		t.Errorf("a history with other content: %v", err)
	}
	d.put(t, make([]byte, mib), segs[1])
	before = append(before, "clusters/c1/wal/segments/"+segs[1][:16]+"/"+segs[1])
	if _, err := d.push(t, segs[1], c.files[segs[1]]); !errors.As(err, &conflict) || conflict.Name != segs[1] {
		t.Errorf("a segment with other content: %v", err)
	}
	if bytes.Equal(d.content(t, segs[1]), c.files[segs[1]]) {
		t.Error("the first content was overwritten")
	}
	slices.Sort(before)
	if got := d.keys(t); !slices.Equal(got, before) {
		t.Errorf("keys are %v, want %v", got, before)
	}
}

// TestPush_NeverAcknowledgesWhatAFailingStoreDropped is invariant 3.
func TestPush_NeverAcknowledgesWhatAFailingStoreDropped(t *testing.T) {
	c := archived(t)
	name := c.of(pg.WALSegment, 1)[0]
	data := c.files[name]
	segment := fault.Contains("/" + name)
	identity := fault.Contains("/identity")
	for _, test := range []struct {
		name  string
		rules []fault.Rule
		ok    bool
	}{
		{"the store refuses", []fault.Rule{{Op: fault.PutIfAbsent, Key: segment, Count: fault.Forever, Do: fault.Fail(nil)}}, false},
		{"the first attempt fails", []fault.Rule{{Op: fault.PutIfAbsent, Key: segment, Do: fault.Fail(nil)}}, true},
		{"the reply is lost", []fault.Rule{{Op: fault.PutIfAbsent, Key: segment, Do: fault.FailAfter(nil)}}, true},
		{"every reply is lost", []fault.Rule{{Op: fault.PutIfAbsent, Key: segment, Count: 2, Do: fault.FailAfter(nil)}}, true},
		{"the reply is lost and nothing can be read", []fault.Rule{
			{Op: fault.PutIfAbsent, Key: segment, Do: fault.FailAfter(nil)},
			{Op: fault.Get, Key: segment, Count: fault.Forever, Do: fault.Fail(nil)},
		}, false},
		{"the identity cannot be written", []fault.Rule{{Op: fault.PutIfAbsent, Key: identity, Count: fault.Forever, Do: fault.Fail(nil)}}, false},
		{"the identity cannot be read", []fault.Rule{{Op: fault.Get, Key: identity, Do: fault.Fail(nil)}}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDepot(t)
			d.store.Add(test.rules...)
			_, err := d.push(t, name, data)
			if (err == nil) != test.ok {
				t.Errorf("error is %v", err)
			}
			d.allFaultsHappened(t)
			if err != nil {
				return
			}
			if !bytes.Equal(d.content(t, name), data) {
				t.Error("it was acknowledged, and what is there differs")
			}
		})
	}
	t.Run("it is there, but damaged", func(t *testing.T) {
		d := newDepot(t)
		if _, err := d.push(t, name, data); err != nil {
			t.Fatal(err)
		}
		d.store.Add(fault.Rule{Op: fault.GetRead, Key: segment, At: 120, Do: fault.Flip()})
		if _, err := d.push(t, name, data); err == nil || !repo.IsDamage(err) {
			t.Errorf("error is %v, want damage", err)
		}
		d.allFaultsHappened(t)
	})
	t.Run("interrupted", func(t *testing.T) {
		d := newDepot(t)
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := wal.Push(ctx, wal.PushOptions{Repo: d.Repository, Cluster: "c1", Path: path}); !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
	})
}

func TestPush_NeedsAFile(t *testing.T) {
	d := newDepot(t)
	dir := t.TempDir()
	name := "000000010000000000000001"
	push := func(path string) error {
		_, err := wal.Push(t.Context(), wal.PushOptions{Repo: d.Repository, Cluster: "c1", Path: path})
		return err
	}
	if err := push(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := push(filepath.Join(dir, name)); err == nil || !strings.Contains(err.Error(), "not a WAL file") {
		t.Errorf("a directory: %v", err)
	}
	if err := push("/dev/zero"); err == nil {
		t.Error("a device is accepted")
	}
	huge := filepath.Join(dir, "000000010000000000000002")
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 1<<30+1); err != nil {
		t.Fatal(err)
	}
	if err := push(huge); err == nil || !strings.Contains(err.Error(), "not a WAL file") {
		t.Errorf("a file of more than 1 GiB: %v", err)
	}
	c := archived(t)
	seg := c.of(pg.WALSegment, 1)[0]
	path := filepath.Join(dir, seg)
	if err := os.WriteFile(path, c.files[seg], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := wal.Push(t.Context(), wal.PushOptions{Repo: d.Repository, Cluster: "../c1", Path: path}); err == nil {
		t.Error("a hostile cluster name is accepted")
	}
}
