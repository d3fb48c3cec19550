package fs_test

import (
	iofs "io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fs"
)

// TestRoot_GivesWhatItMakesToTheOwnerOfTheFolder: root's backup must not lock the server's user out.
func TestRoot_GivesWhatItMakesToTheOwnerOfTheFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	const uid, gid = 65534, 65534
	parent := t.TempDir()
	if err := os.Chown(parent, uid, gid); err != nil {
		t.Fatal(err)
	}
	s, err := fs.Open(filepath.Join(parent, "repo"), fs.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b/c/d"} {
		if err := blob.PutBytesIfAbsent(t.Context(), s, key, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := blob.PutBytes(t.Context(), s, key, []byte("y")); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	err = filepath.WalkDir(parent, func(path string, _ iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		n++
		if st := info.Sys().(*syscall.Stat_t); st.Uid != uid || st.Gid != gid {
			t.Errorf("%s belongs to %d:%d", path, st.Uid, st.Gid)
		}
		return nil
	})
	if err != nil || n != 7 {
		t.Errorf("saw %d entries, %v", n, err)
	}
}
