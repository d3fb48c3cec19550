package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"lifeboat/internal/blob"
)

// watch makes all system calls of s go through step, which is told each call and may fail it. Reads are not shown.
func watch(s *Store, step func(call string) error) {
	show := func(path string) string {
		path = strings.TrimPrefix(path, s.root)
		if strings.HasPrefix(path, "/.tmp/") {
			return "TEMP"
		}
		return strings.TrimPrefix(path, "/")
	}
	one := func(name string, call func(string) error) func(string) error {
		return func(path string) error {
			if err := step(name + " " + show(path)); err != nil {
				return &fs.PathError{Op: name, Path: path, Err: err}
			}
			return call(path)
		}
	}
	two := func(name string, call func(a, b string) error) func(a, b string) error {
		return func(a, b string) error {
			if err := step(name + " " + show(a) + " " + show(b)); err != nil {
				return &fs.PathError{Op: name, Path: b, Err: err}
			}
			return call(a, b)
		}
	}
	sys := s.sys
	s.sys = system{
		create: func(path string, mode fs.FileMode) (tempFile, error) {
			if err := step("create " + show(path)); err != nil {
				return nil, &fs.PathError{Op: "open", Path: path, Err: err}
			}
			f, err := sys.create(path, mode)
			return watchedFile{f, step}, err
		},
		mkdir: func(path string, mode fs.FileMode) error {
			return one("mkdir", func(path string) error { return sys.mkdir(path, mode) })(path)
		},
		rename:          two("rename", sys.rename),
		renameNoReplace: two("noreplace", sys.renameNoReplace),
		link:            two("link", sys.link),
		unlink:          one("unlink", sys.unlink),
		syncDir:         one("syncdir", sys.syncDir),
	}
}

type watchedFile struct {
	tempFile
	step func(string) error
}

func (f watchedFile) Write(p []byte) (int, error) {
	if err := f.step("write"); err != nil {
		n, _ := f.tempFile.Write(p[:len(p)/2]) // a disk that fills up takes a part
		return n, err
	}
	return f.tempFile.Write(p)
}

func (f watchedFile) Sync() error {
	if err := f.step("sync"); err != nil {
		return err
	}
	return f.tempFile.Sync()
}

// Close closes in any case, as close(2) does.
func (f watchedFile) Close() error { return errors.Join(f.step("close"), f.tempFile.Close()) }

func notSupported(from, to string) error {
	return fmt.Errorf("renameat2 %s %s: %w", from, to, syscall.EINVAL)
}

// trace records the calls of do.
func trace(s *Store, do func()) []string {
	var calls []string
	inner := s.sys
	watch(s, func(call string) error { calls = append(calls, call); return nil })
	do()
	s.sys = inner
	return calls
}

