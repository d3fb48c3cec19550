package fs

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"go.uber.org/goleak"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/blobtest"
)

// childEnv makes the test binary a child that writes to a store until it is killed (see crash_test.go).
const childEnv = "LIFEBOAT_TEST_FS_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		if err := runChild(role, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// newStore returns a store in a new folder.
func newStore(t testing.TB) *Store {
	t.Helper()
	return mustOpen(t, t.TempDir(), Options{Create: true})
}

func mustOpen(t testing.TB, root string, opts Options) *Store {
	t.Helper()
	s, err := Open(root, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustPut(t testing.TB, s *Store, key, body string) {
	t.Helper()
	if err := blob.PutBytes(t.Context(), s, key, []byte(body)); err != nil {
		t.Fatal(err)
	}
}

// wantBody fails the test unless key holds body; "" stands for no object.
func wantBody(t testing.TB, s *Store, key, body string) {
	t.Helper()
	got, err := blob.ReadAll(t.Context(), s, key, 1<<30)
	if body == "" && errors.Is(err, blob.ErrNotFound) {
		return
	}
	if err != nil || string(got) != body || body == "" {
		t.Errorf("%s holds %.40q, %v; want %.40q", key, got, err, body)
	}
}

// keysOf lists a store.
func keysOf(t testing.TB, s *Store, prefix, after string) ([]string, error) {
	t.Helper()
	var keys []string
	for info, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			return keys, err
		}
		keys = append(keys, info.Key)
	}
	return keys, nil
}

// tempFiles returns the names of unfinished writes.
func tempFiles(t testing.TB, s *Store) []string {
	t.Helper()
	entries, err := os.ReadDir(s.temp)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// randomSealed returns a body of up to max bytes that tells whether it is whole.
func randomSealed(key string, max int) []byte {
	body := bytes.Repeat([]byte(key+"\n"), 1+rand.IntN(max)/(len(key)+1))
	sum := sha256.Sum256(body)
	return append(sum[:], body...)
}

// checkSealed checks a body that randomSealed made for key.
func checkSealed(key string, body []byte) error {
	if len(body) < sha256.Size {
		return fmt.Errorf("%s has only %d bytes", key, len(body))
	}
	if sum := sha256.Sum256(body[sha256.Size:]); !bytes.Equal(sum[:], body[:sha256.Size]) {
		return fmt.Errorf("%s with %d bytes is not whole", key, len(body))
	}
	if !bytes.HasPrefix(body[sha256.Size:], []byte(key+"\n")) {
		return fmt.Errorf("%s holds the body of another key", key)
	}
	return nil
}

func TestStore_KeepsContract(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store { return newStore(t) })
}

// TestStore_KeepsContractByLinks runs the contract where RENAME_NOREPLACE is not known, as on NFS.
func TestStore_KeepsContractByLinks(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store {
		s := newStore(t)
		s.sys.renameNoReplace = notSupported
		return s
	})
}

func TestStore_LeavesNoTemporaryFiles(t *testing.T) {
	for name, change := range map[string]func(*system){
		"rename": func(*system) {},
		"link":   func(sys *system) { sys.renameNoReplace = notSupported },
	} {
		s := newStore(t)
		change(&s.sys)
		mustPut(t, s, "a/b", "1")
		if err := blob.PutBytesIfAbsent(t.Context(), s, "a/c", []byte("2")); err != nil {
			t.Fatal(err)
		}
		// A racer that loses only after it has written its body.
		err := s.write(t.Context(), "a/c", bytes.NewReader([]byte("3")), 1, s.createOnly)
		if !errors.Is(err, blob.ErrExists) {
			t.Errorf("%s: the second creation: %v", name, err)
		}
		if left := tempFiles(t, s); len(left) > 0 {
			t.Errorf("%s leaves %q", name, left)
		}
		if info, err := os.Stat(filepath.Join(s.root, "a/c")); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestStore_ModesAreThoseOfTheOptions(t *testing.T) {
	for _, c := range []struct {
		opts      Options
		file, dir fs.FileMode
	}{
		{Options{Create: true}, 0o640, 0o750},
		{Options{Create: true, FileMode: 0o600, DirMode: 0o700}, 0o600, 0o700},
	} {
		root := filepath.Join(t.TempDir(), "new", "root")
		s := mustOpen(t, root, c.opts)
		mustPut(t, s, "a/b/c", "x")
		for path, want := range map[string]fs.FileMode{
			"": c.dir, ".tmp": c.dir, "a": c.dir, "a/b": c.dir, "a/b/c": c.file, "..": c.dir,
		} {
			info, err := os.Stat(filepath.Join(root, path))
			if err != nil || info.Mode().Perm() != want {
				t.Errorf("%q: %v, %v; want mode %v", path, info.Mode(), err, want)
			}
		}
	}
}

func TestString_IsTheURL(t *testing.T) {
	root := filepath.Join(t.TempDir(), "with space")
	s := mustOpen(t, root+"//", Options{Create: true})
	if want := "file://" + filepath.Dir(root) + "/with%20space"; s.String() != want {
		t.Errorf("String = %q, want %q", s, want)
	}
}

func TestPut_OfALargeBodyNeedsLittleMemory(t *testing.T) {
	s := newStore(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := s.Put(t.Context(), "k", zeros{}, 64<<20); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	// One piece, and what the runtime does meanwhile.
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > 3*pieceSize {
		t.Errorf("Put of 64 MiB allocates %d bytes", allocated)
	}
}

// zeros is an endless body.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }
