// Package assemble wires the configuration to what the programs run: it turns repository URLs into stores and
// lifeboat.yaml into activities.Settings. Both programs share it, so that a worker and `--local` do exactly the same.
package assemble

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fs"
	"lifeboat/internal/config"
	"lifeboat/internal/repo"
)

// Version is set by the linker (-X); without it, the build information of the module is used.
var Version = ""

// Program names this program and its version, as manifests record it.
func Program() string {
	v := Version
	if v == "" {
		if info, ok := debug.ReadBuildInfo(); ok {
			v = info.Main.Version
		}
	}
	if v == "" || v == "(devel)" {
		v = "development"
	}
	return "lifeboat " + v
}

// ErrMissing says that there is nothing at a repository's URL: no folder, or an empty one.
var ErrMissing = errors.New("the repository is missing")

// OpenStore opens the object store that a URL names. With create, a missing folder is made. Without it, one that may only
// be read is opened too, and fails at the first write.
func OpenStore(_ context.Context, url string, create bool) (blob.Store, error) {
	path, err := config.FilePath(url)
	if err != nil {
		return nil, err
	}
	store, err := fs.Open(path, fs.Options{Create: create, AllowReadOnly: !create})
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, fs.ErrEmpty) {
		return nil, fmt.Errorf("%w: %w", ErrMissing, err)
	}
	return store, err
}

// OpenRepository opens the repository at a URL; with create, an empty place becomes one.
func OpenRepository(ctx context.Context, url string, create bool) (*repo.Repository, error) {
	store, err := OpenStore(ctx, url, create)
	if errors.Is(err, ErrMissing) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("repository %s: %w", url, err)
	}
	if create {
		return repo.OpenOrCreate(ctx, store)
	}
	return repo.Open(ctx, store)
}

// NoTemporalFile tells that there can be no temporal.toml, as without HOME in the environment of a service or a rescue
// system: Temporal's SDK would fail to find the folder, not the file.
func NoTemporalFile(env func(string) (string, bool)) bool {
	if named, ok := env("TEMPORAL_CONFIG_FILE"); ok && named != "" {
		return false
	}
	_, err := os.UserConfigDir()
	return err != nil
}

// ErrNoLifeboat says that the lifeboat program was not found.
var ErrNoLifeboat = errors.New("the lifeboat program was found neither beside this program nor on PATH")

// Lifeboat finds the lifeboat program for restore_command: this program itself, its sibling, or one on PATH.
func Lifeboat() (string, error) {
	self, err := os.Executable()
	if err == nil {
		if filepath.Base(self) == "lifeboat" {
			return self, nil
		}
		sibling := filepath.Join(filepath.Dir(self), "lifeboat")
		if info, err := os.Stat(sibling); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return sibling, nil
		}
	}
	if path, err := exec.LookPath("lifeboat"); err == nil {
		return filepath.Abs(path)
	}
	return "", ErrNoLifeboat
}
