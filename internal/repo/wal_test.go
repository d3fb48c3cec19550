package repo_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

const (
	segment = "000000010000000000000001"
	history = "00000002.history"
)

func readWAL(t *testing.T, r *repo.Repository, name string) []byte {
	t.Helper()
	w, err := r.OpenWAL(t.Context(), "c1", name)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var out bytes.Buffer
	if n, err := w.WriteTo(&out); err != nil || n != int64(out.Len()) {
		t.Fatalf("WriteTo: %d, %v", n, err)
	}
	return out.Bytes()
}

func TestWAL_RoundTrip(t *testing.T) {
	for _, how := range []repo.Compression{repo.Zstd, repo.S2, repo.NoCompression} {
		for _, size := range []int{0, 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 16 << 20 / raceFactor()} {
			r, store := newRepo(t)
			data := pattern(uint64(size), size)
			head := repo.WALHeader{Name: segment, SystemID: 7, SegmentSize: pg.DefaultSegmentSize, Facts: json.RawMessage(`{"commits":3}`)}
			n, err := r.PutWAL(t.Context(), "c1", head, data, how)
			if err != nil {
				t.Fatal(err)
			}
			if stored := objects(t, store, "clusters/c1/wal/"); len(stored) != 1 || int64(len(stored["clusters/c1/wal/segments/0000000100000000/"+segment])) != n {
				t.Errorf("%s, %d bytes: PutWAL says %d bytes stored", how, size, n)
			}
			if !bytes.Equal(readWAL(t, r, segment), data) {
				t.Errorf("%s, %d bytes: other bytes came back", how, size)
			}
			w, err := r.OpenWAL(t.Context(), "c1", segment)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(iotest.OneByteReader(io.LimitReader(w, 5000)))
			if err != nil || !bytes.Equal(got, data[:min(size, 5000)]) {
				t.Errorf("%s, %d bytes: Read gives %d other bytes, %v", how, size, len(got), err)
			}
			w.Close()
			h, err := r.WALHeader(t.Context(), "c1", segment)
			if err != nil || h.Length != int64(size) || h.SystemID != 7 || h.SegmentSize != pg.DefaultSegmentSize || string(h.Facts) != `{"commits":3}` {
				t.Errorf("%s, %d bytes: header %+v, %v", how, size, h, err)
			}
		}
	}
}

// TestPutWAL_OnceOnly stores a file again, other content under its name, and loses replies (R14).
func TestPutWAL_OnceOnly(t *testing.T) {
	for _, name := range []string{segment, history, segment + ".partial"} {
		inner := mem.New()
		newSmall(t, inner)
		store := fault.New(inner, fault.Rule{Op: fault.PutIfAbsent, Do: fault.FailAfter(nil)})
		r, err := repo.Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		data := random(1, 5000)
		put := func(data []byte, facts string) (int64, error) {
			return r.PutWAL(t.Context(), "c1", repo.WALHeader{Name: name, SystemID: 7, Facts: json.RawMessage(facts)}, data, repo.Zstd)
		}
		if _, err := put(data, `1`); err != nil {
			t.Errorf("%s, whose reply was lost: %v", name, err)
		}
		if unused := store.Unused(); len(unused) > 0 {
			t.Errorf("faults that did not happen: %v", unused)
		}
		if n, err := put(data, `2`); n != 0 || err != nil {
			t.Errorf("%s again: %d, %v", name, n, err)
		}
		for what, other := range map[string][]byte{"other bytes": random(2, 5000), "shorter": data[:4999], "longer": append(bytes.Clone(data), 0), "empty": nil} {
			var conflict *repo.WALConflictError
			if _, err := put(other, `1`); !errors.As(err, &conflict) || conflict.Name != name || conflict.Cluster != "c1" {
				t.Errorf("%s with %s: %v", name, what, err)
			}
		}
		if !bytes.Equal(readWAL(t, r, name), data) {
			t.Errorf("%s: the first content was changed", name)
		}
	}
}

// TestPutWAL_IsDurable demands that what cannot be proved durable is not acknowledged: that an object can be seen after
// a failed write is no proof, only a write that returns is (see package fs).
func TestPutWAL_IsDurable(t *testing.T) {
	inner := mem.New()
	if _, err := newSmall(t, inner).PutWAL(t.Context(), "c1", repo.WALHeader{Name: segment}, []byte("x"), repo.Zstd); err != nil {
		t.Fatal(err)
	}
	// As a file system store whose last fsync fails: the name is there, but may be gone after a loss of power.
	broken := errors.New("fsync: input/output error")
	store := fault.New(inner, fault.Rule{Op: fault.PutIfAbsent, Count: fault.Forever, Do: fault.Fail(broken)})
	r, err := repo.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.PutWAL(t.Context(), "c1", repo.WALHeader{Name: segment}, []byte("x"), repo.Zstd); !errors.Is(err, broken) {
		t.Errorf("PutWAL: %v", err)
	}
}

func TestPutWAL_Unreadable(t *testing.T) {
	r, store := newRepo(t)
	key := "clusters/c1/wal/segments/0000000100000000/" + segment
	if err := blob.PutBytes(t.Context(), store, key, []byte("rubbish")); err != nil {
		t.Fatal(err)
	}
	_, err := r.PutWAL(t.Context(), "c1", repo.WALHeader{Name: segment}, []byte("x"), repo.Zstd)
	if !repo.IsDamage(err) || !strings.Contains(err.Error(), segment) {
		t.Errorf("PutWAL over rubbish: %v", err)
	}
}

