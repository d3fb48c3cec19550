package basebackup_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
)

// rewritten are files that differ, by their times at least, between two backups of a server at rest.
var rewritten = append([]string{"pg_logical/replorigin_checkpoint"}, volatile...)

// localOptions are those of a backup from the data directory, by a role that may do just that.
func (b *bench) localOptions(t testing.TB) basebackup.Options {
	t.Helper()
	b.Exec(t, `do $$ begin
		if not exists (select from pg_roles where rolname = 'reader') then create role reader login; end if; end $$`)
	b.Exec(t, basebackup.BackupGrant("reader"))
	opts := b.options(t)
	opts.Server = config(t, strings.Replace(b.DSN(""), "user=postgres", "user=reader", 1))
	opts.DataDirectory = b.DataDir
	return opts
}

// odd makes a cluster whose directory has all that a source may stumble upon: BASE_BACKUP decides what of it counts.
func (b *bench) odd(t *testing.T) {
	t.Helper()
	b.Exec(t, "create tablespace inplace location ''")
	inner := filepath.Join(b.DataDir, "inner")
	b.mkdir(t, inner)
	b.Exec(t, fmt.Sprintf("create tablespace inner_one location '%s'", inner))
	for _, name := range []string{"one", "inplace", "inner_one"} {
		b.Exec(t, fmt.Sprintf("create table in_%s tablespace %s as select g, md5(g::text) from generate_series(1, 5000) g", name, name))
		b.Exec(t, fmt.Sprintf("create unlogged table un_%s tablespace %s as select generate_series(1, 1000) g", name, name))
	}
	b.Exec(t, "create unlogged table u as select generate_series(1, 10000) g; create index on u (g)")
	b.Exec(t, "select lo_from_bytea(0, repeat('large object ', 10000)::bytea)")
	b.Exec(t, "create database second template template0")

	for _, dir := range []string{"base/pgsql_tmp", "empty", "stray", "stray/pg_notify", "stray/5", "base/4", "pg_replslot/s"} {
		b.mkdir(t, filepath.Join(b.DataDir, dir))
	}
	for _, name := range []string{
		"base/pgsql_tmp/pgsql_tmp1.0", "pgsql_tmpx", "base/4/pg_internal.init.77", "postgresql.auto.conf.tmp",
		"current_logfiles", "current_logfiles.tmp", "backup_label.old", "backup_label", "tablespace_map.old", "backup_manifest",
		"base/backup_manifest", ".DS_Store", "stray/file", "stray/pg_notify/gone", "stray/5/77", "stray/5/77_init", "stray/t3_16384",
		"pg_replslot/s/state", "pg_stat_tmp/x", "pg_subtrans/x", "pg_serial/x", "pg_snapshots/x", "pg_dynshmem/x",
		"base/4/t3_16384", "base/4/t3_16384_fsm.1", "base/4/t3_x", "base/4/77", "base/4/77.1", "base/4/77_fsm", "base/4/77_vm.2",
		"base/4/77_init", "base/4/77_init.1", "base/4/78_other", "base/4/x77", "base/4/79.", "base/4/80_init", "global/77", "global/77_init",
		"global/t3_16384", "pg_wal/archive_status/x", "pg_wal/stray", "stray/quote\"back\\slash\ttab\x01", "stray/not-utf8-\xff\xfe",
	} {
		b.write(t, filepath.Join(b.DataDir, name), name)
	}
	if err := errors.Join(
		os.Symlink("/etc/passwd", filepath.Join(b.DataDir, "link")),
		os.Symlink(filepath.Join(b.DataDir, "stray"), filepath.Join(b.DataDir, "linked")),
		syscall.Mkfifo(filepath.Join(b.DataDir, "fifo"), 0o600),
		os.Chmod(filepath.Join(b.DataDir, "stray/file"), 0o640),
	); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(b.DataDir, "socket")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

func (b *bench) mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	if err := pgtest.Owner(t).Chown(dir); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := pgtest.Owner(t).Chown(path); err != nil {
		t.Fatal(err)
	}
}

