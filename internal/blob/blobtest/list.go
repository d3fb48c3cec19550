package blobtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"lifeboat/internal/blob"
)

var listChecks = []check{
	{"list is in byte order of whole keys", checkListOrder},
	{"prefix is not a folder", checkListPrefix},
	{"after is exclusive and need not exist", checkListAfter},
	{"list describes objects as stat does", checkListInfo},
	{"an unknown prefix yields nothing", checkListUnknown},
	{"list agrees with a model", checkListModel},
	{"list of more than a thousand keys", checkListMany},
	{"list may be left early", checkListBreak},
	{"what is listed may be deleted", checkListDelete},
}

// tricky is in byte order. A walk that sorts the names of each folder would give all of a/ before a-b.
var tricky = []string{
	"a+b", "a-b", "a-b-/x", "a-b.", "a.b", "a/+", "a/b", "a/b-/c", "a/b./c", "a/b0", "a/bb/c", "a0", "a=/x", "aA", "a_", "ab",
	"b/c/d", "b/cc", "ba",
}

func checkListOrder(ctx context.Context, t testing.TB, s blob.Store) {
	if !slices.IsSorted(tricky) {
		t.Fatal("the expectation is not sorted")
	}
	for _, i := range rand.Perm(len(tricky)) {
		put(ctx, t, s, tricky[i], "x")
	}
	wantList(ctx, t, s, "", "", tricky...)
}

func checkListPrefix(ctx context.Context, t testing.TB, s blob.Store) {
	keys := []string{"wal/01", "wal/012", "wal/1", "wal2/01", "wall/e", "x/wal/01"}
	for _, key := range keys {
		put(ctx, t, s, key, "x")
	}
	for prefix, keys := range map[string][]string{
		"":         keys,
		"w":        keys[:5],
		"wal":      keys[:5],
		"wal/":     keys[:3],
		"wal/0":    keys[:2],
		"wal/01":   keys[:2],
		"wal/012":  keys[1:2],
		"wal/0123": nil,
		"wal/01/":  nil,
		"wal2":     keys[3:4],
		"wal2/":    keys[3:4],
		"x/wal":    keys[5:],
		"x/wal/0":  keys[5:],
	} {
		wantList(ctx, t, s, prefix, "", keys...)
	}
}

func checkListAfter(ctx context.Context, t testing.TB, s blob.Store) {
	for _, key := range tricky {
		put(ctx, t, s, key, "x")
	}
	for i, key := range tricky {
		wantList(ctx, t, s, "", key, tricky[i+1:]...)
		wantList(ctx, t, s, "", key+"\x00", tricky[i+1:]...)
		wantList(ctx, t, s, "", key[:len(key)-1]+string(key[len(key)-1]-1)+"\xff", tricky[i:]...)
	}
	wantList(ctx, t, s, "a/b", "a/", "a/b", "a/b-/c", "a/b./c", "a/b0", "a/bb/c")
	wantList(ctx, t, s, "a/b", "a/b-/", "a/b-/c", "a/b./c", "a/b0", "a/bb/c")
	wantList(ctx, t, s, "a/b", "a", "a/b", "a/b-/c", "a/b./c", "a/b0", "a/bb/c")
	wantList(ctx, t, s, "a/b", "b")
	wantList(ctx, t, s, "b/", "a0", "b/c/d", "b/cc")
	wantList(ctx, t, s, "b/", "b/c/z", "b/cc")
	wantList(ctx, t, s, "", "\xff")
	wantList(ctx, t, s, "", "/", tricky...)
	wantList(ctx, t, s, "", "../../x", tricky...)
}

func checkListInfo(ctx context.Context, t testing.TB, s blob.Store) {
	put(ctx, t, s, "one", "1")
	put(ctx, t, s, "dir/three", "333")
	n := 0
	for info, err := range s.List(ctx, "", "") {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		stat, err := s.Stat(ctx, info.Key)
		if err != nil || info.Size != stat.Size || !info.ModTime.Equal(stat.ModTime) {
			t.Errorf("List says %+v, Stat says %+v, %v", info, stat, err)
		}
		n++
	}
	if n != 2 {
		t.Errorf("List shows %d of 2 objects", n)
	}
}

