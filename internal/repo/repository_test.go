package repo_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

func TestOpen_NoRepository(t *testing.T) {
	if _, err := repo.Open(t.Context(), mem.New()); !errors.Is(err, repo.ErrNoRepository) || !strings.Contains(err.Error(), "mem:") {
		t.Errorf("Open of an empty store: %v", err)
	}
	failing := fault.New(mem.New(), fault.Rule{Op: fault.Get, Do: fault.Fail(nil)})
	if _, err := repo.Open(t.Context(), failing); errors.Is(err, repo.ErrNoRepository) || !errors.Is(err, fault.ErrInjected) {
		t.Errorf("Open of a store that fails: %v", err)
	}
}

// TestOpenOrCreate_Race lets many create one repository: all must use the same header.
func TestOpenOrCreate_Race(t *testing.T) {
	store := mem.New()
	ids := make([]repo.Header, 16)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			r, err := repo.OpenOrCreate(t.Context(), store)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = r.Header()
		})
	}
	wg.Wait()
	for _, h := range ids {
		if h != ids[0] || h.ID == (repo.ID{}) || h.NamingKey == (repo.ID{}) || h.ID == h.NamingKey {
			t.Fatalf("headers differ or are not random: %+v, %+v", h, ids[0])
		}
	}
	other, _ := newRepo(t)
	if other.Header().ID == ids[0].ID {
		t.Error("two repositories have one id")
	}
}

func TestOpenOrCreate_LostReply(t *testing.T) {
	for _, do := range []fault.Action{fault.FailAfter(nil), fault.Fail(nil)} {
		store := fault.New(mem.New(), fault.Rule{Op: fault.PutIfAbsent, Do: do})
		if _, err := repo.OpenOrCreate(t.Context(), store); err != nil {
			t.Errorf("OpenOrCreate: %v", err)
		}
		if unused := store.Unused(); len(unused) > 0 {
			t.Errorf("faults that did not happen: %v", unused)
		}
	}
	refusing := fault.New(mem.New(), fault.Rule{Op: fault.PutIfAbsent, Count: fault.Forever, Do: fault.Fail(nil)})
	if _, err := repo.OpenOrCreate(t.Context(), refusing); !errors.Is(err, fault.ErrInjected) {
		t.Errorf("OpenOrCreate where nothing can be written: %v", err)
	}
}

