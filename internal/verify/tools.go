package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"lifeboat/internal/pginstance"
)

// Manifest runs pg_verifybackup of the server's own major over laid files, before a server changes them (level 4):
// every file is there, with the size and checksum that PostgreSQL's own backup_manifest names. WAL is not parsed: it is
// in the repository, not in the directory. ignore names files that a restore replaced or added.
func Manifest(ctx context.Context, bin pginstance.Binaries, owner pginstance.Owner, dir string, ignore []string) Finding {
	return timed(func() Finding {
		f := Finding{ID: "manifest", Level: 4, Expected: "pg_verifybackup: backup successfully verified"}
		args := []string{"--no-parse-wal", "--exit-on-error"}
		for _, name := range ignore {
			args = append(args, "--ignore="+name)
		}
		return f.judge(run(ctx, bin, owner, "pg_verifybackup", append(args, dir)...))
	})
}

// Checksums runs pg_checksums over the files of a server that was shut down in order (level 3): after replay, so that
// torn pages of the backup are mended and every page counts.
func Checksums(ctx context.Context, bin pginstance.Binaries, owner pginstance.Owner, dir string, enabled bool) Finding {
	return timed(func() Finding {
		f := Finding{ID: "checksums", Level: 3, Expected: "pg_checksums: no bad page"}
		if !enabled {
			f.Outcome, f.Observed = Skipped, "data checksums are off in this cluster; turn them on with pg_checksums --enable"
			return f
		}
		return f.judge(run(ctx, bin, owner, "pg_checksums", "--check", "--pgdata="+dir))
	})
}

// Amcheck runs pg_amcheck over all databases of a running server that may be changed (level 6): tables, and indexes
// against their tables in both directions. It installs the extension where it is missing.
func Amcheck(ctx context.Context, bin pginstance.Binaries, owner pginstance.Owner, in *pginstance.Instance, superuser string) Finding {
	return timed(func() Finding {
		f := Finding{ID: "amcheck", Level: 6, Expected: "pg_amcheck: no corruption"}
		return f.judge(run(ctx, bin, owner, "pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--parent-check",
			"--host="+in.SocketDir(), fmt.Sprintf("--port=%d", in.Port()), "--username="+superuser, "--no-password"))
	})
}

// judge turns a program's end into an outcome. pg_amcheck exits 2 for "found something" and 1 for "could not run"; the
// other two exit 1 for both, so what they printed decides: only a message about a page, or for pg_verifybackup about a
// file of the backup, is a finding. A failure that nobody recognises is Unable, which is not green either (invariant 8).
func (f Finding) judge(output string, err error) Finding {
	f.Observed = firstLines(output, 3)
	var exit *exec.ExitError
	switch {
	case err == nil:
		f.Outcome = Passed
		if f.Observed == "" {
			f.Observed = "nothing wrong"
		}
	case !errors.As(err, &exit) || !exit.Exited():
		f.Outcome, f.Observed = Unable, strings.TrimSpace(err.Error()+" "+f.Observed)
	case f.found(output, exit.ExitCode()):
		f.Outcome = Failed
	default:
		f.Outcome = Unable
	}
	return f
}

// found tells whether a program that ran to its end found something (pg_amcheck.c, pg_checksums.c, pg_verifybackup.c).
func (f *Finding) found(output string, code int) bool {
	has := func(texts ...string) bool {
		return slices.ContainsFunc(texts, func(t string) bool { return strings.Contains(output, t) })
	}
	switch f.ID {
	case "amcheck":
		return code == 2
	case "checksums":
		return has("checksum verification failed", "could not read block")
	}
	return !has("--help\" for more information", "could not open directory", "Permission denied", "out of memory")
}

// outputMost bounds what is kept of a program's output: of a thoroughly damaged database there are gigabytes.
const outputMost = 64 << 10

// head keeps the beginning of what is written to it.
type head struct{ bytes.Buffer }

func (h *head) Write(p []byte) (int, error) {
	if room := outputMost - h.Len(); room > 0 {
		h.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func run(ctx context.Context, bin pginstance.Binaries, owner pginstance.Owner, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, bin.Path(program), args...)
	cmd.SysProcAttr = owner.SysProcAttr()
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // nothing stays behind when this process dies (invariant 11)
	cmd.WaitDelay = 10 * time.Second
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C", "PATH=" + bin.Dir + ":/usr/bin:/bin"}
	var out head
	cmd.Stdout, cmd.Stderr = &out, &out
	// The signal comes when the thread that forked ends, so this goroutine keeps its thread (prctl(2), PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.String(), err
}

func firstLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	if len(lines) > n {
		lines = append(lines[:n], fmt.Sprintf("(and %d more lines)", len(lines)-n))
	}
	return strings.Join(lines, "; ")
}