// TestWrites_OrderOfSystemCalls is the proof of durability: bytes before the name, each folder before what is in it,
// the name before the return.
func TestWrites_OrderOfSystemCalls(t *testing.T) {
	s := newStore(t)
	put := func(key string) func() {
		return func() {
			if err := blob.PutBytes(t.Context(), s, key, []byte("x")); err != nil {
				t.Error(err)
			}
		}
	}
	absent := func(key string, want error) func() {
		return func() {
			if err := blob.PutBytesIfAbsent(t.Context(), s, key, []byte("x")); !errors.Is(err, want) {
				t.Error(err)
			}
		}
	}
	del := func(key string) func() {
		return func() {
			if err := s.Delete(t.Context(), key); err != nil {
				t.Error(err)
			}
		}
	}
	file := []string{"create TEMP", "write", "sync", "close"}
	for _, c := range []struct {
		name string
		do   func()
		want []string
	}{
		{"put in new folders", put("a/b/k"), slices.Concat(file, []string{
			"mkdir a/b", "mkdir a", "syncdir ", "mkdir a/b", "syncdir a", "rename TEMP a/b/k", "syncdir a/b", "unlink TEMP",
		})},
		{"put in known folders", put("a/b/k"), slices.Concat(file, []string{
			"rename TEMP a/b/k", "syncdir a/b", "unlink TEMP",
		})},
		{"put if absent", absent("a/b/n", nil), slices.Concat(file, []string{
			"noreplace TEMP a/b/n", "syncdir a/b", "unlink TEMP",
		})},
		{"put if absent at the top", absent("n", nil), slices.Concat(file, []string{
			"noreplace TEMP n", "syncdir ", "unlink TEMP",
		})},
		{"put if absent of what is there", absent("a/b/n", blob.ErrExists), []string{"syncdir a/b"}},
		{"delete", del("a/b/n"), []string{"unlink a/b/n", "syncdir a/b"}},
		{"delete again", del("a/b/n"), []string{"unlink a/b/n", "syncdir a/b"}},
	} {
		if got := trace(s, c.do); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
	// A folder that another process made may not be durable yet: it is fsynced into its parent once.
	s = mustOpen(t, s.root, Options{})
	want := slices.Concat(file, []string{"mkdir a/b", "syncdir a", "rename TEMP a/b/k", "syncdir a/b", "unlink TEMP"})
	if got := trace(s, put("a/b/k")); !slices.Equal(got, want) {
		t.Errorf("put in folders of another process:\n got %q\nwant %q", got, want)
	}
}

func TestOpen_OrderOfSystemCalls(t *testing.T) {
	base := t.TempDir()
	var calls []string
	s := &Store{root: base, sys: realSystem()}
	watch(s, func(call string) error { calls = append(calls, call); return nil })
	if _, err := open(filepath.Join(base, "a/b"), Options{Create: true}, s.sys); err != nil {
		t.Fatal(err)
	}
	if want := []string{"mkdir a/b", "mkdir a", "syncdir ", "mkdir a/b", "syncdir a", "mkdir a/b/.tmp"}; len(calls) < len(want) ||
		!slices.Equal(calls[:len(want)], want) {
		t.Errorf("Open: %q, want %q first", calls, want)
	}
}

// write is one of the writes that the tests below let fail.
type write struct {
	name   string
	before string // what the key holds before, "" for nothing
	do     func(t *testing.T, s *Store) error
	change func(s *system)
}

var writesThatFail = []write{
	{"Put", "", func(t *testing.T, s *Store) error { return blob.PutBytes(t.Context(), s, "a/b/k", []byte("new")) }, nil},
	{"Put over", "old", func(t *testing.T, s *Store) error { return blob.PutBytes(t.Context(), s, "a/b/k", []byte("new")) }, nil},
	{"PutIfAbsent", "", func(t *testing.T, s *Store) error {
		return blob.PutBytesIfAbsent(t.Context(), s, "a/b/k", []byte("new"))
	}, nil},
	{"PutIfAbsent by link", "", func(t *testing.T, s *Store) error {
		return blob.PutBytesIfAbsent(t.Context(), s, "a/b/k", []byte("new"))
	}, func(sys *system) { sys.renameNoReplace = notSupported }},
}

// TestWrites_FailAtEverySystemCall lets each call of a write fail in turn, alone or with all that follow (a disk that
// is gone). Whatever fails, the call says so unless the object is durable, there is the old object or the new one, and
// a second try succeeds.
func TestWrites_FailAtEverySystemCall(t *testing.T) {
	for _, w := range writesThatFail {
		for _, cause := range []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT} {
			for _, rest := range []bool{false, true} {
				for n := 1; ; n++ {
					if !failAt(t, w, cause, n, rest) {
						if n < 8 {
							t.Errorf("%s has only %d system calls", w.name, n-1)
						}
						break
					}
				}
			}
		}
	}
}

