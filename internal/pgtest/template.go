package pgtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"lifeboat/internal/pginstance"
)

// templateVersion is part of the templates' names. Raise it when InitDB makes something else of the same options.
const templateVersion = 1

// initOptions are what a cluster of these options is made with; DataDir is not set.
func initOptions(bin pginstance.Binaries, opt Options) pginstance.InitOptions {
	return pginstance.InitOptions{
		Binaries: bin, Checksums: opt.Checksums, WALSegSizeMB: opt.WALSegSizeMB, AuthHost: "trust", NoSync: true,
		ExtraArgs: opt.InitArgs,
	}
}

// copyTemplate lays a fresh cluster at dataDir by copying one that initdb made earlier on this machine.
func copyTemplate(ctx context.Context, init pginstance.InitOptions, dataDir string) error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %+v", templateVersion, init)) // any difference in the options is another template
	template := filepath.Join(cache, fmt.Sprintf("pg%d-%s", init.Binaries.Major, hex.EncodeToString(sum[:6])))
	if err := makeTemplate(ctx, init, template); err != nil {
		return err
	}
	// cp clones where the file system can, and keeps owner and mode.
	if out, err := exec.CommandContext(ctx, "cp", "-a", "--reflink=auto", template, dataDir).CombinedOutput(); err != nil {
		return fmt.Errorf("copy template: %w: %s", err, out)
	}
	return nil
}

// makeTemplate makes the template if it is not there. It appears complete, by rename, or not at all.
func makeTemplate(ctx context.Context, init pginstance.InitOptions, template string) error {
	unlock, err := lockFile(template + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(template); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	init.DataDir = template + ".new"
	if err := os.RemoveAll(init.DataDir); err != nil { // of a process that was killed at this
		return err
	}
	if err := pginstance.InitDB(ctx, init); err != nil {
		return err
	}
	return os.Rename(init.DataDir, template)
}
