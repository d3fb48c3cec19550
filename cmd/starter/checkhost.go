package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"lifeboat/dbcore"
)

// privileges checks what the role of the dsn may do, besides what backups themselves are tried by.
func (k *checker) privileges(ctx context.Context, conn *dbcore.Conn) {
	role, missing, err := missingGrants(ctx, conn)
	if err != nil {
		k.unknown("privileges", err)
		return
	}
	complete := true
	for _, g := range missing {
		if g.ID == grantReplication || g.ID == grantBackup {
			continue // told by the check of the way that this cluster's backups go
		}
		complete = false
		k.add("privileges", g.lacking, fmt.Sprintf("as a superuser, in the dsn's database: %s (`lifeboat check %s --print-grants` prints all that is needed)",
			strings.Join(g.SQL, "; "), k.cluster), "role %s lacks %s: %s", role, g.ID, g.Why)
	}
	if complete {
		k.ok("privileges", "role %s has what backups and drills need", role)
	}
}

// workDirectory checks that this host has room for a restored server: a drill's, or that of a verification.
func (k *checker) workDirectory(ctx context.Context, conn *dbcore.Conn, dir string) {
	there, err := existing(dir)
	if err != nil {
		k.add("work directory", outcomeFail, "name another folder in worker.work_dir", "drills cannot restore to %s: %v", dir, err)
		return
	}
	if err := unix.Access(there, unix.W_OK|unix.X_OK); err != nil {
		k.add("work directory", outcomeWarning, fmt.Sprintf("let user %d write to %s, or name another folder in worker.work_dir", os.Getuid(), there),
			"drills restore to %s, which this user cannot write to: %v", dir, err)
		return
	}
	need, err := dbcore.One[int64](ctx, conn, `select coalesce(sum(case when has_database_privilege(oid, 'connect') or pg_has_role('pg_read_all_stats', 'usage')
		then pg_database_size(oid) end), 0)::bigint from pg_database`)
	if err != nil {
		k.unknown("work directory", fmt.Errorf("measure the databases: %w", err))
		return
	}
	var st unix.Statfs_t
	if err := unix.Statfs(there, &st); err != nil {
		k.unknown("work directory", fmt.Errorf("ask how much room %s has: %w", there, err))
		return
	}
	k.room(dir, need, int64(st.Bavail)*st.Bsize)
}

// room compares what a restored server needs with what is free, both in bytes.
func (k *checker) room(dir string, need, free int64) {
	if free < need {
		k.add("work directory", outcomeWarning, "free space there, or name a folder on a larger disk in worker.work_dir",
			"%s has room for %s, and the databases hold %s: drills and verifications from level 4 up would not fit", dir, size(free), size(need))
		return
	}
	k.ok("work directory", "%s has room for %s, the databases hold %s", dir, size(free), size(need))
}

// existing is the nearest folder at or above dir that is there.
func existing(dir string) (string, error) {
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && info.IsDir():
			return dir, nil
		case err == nil:
			return "", fmt.Errorf("%s is no folder", dir)
		case !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir):
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}
