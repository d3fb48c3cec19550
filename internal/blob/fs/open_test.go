package fs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/blob"
)

func TestOpen_ErrorsSayWhatToDo(t *testing.T) {
	base := t.TempDir()
	file := filepath.Join(base, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	empty, fresh := filepath.Join(base, "empty"), filepath.Join(base, "fresh")
	for _, dir := range []string{empty, filepath.Join(fresh, lostFound)} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		root   string
		opts   Options
		err    error
		remedy string
	}{
		"relative":               {"a/b", Options{Create: true}, nil, "absolute"},
		"missing":                {filepath.Join(base, "no/thing"), Options{}, fs.ErrNotExist, "create it, or mount"},
		"missing, read-only":     {filepath.Join(base, "no/thing"), Options{ReadOnly: true}, fs.ErrNotExist, "create it, or mount"},
		"a file":                 {file, Options{}, syscall.ENOTDIR, "name a folder"},
		"a file, create":         {file, Options{Create: true}, syscall.ENOTDIR, "name a folder"},
		"below a file":           {filepath.Join(file, "x"), Options{Create: true}, syscall.ENOTDIR, ""},
		"empty":                  {empty, Options{}, nil, "mount the file system"},
		"empty, read-only":       {empty, Options{ReadOnly: true}, nil, "mount the file system"},
		"fresh file system":      {fresh, Options{}, nil, "mount the file system"},
		"create and read only":   {empty, Options{Create: true, ReadOnly: true}, nil, "exclude each other"},
		"below the missing root": {filepath.Join(base, "no"), Options{ReadOnly: true}, fs.ErrNotExist, "create it"},
	} {
		_, err := Open(c.root, c.opts)
		if err == nil || (c.err != nil && !errors.Is(err, c.err)) || !strings.Contains(err.Error(), c.remedy) ||
			!strings.Contains(err.Error(), c.root) {
			t.Errorf("%s: %v; want %v and %q", name, err, c.err, c.remedy)
		}
	}
	if entries, err := os.ReadDir(empty); err != nil || len(entries) > 0 {
		t.Errorf("a refused Open left %v, %v", entries, err)
	}
}

// asNobody runs f with the permissions of another user (setfsuid(2) is per thread, so the thread is thrown away).
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to act as another user")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := becomeNobody(); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

// openToAll returns a folder that other users can reach.
func openToAll(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lifeboat-fs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestOpen_NotWritable(t *testing.T) {
	root := openToAll(t)
	mustPut(t, mustOpen(t, root, Options{Create: true, FileMode: 0o644, DirMode: 0o755}), "k", "body")
	asNobody(t, func() {
		_, err := Open(root, Options{})
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "give user id") {
			t.Errorf("Open = %v; want a permission error with a remedy", err)
		}
		_, err = Open(filepath.Join(root, "sub"), Options{Create: true})
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "give user id") {
			t.Errorf("Open with Create = %v; want a permission error with a remedy", err)
		}
		s, err := Open(root, Options{ReadOnly: true})
		if err != nil {
			t.Errorf("Open for reading: %v", err)
			return
		}
		wantBody(t, s, "k", "body")
		s, err = Open(root, Options{AllowReadOnly: true})
		if err != nil {
			t.Errorf("Open, to write if possible: %v", err)
			return
		}
		wantBody(t, s, "k", "body")
		if err := blob.PutBytes(t.Context(), s, "new", nil); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "give user id") {
			t.Errorf("Put = %v; want a permission error with a remedy", err)
		}
	})
}

// TestOpen_ParentThatMayNotBeRead opens an own folder in one that belongs to others, as /var/lib can be.
func TestOpen_ParentThatMayNotBeRead(t *testing.T) {
	parent := openToAll(t)
	root := filepath.Join(parent, "root")
	if err := errors.Join(os.Mkdir(root, 0o777), os.Chmod(root, 0o777), os.Chmod(parent, 0o711)); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		s, err := Open(root, Options{Create: true})
		if err != nil {
			t.Errorf("Open: %v", err)
			return
		}
		mustPut(t, s, "a/b", "body")
		wantBody(t, s, "a/b", "body")
		// A list that looked outside the root would fail here.
		if keys, err := keysOf(t, s, "../", ""); err != nil || len(keys) > 0 {
			t.Errorf("List(../) = %q, %v", keys, err)
		}
	})
}

