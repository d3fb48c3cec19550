package pginstance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// InitOptions say what InitDB makes. Binaries and DataDir are required.
type InitOptions struct {
	// Binaries is the installation whose initdb runs.
	Binaries Binaries
	// DataDir is the new data directory: absent or empty. Its parent must exist, and the owner must be able to enter it.
	DataDir string
	// Owner is the operating-system user that owns the files, when this process is root; "" means DefaultOwner.
	Owner string
	// Superuser is the name of the database superuser; "" means "postgres".
	Superuser string
	// Checksums turns data checksums on. Without it they are off, also on 18, where initdb's own default is on.
	Checksums bool
	// WALSegSizeMB is the size of WAL segments in MiB, a power of two from 1 to 1024; 0 means PostgreSQL's default, 16.
	WALSegSizeMB int
	// Locale is the locale of the databases; "" means C.UTF-8. The encoding is always UTF8.
	Locale string
	// AuthHost is how TCP connections are authenticated (pg_hba.conf); "" means "reject". Sockets are always "trust":
	// what protects them is the permission of their directory.
	AuthHost string
	// NoSync leaves out the fsync of all files at the end: for tests and clusters that are gone within the hour.
	NoSync bool
	// ExtraArgs are given to initdb after ours.
	ExtraArgs []string
}

// InitDB makes a new database cluster. When ctx ends, initdb is asked to stop and removes what it made. It may be
// repeated after a failure: a directory with something in it is refused, never emptied.
func InitDB(ctx context.Context, opt InitOptions) error {
	owner, err := LookupOwner(opt.Owner)
	if err != nil {
		return err
	}
	if err := makeOwned(opt.DataDir, owner); err != nil {
		return fmt.Errorf("initdb: %w", err)
	}
	cmd := exec.Command(opt.Binaries.Path("initdb"), initArgs(opt)...)
	cmd.Dir = "/"
	cmd.Env = cleanEnv(opt.Binaries.Dir, nil)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = owner.SysProcAttr()
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM // on which initdb removes what it made
	cmd.WaitDelay = 5 * time.Second
	c, err := startChild(cmd)
	if err != nil {
		return fmt.Errorf("initdb %s: %w", opt.DataDir, err)
	}
	if err := waitChild(ctx, c); err != nil {
		return fmt.Errorf("initdb %s: %w: %s", opt.DataDir, err, lastLines(out.String(), 6))
	}
	return nil
}

func initArgs(opt InitOptions) []string {
	args := []string{
		"-D", opt.DataDir,
		"-U", orDefault(opt.Superuser, "postgres"),
		"--auth-local=trust",
		"--auth-host=" + orDefault(opt.AuthHost, "reject"),
		"--encoding=UTF8",
		"--locale=" + orDefault(opt.Locale, "C.UTF-8"),
	}
	switch {
	case opt.Checksums:
		args = append(args, "--data-checksums")
	case opt.Binaries.Major >= 18: // older ones do not know the option, and need none
		args = append(args, "--no-data-checksums")
	}
	if opt.WALSegSizeMB != 0 {
		args = append(args, "--wal-segsize="+strconv.Itoa(opt.WALSegSizeMB))
	}
	if opt.NoSync {
		args = append(args, "--no-sync")
	}
	return append(args, opt.ExtraArgs...)
}

// makeOwned makes dir if it is absent, and refuses one that holds anything. The owner gets it, mode 0700.
func makeOwned(dir string, owner Owner) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty: it holds %s", dir, entries[0].Name())
	}
	if err := owner.Chown(dir); err != nil {
		return err
	}
	return os.Chmod(dir, 0o700)
}

// waitChild waits for a helper program to end, and ends it (SIGTERM, 10 s later SIGKILL) when ctx does.
func waitChild(ctx context.Context, c *child) error {
	select {
	case <-c.done:
	case <-ctx.Done():
		_ = signalGone(c.cmd.Process, syscall.SIGTERM)
		select {
		case <-c.done:
		case <-time.After(10 * time.Second):
			_ = signalGone(c.cmd.Process, syscall.SIGKILL)
			<-c.done
		}
		return context.Cause(ctx)
	}
	if !c.cmd.ProcessState.Success() {
		return errors.New(c.cmd.ProcessState.String())
	}
	return nil
}

// orDefault returns v, or def if v is the zero value.
func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// lastLines returns the last n lines of s, joined by "; ", for an error message.
func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
