package fs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"lifeboat/internal/blob"
)

// mountSmall mounts a small tmpfs and returns its folder, or skips the test.
func mountSmall(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("cannot mount a tmpfs here (needs root): %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestPut_OnAFullDisk(t *testing.T) {
	s := mustOpen(t, mountSmall(t, "size=4m"), Options{Create: true})
	mustPut(t, s, "old", strings.Repeat("o", 1<<20))
	for name, write := range map[string]func() error{
		"Put":         func() error { return s.Put(t.Context(), "a/new", zeros{}, 8<<20) },
		"PutIfAbsent": func() error { return s.PutIfAbsent(t.Context(), "a/new", zeros{}, 8<<20) },
		"Put over":    func() error { return s.Put(t.Context(), "old", zeros{}, 8<<20) },
	} {
		err := write()
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free space") {
			t.Errorf("%s: %v; want ENOSPC with a remedy", name, err)
		}
		if left := tempFiles(t, s); len(left) > 0 {
			t.Errorf("%s leaves %q, which takes the space that is missing", name, left)
		}
	}
	wantBody(t, s, "a/new", "")
	wantBody(t, s, "old", strings.Repeat("o", 1<<20))
	mustPut(t, s, "small", "fits")
}

// TestStore_FullDiskCanBePruned opens a store on a disk without a free byte or inode, reads, and makes room.
func TestStore_FullDiskCanBePruned(t *testing.T) {
	root := mountSmall(t, "size=1m,nr_inodes=12")
	s := mustOpen(t, root, Options{Create: true})
	mustPut(t, s, "a/k", "body")
	fillDisk(t, root)
	if _, err := Open(filepath.Join(root, "other"), Options{Create: true}); !errors.Is(err, syscall.ENOSPC) ||
		!strings.Contains(err.Error(), "free space") {
		t.Errorf("Open of a new store: %v; want ENOSPC with a remedy", err)
	}
	s, err := Open(root, Options{})
	if err != nil {
		t.Fatalf("Open of the full store: %v", err)
	}
	if err := s.Put(t.Context(), "a/new", zeros{}, 100<<10); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Put: %v; want ENOSPC", err)
	}
	wantBody(t, s, "a/k", "body")
	for i := range 3 {
		if err := s.Delete(t.Context(), fmt.Sprint("filler", i)); err != nil {
			t.Errorf("Delete on a full disk: %v", err)
		}
	}
	if err := s.Put(t.Context(), "a/new", zeros{}, 100<<10); err != nil {
		t.Errorf("Put after Delete: %v", err)
	}
}

// fillDisk uses up all bytes, then all inodes.
func fillDisk(t *testing.T, root string) {
	t.Helper()
	body := bytes.Repeat([]byte("x"), 200<<10)
	for i := range 20 {
		err := os.WriteFile(filepath.Join(root, fmt.Sprint("filler", i)), body, 0o600)
		if err != nil && len(body) == 0 {
			return
		}
		if err != nil {
			body = nil
		}
	}
	t.Fatal("the disk is not full")
}

func TestOpen_OnAReadOnlyMount(t *testing.T) {
	root := mountSmall(t, "size=1m")
	mustPut(t, mustOpen(t, root, Options{Create: true}), "k", "body")
	if err := unix.Mount("tmpfs", root, "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, "size=1m"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(root, Options{}); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "for writing") {
		t.Errorf("Open: %v; want EROFS with a remedy", err)
	}
	wantBody(t, mustOpen(t, root, Options{ReadOnly: true}), "k", "body")
	s := mustOpen(t, root, Options{AllowReadOnly: true})
	wantBody(t, s, "k", "body")
	for name, err := range map[string]error{"put": blob.PutBytes(t.Context(), s, "new", nil), "delete": s.Delete(t.Context(), "k")} {
		if !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), "for writing") {
			t.Errorf("%s: %v; want EROFS with a remedy", name, err)
		}
	}
	if _, err := Open(root, Options{AllowReadOnly: true, Create: true}); !errors.Is(err, syscall.EROFS) {
		t.Errorf("Open to create: %v; want EROFS", err)
	}
}

// TestStore_UnmountedIsNotEmpty is TestStore_DoesNotTakeAVanishedRootForEmpty with a real file system.
func TestStore_UnmountedIsNotEmpty(t *testing.T) {
	root := mountSmall(t, "size=1m")
	s := mustOpen(t, root, Options{Create: true})
	mustPut(t, s, "k", "body")
	if err := unix.Unmount(root, 0); err != nil {
		t.Fatal(err) // the store holds nothing open, so the file system is not busy
	}
	if keys, err := keysOf(t, s, "", ""); err == nil {
		t.Errorf("List = %q; want an error", keys)
	}
	if _, err := s.Stat(t.Context(), "k"); err == nil || errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Stat: %v; want an error other than ErrNotFound", err)
	}
	if err := blob.PutBytes(t.Context(), s, "k", nil); err == nil {
		t.Error("Put wrote to the folder below the mount point")
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Errorf("the folder below the mount point holds %v, %v", entries, err)
	}
}

// TestList_FindsKeysThatAreReplacedMeanwhile runs on tmpfs, where a name that is replaced moves within its folder: a
// single scan misses some in most lists.
func TestList_FindsKeysThatAreReplacedMeanwhile(t *testing.T) {
	const keys = 2000
	s := mustOpen(t, mountSmall(t, "size=64m"), Options{Create: true})
	for i := range keys {
		mustPut(t, s, fmt.Sprintf("l/%05d", i), "")
	}
	var done atomic.Bool
	var group sync.WaitGroup
	defer group.Wait()
	defer done.Store(true)
	for w := range 4 {
		group.Go(func() {
			for i := w; !done.Load(); i = (i + 7) % keys {
				if err := blob.PutBytes(t.Context(), s, fmt.Sprintf("l/%05d", i), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		if got, err := keysOf(t, s, "l/", ""); err != nil || len(got) != keys {
			t.Errorf("List gives %d of %d keys, %v", len(got), keys, err)
		}
	}
}