func TestOpen_RefusesImpossibleHeaders(t *testing.T) {
	change := func(f func(h *repo.Header)) string {
		h := smallHeader()
		f(&h)
		data, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for _, tt := range []struct{ name, body, want string }{
		{"empty", "", "JSON"},
		{"truncated", change(func(*repo.Header) {})[:100], "JSON"},
		{"not JSON", "hello", "JSON"},
		{"later format", `{"format": 2, "newField": true}`, "format 2"},
		{"no format", `{}`, "format number was changed"},
		{"unknown field", `{"format": 1, "namingKez": "00"}`, "namingKez"},
		{"short key", `{"format": 1, "namingKey": "00"}`, "64 hexadecimal digits"},
		{"wrong check", change(func(h *repo.Header) { h.Check = strings.Repeat("0", 32) }), "check"},
		{"small chunks", change(func(h *repo.Header) { h.ChunkSize = 100 }), "impossible sizes"},
		{"large chunks", change(func(h *repo.Header) { h.ChunkSize = 8 << 20; h.LeafSpan = 8 << 20; h.PackSize = 8 << 20 }), "impossible sizes"},
		{"leaf below chunk", change(func(h *repo.Header) { h.LeafSpan = h.ChunkSize - 1 }), "impossible sizes"},
		{"large leaf", change(func(h *repo.Header) { h.LeafSpan = 1<<30 + 1 }), "impossible sizes"},
		{"fan-out 1", change(func(h *repo.Header) { h.FanOut = 1 }), "impossible sizes"},
		{"pack below chunk", change(func(h *repo.Header) { h.PackSize = 1 }), "impossible sizes"},
		{"large pack", change(func(h *repo.Header) { h.PackSize = 65 << 20 }), "impossible sizes"},
		{"very long", strings.Repeat(" ", 70_000), "larger than expected"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := mem.New()
			if err := blob.PutBytes(t.Context(), store, "lifeboat.json", []byte(tt.body)); err != nil {
				t.Fatal(err)
			}
			if _, err := repo.Open(t.Context(), store); err == nil || !strings.Contains(err.Error(), tt.want) || errors.Is(err, repo.ErrNoRepository) {
				t.Errorf("Open: %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestParseCompression(t *testing.T) {
	for in, want := range map[string]repo.Compression{"": repo.Zstd, "zstd": repo.Zstd, "s2": repo.S2, "none": repo.NoCompression} {
		if got, err := repo.ParseCompression(in); got != want || err != nil {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	if _, err := repo.ParseCompression("gzip"); err == nil || !strings.Contains(err.Error(), "zstd, s2 or none") {
		t.Errorf("gzip: %v", err)
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "orders", "0", "a-b-c", "a-", strings.Repeat("x", 63)} {
		if err := repo.CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "-a", "A", "a_b", "a/b", "..", "a.b", "é", "a b", strings.Repeat("x", 64)} {
		if repo.CheckName(name) == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}

// TestClusters lists clusters whose names sort differently as keys, among many objects of each.
func TestClusters(t *testing.T) {
	r, _ := newRepo(t)
	if got, err := r.Clusters(t.Context()); len(got) != 0 || err != nil {
		t.Errorf("no clusters: %v, %v", got, err)
	}
	want := []string{"a", "a-b", "a0", "a00", "ab", "b", "zz"}
	for i, name := range want {
		if err := r.ClaimIdentity(t.Context(), name, repo.Identity{SystemID: 1, WALSegmentSize: pg.DefaultSegmentSize}); err != nil {
			t.Fatal(err)
		}
		for j := range i * 3 {
			if err := r.PutDocument(t.Context(), name, "reports/"+string(rune('a'+j)), j); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := r.Clusters(t.Context()); !slices.Equal(got, want) || err != nil {
		t.Errorf("clusters %v, %v; want %v", got, err, want)
	}
}

// TestClusters_OneListingACluster checks that the objects of a cluster are not all listed.
func TestClusters_OneListingACluster(t *testing.T) {
	inner := mem.New()
	r := newSmall(t, inner)
	for i := range 200 {
		if err := r.PutDocument(t.Context(), "c1", "reports/"+strings.Repeat("x", i+1), i); err != nil {
			t.Fatal(err)
		}
	}
	store := fault.New(inner, fault.Rule{Op: fault.List, At: 2, Count: fault.Forever, Do: fault.Fail(nil)})
	r, err := repo.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Clusters(t.Context()); len(got) != 1 || err != nil {
		t.Errorf("clusters %v, %v", got, err)
	}
}

func TestDocuments(t *testing.T) {
	r, store := newRepo(t)
	type report struct{ Text string }
	long := report{strings.Repeat("ab", 2<<20)} // several frames
	for name, v := range map[string]report{"reports/2": {"two"}, "reports/1": long, "verifications/x/y": {""}} {
		if err := r.PutDocument(t.Context(), "c1", name, report{"old"}); err != nil {
			t.Fatal(err)
		}
		if err := r.PutDocument(t.Context(), "c1", name, v); err != nil {
			t.Fatal(err)
		}
		var got report
		if err := r.GetDocument(t.Context(), "c1", name, &got); err != nil || got != v {
			t.Errorf("%s: %.20v, %v", name, got, err)
		}
	}
	if names, err := r.ListDocuments(t.Context(), "c1", "reports/"); !slices.Equal(names, []string{"reports/1", "reports/2"}) || err != nil {
		t.Errorf("ListDocuments: %v, %v", names, err)
	}
	if err := r.GetDocument(t.Context(), "c1", "reports/3", &long); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("GetDocument of a missing one: %v", err)
	}
	before := len(objects(t, store, ""))
	for _, name := range []string{"identity", "backups/x", "intents/x", "leases/x/1", "wal/x", "data/x", "tree/x", "", "../x", "a//b", "/a"} {
		if err := r.PutDocument(t.Context(), "c1", name, 1); err == nil {
			t.Errorf("PutDocument accepted the name %q", name)
		}
	}
	if err := r.PutDocument(t.Context(), "C 1", "reports/1", 1); err == nil {
		t.Error("PutDocument accepted a cluster that cannot be")
	}
	if err := r.PutDocument(t.Context(), "c1", "reports/x", func() {}); err == nil {
		t.Error("PutDocument encoded a function")
	}
	if len(objects(t, store, "")) != before {
		t.Error("a refused document was stored")
	}
	var wrong struct{ Text int }
	if err := r.GetDocument(t.Context(), "c1", "reports/2", &wrong); !repo.IsDamage(err) {
		t.Errorf("GetDocument into another type: %v", err)
	}
}