func checkListUnknown(ctx context.Context, t testing.TB, s blob.Store) {
	put(ctx, t, s, "a/b", "x")
	for _, prefix := range []string{
		"b", "a/b/", "a/c/", "a/b/c/d", "c/d/e/", "/", "//", "/a", "a//", "./a", "../", "..", ".", ".tmp", ".tmp/", "a/.", "a/../a/",
		"ä", "a\x00", strings.Repeat("a/", blob.MaxKeyLength), strings.Repeat("a", 5000),
	} {
		wantList(ctx, t, s, prefix, "")
	}
}

// checkListModel compares many lists of random keys with sorting and filtering.
func checkListModel(ctx context.Context, t testing.TB, s blob.Store) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	name := func() string {
		b := make([]byte, 1+rnd.IntN(3))
		for i := range b {
			b[i] = "-./0a"[rnd.IntN(5)]
		}
		return string(b)
	}
	var keys []string
	for len(keys) < 60 {
		key := name() + name() + name()
		if blob.CheckKey(key) != nil || slices.ContainsFunc(keys, func(k string) bool { return conflict(k, key) }) {
			continue
		}
		put(ctx, t, s, key, "x")
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for range 300 {
		prefix, after := name(), name()+name()
		if rnd.IntN(4) == 0 {
			prefix = ""
		}
		if rnd.IntN(3) == 0 {
			after = keys[rnd.IntN(len(keys))]
		}
		var expected []string
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) && key > after {
				expected = append(expected, key)
			}
		}
		wantList(ctx, t, s, prefix, after, expected...)
	}
	if t.Failed() {
		t.Logf("seed %d, keys %q", seed, keys)
	}
}

// conflict tells whether two keys cannot be held together, or are the same.
func conflict(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+"/") || strings.HasPrefix(b, a+"/")
}

// checkListMany lists more than one page of any object store that pages (S3: 1000 keys).
func checkListMany(ctx context.Context, t testing.TB, s blob.Store) {
	var keys []string
	for i := range 1101 {
		keys = append(keys, fmt.Sprintf("many/%d/%04d", i/1050, i))
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for _, key := range keys {
		group.Go(func() error { return blob.PutBytes(groupCtx, s, key, []byte(key)) })
	}
	if err := group.Wait(); err != nil {
		t.Fatalf("Put: %v", err)
	}
	if got := list(ctx, t, s, "many/", ""); !slices.Equal(got, keys) {
		t.Errorf("List shows %d of %d keys", len(got), len(keys))
	}
	if got := list(ctx, t, s, "many/", keys[40]); !slices.Equal(got, keys[41:]) {
		t.Errorf("List after the 41st key shows %d of %d keys", len(got), len(keys)-41)
	}
}

func checkListBreak(ctx context.Context, t testing.TB, s blob.Store) {
	for _, key := range []string{"a/1", "a/2", "b/1", "c"} {
		put(ctx, t, s, key, "x")
	}
	for n := range 4 {
		seen := 0
		for _, err := range s.List(ctx, "", "") {
			if err != nil {
				t.Fatalf("List: %v", err)
			}
			if seen == n {
				break
			}
			seen++
		}
	}
	sequence := s.List(ctx, "a", "")
	for range 2 { // a sequence may be ranged over again, and is then a new list
		var got []string
		for info, err := range sequence {
			if err != nil {
				t.Fatalf("List: %v", err)
			}
			got = append(got, info.Key)
		}
		if !slices.Equal(got, []string{"a/1", "a/2"}) {
			t.Errorf("List of %q = %q", "a", got)
		}
	}
}

func checkListDelete(ctx context.Context, t testing.TB, s blob.Store) {
	for _, key := range tricky {
		put(ctx, t, s, key, "x")
	}
	var got []string
	for info, err := range s.List(ctx, "", "") {
		if err != nil {
			t.Fatalf("List: %v", err)
		}
		got = append(got, info.Key)
		if err := s.Delete(ctx, info.Key); err != nil {
			t.Fatalf("Delete(%q): %v", info.Key, err)
		}
	}
	if !slices.Equal(got, tricky) {
		t.Errorf("List while deleting shows %q, want %q", got, tricky)
	}
	wantList(ctx, t, s, "", "")
}