func TestPutWAL_Race(t *testing.T) {
	r, _ := newRepo(t)
	errs := make([]error, 16)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = r.PutWAL(t.Context(), "c1", repo.WALHeader{Name: segment}, random(uint64(i%2), 10_000), repo.S2)
		})
	}
	wg.Wait()
	got := readWAL(t, r, segment)
	for i, err := range errs {
		won := bytes.Equal(got, random(uint64(i%2), 10_000))
		if conflict := (*repo.WALConflictError)(nil); won != (err == nil) || err != nil && !errors.As(err, &conflict) {
			t.Errorf("content %d: won %v, %v", i%2, won, err)
		}
	}
}

func TestWAL_RefusesOtherNames(t *testing.T) {
	r, store := newRepo(t)
	for _, name := range []string{
		"", "x", "../../x", "000000010000000000000001/x", "000000010000000000000001.part", "0000000100000000000000g1",
		"archive_status", "00000001.History", strings.Repeat("0", 24), "RECOVERYXLOG",
	} {
		if _, err := r.PutWAL(t.Context(), "c1", repo.WALHeader{Name: name}, nil, repo.Zstd); err == nil {
			t.Errorf("PutWAL accepted the name %q", name)
		}
		if _, err := r.OpenWAL(t.Context(), "c1", name); err == nil || errors.Is(err, blob.ErrNotFound) {
			t.Errorf("OpenWAL of the name %q: %v", name, err)
		}
	}
	if _, err := r.PutWAL(t.Context(), "C1", repo.WALHeader{Name: segment}, nil, repo.Zstd); err == nil {
		t.Error("PutWAL accepted the cluster C1")
	}
	if _, err := r.PutWAL(t.Context(), "c1", repo.WALHeader{Name: segment, Facts: json.RawMessage("{")}, nil, repo.Zstd); err == nil {
		t.Error("PutWAL accepted facts that are not JSON")
	}
	huge := json.RawMessage(`"` + strings.Repeat("x", 17<<20) + `"`)
	if _, err := r.PutWAL(t.Context(), "c1", repo.WALHeader{Name: segment, Facts: huge}, nil, repo.Zstd); err == nil {
		t.Error("PutWAL accepted facts that no reader could hold")
	}
	if len(objects(t, store, "clusters/")) != 0 {
		t.Error("something was stored")
	}
	if _, err := r.OpenWAL(t.Context(), "c1", segment); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("OpenWAL of a missing one: %v", err)
	}
}

func TestWALNames(t *testing.T) {
	r, _ := newRepo(t)
	// In the order that a listing must have: by timeline, then position, then what belongs to the segment.
	names := []string{
		"000000010000000000000001", "000000010000000000000002", "000000010000000000000002.00000028.backup", "0000000100000000000000FF",
		"000000010000000100000000", "000000010000000A00000000", "000000010000000A00000001.partial",
		"000000020000000000000002", "0000000A0000000000000001",
	}
	histories := []string{"00000002.history", "0000000A.history"}
	for i := len(names) - 1; i >= 0; i-- {
		if _, err := r.PutWAL(t.Context(), "c1", repo.WALHeader{Name: names[i]}, []byte(names[i]), repo.NoCompression); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range histories {
		if _, err := r.PutWAL(t.Context(), "c1", repo.WALHeader{Name: name}, []byte(name), repo.NoCompression); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := r.Histories(t.Context(), "c1"); err != nil || !slices.Equal(got, histories) {
		t.Errorf("Histories: %v, %v", got, err)
	}
	for _, tt := range []struct {
		tli   pg.Timeline
		after string
		want  []string
	}{
		{0, "", names},
		{1, "", names[:7]},
		{2, "", names[7:8]},
		{10, "", names[8:]},
		{3, "", nil},
		{0, names[3], names[4:]},
		{1, names[1], names[2:7]},
		{1, "000000010000000000000003", names[3:7]},
		{1, "0000000100000005", names[5:7]},
		{0, "00000001", names},
		{0, "00000002", names[7:]},
		{0, "0000000A", names[8:]},
		{0, names[8], nil},
	} {
		var got []string
		for name, err := range r.WALNames(t.Context(), "c1", tt.tli, tt.after) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, name)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("WALNames(timeline %d, after %q): %v, want %v", tt.tli, tt.after, got, tt.want)
		}
	}
	failing := fault.New(mem.New())
	r, err := repo.OpenOrCreate(t.Context(), failing)
	if err != nil {
		t.Fatal(err)
	}
	failing.Add(fault.Rule{Op: fault.List, Do: fault.Fail(nil)}, fault.Rule{Op: fault.List, Do: fault.Fail(nil)})
	for name, err := range r.WALNames(t.Context(), "c1", 0, "") {
		if !errors.Is(err, fault.ErrInjected) {
			t.Errorf("WALNames: %q, %v", name, err)
		}
	}
	if _, err := r.Histories(t.Context(), "c1"); !errors.Is(err, fault.ErrInjected) {
		t.Errorf("Histories: %v", err)
	}
}

// TestWALReader_MoreThanItsHead reads an object whose frames hold more or less than the head says, as no writer makes.
func TestWALReader_MoreThanItsHead(t *testing.T) {
	r, _ := newRepo(t)
	for i, tt := range []struct {
		claimed, real int
	}{{10, 11}, {11, 10}, {0, 1}, {1, 0}} {
		name := fmt.Sprintf("00000001%016X", i+1)
		repo.PutLyingWAL(t, r, "c1", name, random(1, tt.claimed), random(1, tt.real))
		w, err := r.OpenWAL(t.Context(), "c1", name)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if _, err := w.WriteTo(&out); !repo.IsDamage(err) || out.Len() > tt.claimed {
			t.Errorf("%d bytes claimed, %d there: wrote %d, %v", tt.claimed, tt.real, out.Len(), err)
		}
		w.Close()
	}
}
