package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

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

// judge turns a program's end into an outcome: PostgreSQL's checkers exit 0 for "nothing wrong", 1 for "could not run"
// or, as pg_verifybackup and pg_checksums do, for "found something", 2 for "found something" (pg_amcheck).
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
	case f.ID == "amcheck" && exit.ExitCode() == 1:
		f.Outcome = Unable
	default:
		f.Outcome = Failed
	}
	return f
}

func run(ctx context.Context, bin pginstance.Binaries, owner pginstance.Owner, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, bin.Path(program), args...)
	cmd.SysProcAttr = owner.SysProcAttr()
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C", "PATH=" + bin.Dir + ":/usr/bin:/bin"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
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