// failAt tells whether the write came to its n-th system call.
func failAt(t *testing.T, w write, cause error, n int, rest bool) bool {
	t.Helper()
	s := newStore(t)
	if w.before != "" {
		mustPut(t, s, "a/b/k", w.before)
		s = mustOpen(t, s.root, Options{}) // knows no folders
	}
	if w.change != nil {
		w.change(&s.sys)
	}
	inner, count, failed := s.sys, 0, ""
	watch(s, func(call string) error {
		if count++; count == n || (rest && count > n) {
			failed += call + ", "
			return cause
		}
		return nil
	})
	err := w.do(t, s)
	s.sys = inner
	if failed == "" {
		if err != nil {
			t.Errorf("%s without faults: %v", w.name, err)
		}
		return false
	}
	name := fmt.Sprintf("%s, %v at %s", w.name, cause, failed)
	onlyUnlink := failed == "unlink TEMP, " // the object is durable by then
	if (err == nil) != onlyUnlink || (err != nil && !errors.Is(err, cause)) || errors.Is(err, blob.ErrExists) {
		t.Errorf("%s: error %v", name, err)
	}
	if errors.Is(cause, syscall.ENOSPC) && err != nil && !strings.Contains(err.Error(), "free space") {
		t.Errorf("%s: no remedy in %v", name, err)
	}
	got, readErr := blob.ReadAll(t.Context(), s, "a/b/k", 100)
	if string(got) != "new" && string(got) != w.before || (readErr != nil && !errors.Is(readErr, blob.ErrNotFound)) {
		t.Errorf("%s: the key holds %q, %v", name, got, readErr)
	}
	if left := tempFiles(t, s); len(left) > 0 && !strings.Contains(failed, "unlink") {
		t.Errorf("%s: %q is left", name, left)
	}
	if err := w.do(t, s); err != nil && !(errors.Is(err, blob.ErrExists) && string(got) == "new") {
		t.Errorf("%s: the second try: %v", name, err)
	}
	wantBody(t, s, "a/b/k", "new")
	return true
}

func TestPutIfAbsent_DoesNotSayExistsOfWhatMayVanish(t *testing.T) {
	s := newStore(t)
	mustPut(t, s, "a/k", "x")
	s.sys.syncDir = func(string) error { return syscall.EIO }
	err := blob.PutBytesIfAbsent(t.Context(), s, "a/k", nil)
	if !errors.Is(err, syscall.EIO) || errors.Is(err, blob.ErrExists) {
		t.Errorf("PutIfAbsent = %v; want EIO and not ErrExists", err)
	}
}

func TestPutIfAbsent_WithoutAnAtomicCallFails(t *testing.T) {
	for _, cause := range []error{syscall.EPERM, syscall.ENOTSUP, syscall.ENOSYS} {
		s := newStore(t)
		s.sys.renameNoReplace = notSupported
		s.sys.link = func(string, string) error { return cause }
		err := blob.PutBytesIfAbsent(t.Context(), s, "a/k", nil)
		if !errors.Is(err, errNoExclusive) || !errors.Is(err, cause) {
			t.Errorf("link says %v: %v; want errNoExclusive", cause, err)
		}
		wantBody(t, s, "a/k", "")
		if left := tempFiles(t, s); len(left) > 0 {
			t.Errorf("%q is left", left)
		}
		mustPut(t, s, "a/k", "Put needs no such call")
	}
}

// TestPutIfAbsent_FirstTriesRename would notice a fallback where RENAME_NOREPLACE works.
func TestPutIfAbsent_FirstTriesRename(t *testing.T) {
	s := newStore(t)
	s.sys.link = func(string, string) error { t.Error("link was called"); return syscall.EIO }
	if err := blob.PutBytesIfAbsent(t.Context(), s, "k", nil); err != nil {
		t.Error(err)
	}
}

