package fs

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/blob"
)

func TestList_PassesOverAnUnreadableLostAndFound(t *testing.T) {
	root := openToAll(t)
	s := mustOpen(t, root, Options{Create: true, FileMode: 0o644, DirMode: 0o755})
	mustPut(t, s, "a", "x")
	mustPut(t, s, "z/a", "x")
	if err := os.Mkdir(filepath.Join(root, lostFound), 0o700); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		keys, err := keysOf(t, s, "", "")
		if err != nil || !slices.Equal(keys, []string{"a", "z/a"}) {
			t.Errorf("List = %q, %v", keys, err)
		}
	})
	// Any other folder that cannot be read may hide keys.
	if err := os.Mkdir(filepath.Join(root, "hidden"), 0o700); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		if keys, err := keysOf(t, s, "", ""); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("List = %q, %v; want a permission error", keys, err)
		}
	})
}

func TestStore_ReportsWhatForeignHandsMade(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "m/real", "x")
	if err := os.Symlink("real", filepath.Join(s.root, "m/link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(s.root, "m/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"m/.nfs123", "m/copy~", "m/with space", ".hidden"} { // no keys
		if err := os.WriteFile(filepath.Join(s.root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, key := range []string{"m/link", "m/pipe"} {
		if _, err := s.Get(ctx, key, 0, -1); err == nil || errors.Is(err, blob.ErrNotFound) {
			t.Errorf("Get(%q): %v; want an error other than ErrNotFound", key, err)
		}
		if _, err := s.Stat(ctx, key); err == nil || errors.Is(err, blob.ErrNotFound) {
			t.Errorf("Stat(%q): %v; want an error other than ErrNotFound", key, err)
		}
		if keys, err := keysOf(t, s, key, ""); err == nil {
			t.Errorf("List(%q) = %q; want an error", key, keys)
		}
	}
	if keys, err := keysOf(t, s, "m/real", ""); err != nil || !slices.Equal(keys, []string{"m/real"}) {
		t.Errorf("List = %q, %v", keys, err)
	}
}

// TestList_ReadsNoUnrelatedFolder puts a trap into folders: reading one is an error.
func TestList_ReadsNoUnrelatedFolder(t *testing.T) {
	s := newStore(t)
	for _, key := range []string{"d/1", "e/a/1", "e/b/1", "e/b/2", "f/1"} {
		mustPut(t, s, key, "x")
	}
	for _, dir := range []string{"d", "e/a", "f"} {
		if err := os.Symlink("nowhere", filepath.Join(s.root, dir, "trap")); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		prefix, after string
		stop          int // leave the loop after so many keys; 0: never
		want          []string
	}{
		{"e/b/", "", 0, []string{"e/b/1", "e/b/2"}},
		{"e/b", "", 0, []string{"e/b/1", "e/b/2"}},
		{"e/b/2", "", 0, []string{"e/b/2"}},
		{"", "e/b/1", 1, []string{"e/b/2"}}, // f comes later, and nobody asked for it yet
	} {
		var keys []string
		for info, err := range s.List(t.Context(), c.prefix, c.after) {
			if err != nil {
				t.Errorf("List(%q, %q) read a folder in vain: %v", c.prefix, c.after, err)
				break
			}
			if keys = append(keys, info.Key); len(keys) == c.stop {
				break
			}
		}
		if !slices.Equal(keys, c.want) {
			t.Errorf("List(%q, %q) = %q, want %q", c.prefix, c.after, keys, c.want)
		}
	}
	if _, err := keysOf(t, s, "", ""); err == nil {
		t.Error("the trap does not work")
	}
}

// TestList_ReadsNoFolderThatLiesBeforeAfter lets such a folder be unreadable.
func TestList_ReadsNoFolderThatLiesBeforeAfter(t *testing.T) {
	root := openToAll(t)
	s := mustOpen(t, root, Options{Create: true, FileMode: 0o644, DirMode: 0o755})
	for _, key := range []string{"e/a/1", "e/b/1", "e/b/2"} {
		mustPut(t, s, key, "x")
	}
	if err := os.Chmod(filepath.Join(root, "e/a"), 0o700); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		for _, after := range []string{"e/a0", "e/b", "e/b/0"} {
			if keys, err := keysOf(t, s, "", after); err != nil || !slices.Equal(keys, []string{"e/b/1", "e/b/2"}) {
				t.Errorf("List after %q = %q, %v", after, keys, err)
			}
		}
		for _, after := range []string{"", "e", "e/a", "e/a/", "e/a/1", "e/a/z"} {
			if keys, err := keysOf(t, s, "", after); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("List after %q = %q, %v; want a permission error", after, keys, err)
			}
		}
	})
}