func TestOpen_AgainKeepsObjects(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "a/b", "body")
	for _, opts := range []Options{{}, {Create: true}, {ReadOnly: true}} {
		again := mustOpen(t, s.root, opts)
		wantBody(t, again, "a/b", "body")
	}
	// A copy that lost its empty folders is still a repository.
	if err := os.Remove(s.temp); err != nil {
		t.Fatal(err)
	}
	wantBody(t, mustOpen(t, s.root, Options{ReadOnly: true}), "a/b", "body")
	mustPut(t, mustOpen(t, s.root, Options{}), "a/b", "new")
}

func TestOpen_ReadOnlyRefusesWrites(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "k", "body")
	r := mustOpen(t, s.root, Options{ReadOnly: true})
	_, staleErr := r.RemoveStale(t.Context(), time.Hour)
	for call, err := range map[string]error{
		"Put":         blob.PutBytes(t.Context(), r, "k", nil),
		"PutIfAbsent": blob.PutBytesIfAbsent(t.Context(), r, "new", nil),
		"Delete":      r.Delete(t.Context(), "k"),
		"RemoveStale": staleErr,
	} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: %v; want ErrReadOnly", call, err)
		}
	}
	wantBody(t, r, "k", "body")
	wantBody(t, r, "new", "")
}

// TestStore_DoesNotTakeAVanishedRootForEmpty lets another folder appear at the root, as when a file system is
// unmounted. "Not found" would end a recovery early (R16), and an empty list would condemn packs (R12).
func TestStore_DoesNotTakeAVanishedRootForEmpty(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	s := mustOpen(t, root, Options{Create: true})
	mustPut(t, s, "a/b", "body")
	checkGone := func(what string) {
		t.Helper()
		_, statErr := s.Stat(t.Context(), "a/b")
		_, getErr := s.Get(t.Context(), "a/b", 0, -1)
		_, listErr := keysOf(t, s, "", "")
		_, listBelowErr := keysOf(t, s, "a/", "")
		for call, err := range map[string]error{
			"Put":         blob.PutBytes(t.Context(), s, "a/c", nil),
			"PutIfAbsent": blob.PutBytesIfAbsent(t.Context(), s, "a/c", nil),
			"Get":         getErr, "Stat": statErr, "List": listErr, "List below": listBelowErr,
			"Delete": s.Delete(t.Context(), "a/b"),
		} {
			if err == nil || errors.Is(err, blob.ErrNotFound) || !strings.Contains(err.Error(), "still mounted") {
				t.Errorf("%s: %s: %v; want an error that asks for the mount", what, call, err)
			}
		}
	}
	if err := os.Rename(root, root+".away"); err != nil {
		t.Fatal(err)
	}
	checkGone("missing")
	if err := os.Mkdir(root, 0o750); err != nil {
		t.Fatal(err)
	}
	checkGone("bare mount point")
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Errorf("the folder below the mount point holds %v, %v", entries, err)
	}
	// Another device number, but a repository: mounted anew.
	if err := os.Mkdir(filepath.Join(root, tempName), 0o750); err != nil {
		t.Fatal(err)
	}
	wantBody(t, s, "a/b", "")
	mustPut(t, s, "a/b", "again")
	wantBody(t, s, "a/b", "again")
}

// TestList_FailsIfTheRootVanishesMeanwhile leaves no window in which the rest of a list is taken for its end.
func TestList_FailsIfTheRootVanishesMeanwhile(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root")
	s := mustOpen(t, root, Options{Create: true})
	for _, key := range []string{"a/1", "a/2", "b/1"} {
		mustPut(t, s, key, "x")
	}
	for _, c := range []struct {
		prefix string
		seen   int // how many keys are given before
	}{{"", 1}, {"", 2}, {"a/", 1}} {
		var n int
		var last error
		for _, err := range s.List(t.Context(), c.prefix, "") {
			if last = err; err != nil {
				break
			}
			if n++; n == c.seen {
				if err := os.Rename(root, root+".away"); err != nil {
					t.Fatal(err)
				}
			}
		}
		if last == nil || n != c.seen {
			t.Errorf("List(%q) ends after %d keys with %v", c.prefix, n, last)
		}
		if err := os.Rename(root+".away", root); err != nil {
			t.Fatal(err)
		}
	}
}