// linkWAL moves pg_wal away and puts a link in its place.
func (b *bench) linkWAL(t *testing.T) {
	t.Helper()
	b.Stop(t)
	at, to := filepath.Join(b.DataDir, "pg_wal"), filepath.Join(b.Dir, "wal")
	if err := errors.Join(os.Rename(at, to), os.Symlink(to, at)); err != nil {
		t.Fatal(err)
	}
	b.Start(t)
}

// TestTakeLocal_HasWhatBaseBackupSends compares backups of one server at rest by both sources: the same paths, types,
// modes and contents, and a backup_manifest whose lines are those of the server (R6, R9). It is what proves the list of
// what is left out, for each version.
func TestTakeLocal_HasWhatBaseBackupSends(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		b := newBench(t, pgtest.Options{
			Major: major, Checksums: true, Tablespaces: []string{"one"},
			Settings: map[string]string{"autovacuum": "off", "allow_in_place_tablespaces": "on"},
		})
		b.linkWAL(t)
		b.odd(t)
		hold := b.temporary(t)
		defer hold()
		opts := b.localOptions(t)
		b.Exec(t, "checkpoint")
		before := plainNames(t, b.DataDir)
		streamed, err := b.take(t, b.options(t))
		if err != nil {
			t.Fatal(err)
		}
		seen := &phases{}
		opts.Progress = seen.add
		local, err := b.take(t, opts)
		if err != nil {
			t.Fatal(err)
		}
		seen.check(t, local)
		compareEntries(t, b.entries(t, streamed), b.entries(t, local))
		compareLines(t, b.manifestLines(t, streamed), b.manifestLines(t, local))
		compareManifests(t, streamed, local)
		if after := plainNames(t, b.DataDir); !slices.Equal(before, after) {
			t.Errorf("the backup changed the data directory from %q to %q", before, after)
		}
		b.verifies(t, local)
	})
}

// temporary keeps a temporary table and a temporary file open.
func (b *bench) temporary(t *testing.T) (end func()) {
	t.Helper()
	conn, err := dbcore.Connect(t.Context(), config(t, b.DSN("")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "create temp table tt as select g, md5(g::text) from generate_series(1, 20000) g; create index on tt (g)"); err != nil {
		t.Fatal(err)
	}
	return func() { _ = conn.Close() }
}

// plainNames lists a data directory, but what comes and goes in a running server's.
func plainNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, path); err == nil && !strings.HasPrefix(rel, "pg_") {
			names = append(names, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func (b *bench) entries(t *testing.T, m *repo.Manifest) map[string]repo.Entry {
	t.Helper()
	snap, err := b.repo.OpenBackup(t.Context(), "c1", m.BackupID)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]repo.Entry{}
	for e, err := range snap.Entries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		// The configuration that comes along is what the role may see, whichever source there is.
		if e.Path != repo.ConfigDir && !strings.HasPrefix(e.Path, repo.ConfigDir+"/") {
			out[e.Path] = e
		}
	}
	return out
}