func TestStore_RefusesKeysThatCannotBeTogether(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "a/b/c", "x")
	for _, key := range []string{"a", "a/b", "a/b/c/d", "a/b/c/d/e"} {
		if err := blob.PutBytes(t.Context(), s, key, nil); !errors.Is(err, blob.ErrInvalidKey) {
			t.Errorf("Put(%q): %v; want ErrInvalidKey", key, err)
		}
		if err := blob.PutBytesIfAbsent(t.Context(), s, key, nil); !errors.Is(err, blob.ErrInvalidKey) || errors.Is(err, blob.ErrExists) {
			t.Errorf("PutIfAbsent(%q): %v; want ErrInvalidKey", key, err)
		}
		// The racer that meets the folder only when it gives the name.
		err := s.write(t.Context(), key, zeros{}, 1, s.createOnly)
		if !errors.Is(err, blob.ErrInvalidKey) || errors.Is(err, blob.ErrExists) {
			t.Errorf("late PutIfAbsent(%q): %v; want ErrInvalidKey", key, err)
		}
	}
	wantBody(t, s, "a/b/c", "x")
	if left := tempFiles(t, s); len(left) > 0 {
		t.Errorf("temporary files %q are left", left)
	}
}

func TestGet_OfAFileThatWasCutFails(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "k", "0123456789")
	r, err := s.Get(t.Context(), "k", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Truncate(filepath.Join(s.root, "k"), 5); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := r.Read(buf); n != 5 || err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
		t.Errorf("Read = %d, %v; want 5 bytes and an error", n, err)
	}
}

func TestWrites_MakeFoldersAgainThatAPersonRemoved(t *testing.T) {
	s := newStore(t)
	for i := range 3 {
		mustPut(t, s, "a/b/c/k", "x")
		if err := s.Delete(t.Context(), "a/b/c/k"); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(s.root, []string{"a", "a/b", "a/b/c"}[i])); err != nil {
			t.Fatal(err)
		}
	}
	if err := blob.PutBytesIfAbsent(t.Context(), s, "a/b/c/k", nil); err != nil {
		t.Error(err)
	}
}

func TestRemoveStale_RemovesOnlyOldUnfinishedWrites(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "old-object", "x")
	now := time.Now()
	for name, age := range map[string]time.Duration{"old": 3 * time.Hour, "middle": 30 * time.Minute, "new": 0} {
		path := filepath.Join(s.temp, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.temp, "dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(s.root, "old-object"), now, now.Add(-1000*time.Hour)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		age     time.Duration
		removed int
		left    []string
	}{
		{4 * time.Hour, 0, []string{"dir", "middle", "new", "old"}},
		{time.Hour, 1, []string{"dir", "middle", "new"}},
		{time.Hour, 0, []string{"dir", "middle", "new"}},
		{0, 2, []string{"dir"}},
	} {
		removed, err := s.RemoveStale(t.Context(), c.age)
		if left := tempFiles(t, s); err != nil || removed != c.removed || !slices.Equal(left, c.left) {
			t.Errorf("RemoveStale(%s) = %d, %v, leaves %q; want %d, %q", c.age, removed, err, left, c.removed, c.left)
		}
	}
	wantBody(t, s, "old-object", "x")
	if _, err := s.RemoveStale(t.Context(), -1); err == nil {
		t.Error("a negative age is taken")
	}
	if err := os.WriteFile(filepath.Join(s.temp, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := s.RemoveStale(cancelled, 0); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled RemoveStale = %d, %v", n, err)
	}
}

// TestRemoveStale_OfALiveWriterOnlyFailsItsCall removes the file of a write that goes on.
func TestRemoveStale_OfALiveWriterOnlyFailsItsCall(t *testing.T) {
	s := newStore(t)
	body := hookedBody{func() {
		if n, err := s.RemoveStale(t.Context(), 0); n != 1 || err != nil {
			t.Errorf("RemoveStale = %d, %v", n, err)
		}
	}}
	if err := s.PutIfAbsent(t.Context(), "k", body, 10); err == nil {
		t.Error("PutIfAbsent succeeded without its file")
	}
	wantBody(t, s, "k", "")
	mustPut(t, s, "k", "x")
}

// hookedBody calls a function before its bytes are read.
type hookedBody struct{ before func() }

func (b hookedBody) ReadAt(p []byte, offset int64) (int, error) {
	b.before()
	return zeros{}.ReadAt(p, offset)
}

func TestQuiet(t *testing.T) {
	path := t.TempDir()
	at := func(when time.Time) fs.FileInfo {
		t.Helper()
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	old, older, recent, coming := at(time.Now().Add(-time.Hour)), at(time.Now().Add(-2*time.Hour)), at(time.Now()), at(time.Now().Add(time.Hour))
	for name, c := range map[string]struct {
		began, ended fs.FileInfo
		want         bool
	}{
		"unchanged for long": {old, old, true},
		"changed":            {older, old, false},
		"changed recently":   {recent, recent, false},
		"clock is wrong":     {coming, coming, false},
	} {
		if got := quiet(c.began, c.ended); got != c.want {
			t.Errorf("%s: quiet = %t", name, got)
		}
	}
}