// TestPutIfAbsent_LinkWhoseReplyWasLost is what a client of NFS sees: its own link is in the way.
func TestPutIfAbsent_LinkWhoseReplyWasLost(t *testing.T) {
	s := newStore(t)
	s.sys.renameNoReplace = notSupported
	link := s.sys.link
	s.sys.link = func(from, to string) error {
		if err := link(from, to); err != nil {
			return err
		}
		return link(from, to)
	}
	if err := blob.PutBytesIfAbsent(t.Context(), s, "k", []byte("mine")); err != nil {
		t.Errorf("PutIfAbsent = %v; want success", err)
	}
	wantBody(t, s, "k", "mine")
	if err := blob.PutBytesIfAbsent(t.Context(), s, "k", []byte("other")); !errors.Is(err, blob.ErrExists) {
		t.Errorf("PutIfAbsent of another = %v; want ErrExists", err)
	}
}

func TestWrites_CloseThatIsInterruptedIsNoFailure(t *testing.T) {
	s := newStore(t)
	watch(s, func(call string) error {
		if call == "close" {
			return syscall.EINTR
		}
		return nil
	})
	if err := blob.PutBytes(t.Context(), s, "k", []byte("x")); err != nil {
		t.Error(err)
	}
	wantBody(t, s, "k", "x")
}

// TestWrites_CancelledAfterTheBodyIsWritten has the last look at the context before the name is given.
func TestWrites_CancelledAfterTheBodyIsWritten(t *testing.T) {
	s := newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	watch(s, func(call string) error {
		if call == "close" {
			cancel()
		}
		return nil
	})
	if err := blob.PutBytes(ctx, s, "k", []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Put = %v; want context.Canceled", err)
	}
	wantBody(t, s, "k", "")
	if left := tempFiles(t, s); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

func TestRetryInterrupted(t *testing.T) {
	n := 0
	if err := retryInterrupted(func() error {
		if n++; n < 4 {
			return syscall.EINTR
		}
		return syscall.EIO
	}); n != 4 || !errors.Is(err, syscall.EIO) {
		t.Errorf("%d calls, %v", n, err)
	}
}

// TestWrites_SizeThatTheDiskLostIsNoticed lets the file system drop bytes without an error.
func TestWrites_SizeThatTheDiskLostIsNoticed(t *testing.T) {
	s := newStore(t)
	create := s.sys.create
	s.sys.create = func(path string, mode fs.FileMode) (tempFile, error) {
		f, err := create(path, mode)
		return forgetful{f}, err
	}
	if err := blob.PutBytes(t.Context(), s, "k", []byte("0123456789")); err == nil || !strings.Contains(err.Error(), "5 of 10 bytes") {
		t.Errorf("Put = %v; want an error about the size", err)
	}
	wantBody(t, s, "k", "")
}

type forgetful struct{ tempFile }

func (f forgetful) Write(p []byte) (int, error) {
	_, err := f.tempFile.Write(p[:len(p)/2])
	return len(p), err
}

// TestWrites_RetryWhileFoldersVanish removes the key's folder each time before the name is given, for a while.
func TestWrites_RetryWhileFoldersVanish(t *testing.T) {
	for vanish, fails := range map[int32]bool{1: false, 2: false, 3: true} {
		s := newStore(t)
		var n atomic.Int32
		rename := s.sys.rename
		s.sys.rename = func(from, to string) error {
			if n.Add(1) <= vanish {
				return &fs.PathError{Op: "rename", Path: to, Err: syscall.ENOENT}
			}
			return rename(from, to)
		}
		if err := s.Put(t.Context(), "a/b", bytes.NewReader(nil), 0); (err != nil) != fails {
			t.Errorf("folder vanishes %d times: %v", vanish, err)
		}
	}
}

func TestFolderSet_IsBounded(t *testing.T) {
	var f folderSet
	for i := range 3 * maxFolders {
		f.add(fmt.Sprint(i))
	}
	if len(f.set) > maxFolders || !f.has(fmt.Sprint(3*maxFolders-1)) {
		t.Errorf("the set holds %d folders", len(f.set))
	}
}