func compareEntries(t *testing.T, want, got map[string]repo.Entry) {
	t.Helper()
	if len(want) < 500 {
		t.Errorf("only %d entries are compared", len(want))
	}
	for name, w := range want {
		g, ok := got[name]
		switch {
		case !ok:
			t.Errorf("%q is in the backup from the stream only", name)
		case g.Type != w.Type || g.Mode != w.Mode:
			t.Errorf("%q has type %d and mode %v, from the stream %d and %v", name, g.Type, g.Mode, w.Type, w.Mode)
		case !slices.Contains(rewritten, name) && (g.Size != w.Size || g.CRC != w.CRC || w.Type == repo.TypeFile && !g.ModTime.Equal(w.ModTime)):
			t.Errorf("%q has %d bytes of %v, from the stream %d of %v", name, g.Size, g.ModTime, w.Size, w.ModTime)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok && name != "tablespace_map" {
			t.Errorf("%q is in the backup from the directory only", name)
		}
	}
	if _, ok := got["tablespace_map"]; !ok {
		t.Error("there is no tablespace_map")
	}
}

// manifestLines are the lines of a backup_manifest, without the comma that parts them.
func (b *bench) manifestLines(t *testing.T, m *repo.Manifest) []string {
	t.Helper()
	snap, err := b.repo.OpenBackup(t.Context(), "c1", m.BackupID)
	if err != nil {
		t.Fatal(err)
	}
	data, err := snap.ReadFile(t.Context(), "backup_manifest", 10<<20)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(data) {
		t.Errorf("backup_manifest is no JSON")
	}
	lines := strings.Split(string(data), "\n")
	for i := range lines {
		lines[i] = strings.TrimSuffix(lines[i], ",")
	}
	return lines
}

func compareLines(t *testing.T, want, got []string) {
	t.Helper()
	varies := func(line string) bool {
		return strings.Contains(line, `"Start-LSN"`) || strings.HasPrefix(line, `"Manifest-Checksum"`) ||
			slices.ContainsFunc(rewritten, func(name string) bool { return strings.Contains(line, `"Path": "`+name+`"`) })
	}
	if len(want) != len(got) {
		t.Errorf("the backup_manifest has %d lines, the server's %d", len(got), len(want))
	}
	set := func(lines []string) map[string]bool {
		out := map[string]bool{}
		for _, l := range lines {
			if !varies(l) {
				out[l] = true
			}
		}
		return out
	}
	w, g := set(want), set(got)
	for _, line := range slices.Sorted(maps.Keys(w)) {
		if !g[line] {
			t.Errorf("only the server's backup_manifest has %s", line)
		}
	}
	for _, line := range slices.Sorted(maps.Keys(g)) {
		if !w[line] {
			t.Errorf("only the synthesised backup_manifest has %s", line)
		}
	}
}

// compareManifests wants two manifests to tell the same of the server.
func compareManifests(t *testing.T, want, got *repo.Manifest) {
	t.Helper()
	if got.ServerManifest || !got.SynthesizedManifest || !got.HasBackupManifest() || !want.ServerManifest || want.SynthesizedManifest {
		t.Errorf("the origins of the backup_manifests are not told truly: %+v, %+v", want, got)
	}
	outside := func(list []repo.Tablespace) (out []repo.Tablespace) {
		for _, ts := range list {
			if filepath.IsAbs(ts.Location) {
				out = append(out, ts)
			}
		}
		slices.SortFunc(out, func(a, b repo.Tablespace) int { return int(a.OID) - int(b.OID) })
		return out
	}
	if w := outside(want.Tablespaces); !slices.Equal(w, got.Tablespaces) || len(w) != 2 {
		t.Errorf("tablespaces are %v, of the stream %v", got.Tablespaces, w)
	}
	if got.StartLSN < want.StopLSN || got.StopLSN <= got.StartLSN || got.Timeline != 1 || got.MaxConnections != 50 || got.SystemID != want.SystemID {
		t.Errorf("the manifest is %+v", got)
	}
	if got.ChangedBytes > got.SourceBytes {
		t.Errorf("%d bytes of %d changed", got.ChangedBytes, got.SourceBytes)
	}
}

// verifies lays a backup and runs pg_verifybackup (R9).
func (b *bench) verifies(t *testing.T, m *repo.Manifest) {
	t.Helper()
	plan, err := recovery.MakePlan(t.Context(), recovery.PlanOptions{
		Repo: b.repo, Cluster: "c1", Backup: m.BackupID, TargetDir: filepath.Join(pgtest.TempDir(t), "restored"),
		Target: recovery.Target{Kind: recovery.Immediate},
	})
	if err != nil {
		t.Fatal(err)
	}
	b.lay(t, plan)
	if f := verify.Manifest(t.Context(), b.Bin, pgtest.Owner(t), plan.TargetDir, recovery.ChangedFiles()); f.Outcome != verify.Passed {
		t.Errorf("pg_verifybackup: %s, %s", f.Outcome, f.Observed)
	}
}

func (b *bench) lay(t *testing.T, plan *recovery.Plan) {
	t.Helper()
	fetch := []string{pgtest.Build(t, "lifeboat/cmd/starter"), "--repository", "file://" + b.repoDir}
	if _, err := recovery.Lay(t.Context(), plan, recovery.LayOptions{Repo: b.repo, FetchCommand: fetch}); err != nil {
		t.Fatal(err)
	}
}
