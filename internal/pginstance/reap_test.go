package pginstance_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"lifeboat/internal/pginstance"
)

// Socket directories are removed when they are ours and their data directory is gone, and only then.
func TestReapSocketDirs_OnlyOursAndAbandoned(t *testing.T) {
	here, gone := t.TempDir(), filepath.Join(t.TempDir(), "gone")
	for _, c := range []struct {
		name, marker, content string
		mode                  os.FileMode
		removed               bool
	}{
		{"abandoned", pginstance.SocketDirMarker, gone + "\n", 0o700, true},
		{"its data directory is there", pginstance.SocketDirMarker, here + "\n", 0o700, false},
		{"no marker", "something", gone + "\n", 0o700, false},
		{"open to others", pginstance.SocketDirMarker, gone + "\n", 0o755, false},
		{"a relative path", pginstance.SocketDirMarker, "gone\n", 0o700, false},
		{"nothing written", pginstance.SocketDirMarker, "", 0o700, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("/tmp", "lifeboat-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			if err := errors.Join(os.Chmod(dir, c.mode), os.WriteFile(filepath.Join(dir, c.marker), []byte(c.content), 0o600)); err != nil {
				t.Fatal(err)
			}
			removed, err := pginstance.ReapSocketDirs()
			if err != nil || slices.Contains(removed, dir) != c.removed {
				t.Errorf("removed %v, %v", removed, err)
			}
			if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) != c.removed {
				t.Errorf("the directory: %v", err)
			}
		})
	}
}
