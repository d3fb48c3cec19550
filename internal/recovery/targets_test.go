package recovery_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
)

// rowsOf is the content of the table of steps: which of them a restore has.
const rowsOf = "select coalesce(string_agg(id::text, ',' order by id), '') from step"

// contentOf is a digest of what lies in the two tablespaces and the default one.
const contentOf = `select (select md5(string_agg(v, ',' order by id)) from in_one) || (select md5(string_agg(v, ',' order by id)) from in_two)
	|| (select count(*) from in_two where v like 'v9%')`

// TestRestore_EveryKindOfTarget restores one cluster with two tablespaces to targets of every kind, each to the record.
func TestRestore_EveryKindOfTarget(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		b := newBench(t, major, "one", "two")
		b.Exec(t, "create table step (id int primary key)")
		b.Exec(t, "create table in_one (id int, v text) tablespace one")
		b.Exec(t, "create table in_two (id int, v text)")
		b.Exec(t, "insert into in_one select g, 'v' || g from generate_series(1, 3000) g")
		b.Exec(t, "insert into in_two select g, 'v' || g from generate_series(1, 3000) g")
		b.Exec(t, "create index in_two_v on in_two (v) tablespace two")
		b.Exec(t, "alter table in_two set tablespace two")
		b.backup(t)
		step := func(id int) string {
			b.Exec(t, "insert into step values ($1)", id)
			return b.SQL(t, "select to_char(pg_xact_commit_timestamp(xmin) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from step where id = $1", id)
		}
		var at [7]string
		for id := 1; id <= 4; id++ {
			at[id] = step(id)
		}
		b.SQL(t, "select pg_create_restore_point('it''s a point')")
		at[5], at[6] = step(5), step(6)
		content := b.SQL(t, contentOf)
		waitForFrontier(t, b)

		// The record of a commit is where replay to just before its time stops.
		commit := func(id int) string {
			p := b.plan(t, recovery.PlanOptions{Target: recovery.Target{Kind: recovery.Time, Value: at[id], Exclusive: true}})
			return p.Stop.At.String()
		}
		tests := []struct {
			name   string
			target recovery.Target
			rows   string
			always bool // on every version
		}{
			{"at the time of a commit", recovery.Target{Kind: recovery.Time, Value: at[2]}, "1,2", false},
			{"before the time of a commit", recovery.Target{Kind: recovery.Time, Value: at[2], Exclusive: true}, "1", true},
			{"at the record of a commit", recovery.Target{Kind: recovery.LSN, Value: commit(3)}, "1,2,3", true},
			{"before the record of a commit", recovery.Target{Kind: recovery.LSN, Value: commit(3), Exclusive: true}, "1,2", false},
			{"restore point", recovery.Target{Kind: recovery.Name, Value: "it's a point"}, "1,2,3,4", false},
			{"immediate", recovery.Target{Kind: recovery.Immediate}, "", true},
			{"latest", recovery.Target{}, "1,2,3,4,5,6", true},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				if !tt.always && major != pgtest.Majors(t)[0] {
					t.Skip("proved on the lowest version")
				}
				p, s := b.restore(t, tt.target)
				if got := query(t, s, rowsOf); got != tt.rows {
					t.Errorf("restored steps %s, want %s", got, tt.rows)
				}
				if got := query(t, s, contentOf); got != content {
					t.Errorf("content of the tablespaces is %s, want %s", got, content)
				}
				if tt.name == "latest" {
					checkTablespaces(t, b, p, s)
				}
			})
		}
	})
}

// checkTablespaces looks whether a restored cluster with tablespaces is one that PostgreSQL and its tools can work with.
func checkTablespaces(t *testing.T, b *bench, p *recovery.Plan, s *recovery.Server) {
	t.Helper()
	where := query(t, s, "select string_agg(pg_tablespace_location(oid), ',' order by spcname) from pg_tablespace where spcname in ('one', 'two')")
	for _, location := range strings.Split(where, ",") {
		if !strings.HasPrefix(location, p.TargetDir+"/") {
			t.Errorf("a tablespace lies at %s, not below %s (R1)", location, p.TargetDir)
		}
	}
	if n := strings.Count(where, ","); n != 1 {
		t.Errorf("tablespaces at %q, want two", where)
	}
	third := pgtest.TempDir(t)
	for _, stmt := range []string{
		"create tablespace three location '" + third + "'", "create table in_three tablespace three as select * from in_one",
		"alter table in_one set tablespace two", "drop tablespace one",
	} {
		conn, err := s.Connect(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), stmt); err != nil {
			t.Errorf("%s: %v", stmt, err)
		}
		_ = conn.Close()
	}
	hba, err := os.OpenFile(filepath.Join(p.TargetDir, "lifeboat_private_hba.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = hba.WriteString("local replication all trust\n")
		err = errors.Join(err, hba.Close(), s.Instance.Reload())
	}
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "the new pg_hba.conf", func() bool {
		return query(t, s, "select count(*)::text from pg_hba_file_rules where database = '{replication}'") == "1" &&
			query(t, s, "select (pg_conf_load_time() > now() - interval '10 s')::text") == "true"
	})
	out := filepath.Join(pgtest.TempDir(t), "tar")
	b.Run(t, "pg_basebackup", "-h", s.Instance.SocketDir(), "-p", fmt.Sprint(s.Instance.Port()), "-U", "postgres", "-D", out, "-Ft", "-c", "fast")
	f, err := os.Open(filepath.Join(out, "base.tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg && strings.Contains(h.Name, "tablespaces/") {
			t.Errorf("a backup of the restored server has the tablespace's %s a second time", h.Name)
		}
	}
}

// tree describes everything below a directory: names, types, modes, owners, sizes and times.
func tree(t *testing.T, dirs ...string) string {
	t.Helper()
	var b strings.Builder
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil {
				fmt.Fprintln(&b, path, info.Mode(), info.Size(), info.ModTime().UnixNano())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// TestMakePlan_RefusesAndWritesNothing: what cannot be restored is refused, and nothing has changed (invariant 5, R1).
func TestMakePlan_RefusesAndWritesNothing(t *testing.T) {
	b := newBench(t, 0)
	before := time.Now()
	b.Exec(t, "create table step (id int)")
	m := b.backup(t)
	b.Exec(t, "insert into step values (1)")
	waitForFrontier(t, b)
	inGap := time.Now()
	for range 3 { // the second of these segments will be missing
		b.Exec(t, "insert into step values (2)")
		waitForFrontier(t, b)
	}
	behindGap := b.SQL(t, "select pg_current_wal_lsn()")
	tsp := pgtest.TempDir(t)
	second := b.backup(t)
	b.Exec(t, "insert into step values (3)")
	b.Exec(t, "create tablespace late location '"+tsp+"'")
	b.Exec(t, "insert into step values (4)")
	waitForFrontier(t, b)
	gap := removeWAL(t, b, m.StopLSN.String(), 3)

	place := pgtest.TempDir(t)
	full, link := filepath.Join(place, "full"), filepath.Join(place, "link")
	for _, err := range []error{os.Mkdir(full, 0o755), os.WriteFile(filepath.Join(full, "precious"), []byte("x"), 0o644), os.Symlink(full, link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(place, "new")
	at := func(t time.Time) recovery.Target {
		return recovery.Target{Kind: recovery.Time, Value: t.UTC().Format(time.RFC3339Nano)}
	}
	old := m.BackupID
	tests := []struct {
		name string
		opts recovery.PlanOptions
		want string
	}{
		{"before the first backup", recovery.PlanOptions{TargetDir: dir, Target: at(before)}, "before it was begun"},
		{"beyond the newest transaction", recovery.PlanOptions{TargetDir: dir, Target: at(time.Now())}, "no transaction later"},
		{"in a gap", recovery.PlanOptions{TargetDir: dir, Target: at(inGap), Backup: old}, gap + " is missing"},
		{"behind a gap", recovery.PlanOptions{TargetDir: dir, Target: recovery.Target{Kind: recovery.LSN, Value: behindGap}, Backup: old}, gap + " is missing"},
		{"an lsn before the backup", recovery.PlanOptions{TargetDir: dir, Target: recovery.Target{Kind: recovery.LSN, Value: "0/100"}}, "before it was consistent"},
		{"an lsn beyond the frontier", recovery.PlanOptions{TargetDir: dir, Target: recovery.Target{Kind: recovery.LSN, Value: "7/0"}}, "does not hold the target"},
		{"an unknown restore point", recovery.PlanOptions{TargetDir: dir, Target: recovery.Target{Kind: recovery.Name, Value: "no"}}, "does not hold the target"},
		{"an xid", recovery.PlanOptions{TargetDir: dir, Target: recovery.Target{Kind: recovery.XID, Value: "800"}}, "not available"},
		{"no such backup", recovery.PlanOptions{TargetDir: dir, Backup: "20200101T000000Z-full-000000"}, "20200101T000000Z"},
		{"no such timeline", recovery.PlanOptions{TargetDir: dir, Timeline: 7}, "00000007.history"},
		{"no such action", recovery.PlanOptions{TargetDir: dir, Action: "explode"}, "use promote"},
		{"a tablespace is created on the way", recovery.PlanOptions{TargetDir: dir, Backup: second.BackupID}, "creates a tablespace at " + tsp},
		{"a directory that is not empty", recovery.PlanOptions{TargetDir: full}, "precious"},
		{"a link", recovery.PlanOptions{TargetDir: link}, "not a directory"},
		{"a link, with a slash", recovery.PlanOptions{TargetDir: link + "/"}, "not a directory"},
		{"a relative directory", recovery.PlanOptions{TargetDir: "new"}, "absolute"},
		{"no directory", recovery.PlanOptions{}, "absolute"},
		{"the root", recovery.PlanOptions{TargetDir: "/../"}, "absolute"},
		{"no parent", recovery.PlanOptions{TargetDir: filepath.Join(place, "a/b")}, "create it"},
		{"in a file", recovery.PlanOptions{TargetDir: filepath.Join(full, "precious", "b")}, "create it"},
		{"in the live data directory", recovery.PlanOptions{TargetDir: filepath.Join(b.DataDir, "base", "new")}, "data directory"},
	}
	b.Stop(t) // or its directory would change by itself
	was := tree(t, b.Dir, b.repoDir, place, tsp)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.opts.Repo, tt.opts.Cluster = b.repo, "c1"
			p, err := recovery.MakePlan(t.Context(), tt.opts)
			var refused *recovery.RefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("plan %v, error %v, want it refused with %q", p, err, tt.want)
			}
		})
	}
	if now := tree(t, b.Dir, b.repoDir, place, tsp); now != was {
		t.Errorf("refusals changed files:\nbefore\n%s\nafter\n%s", was, now)
	}

	t.Run("the last transaction before the gap", func(t *testing.T) {
		p, s := b.restoreBy(t, recovery.PlanOptions{Backup: old})
		if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], gap) {
			t.Errorf("warnings %q do not name the gap", p.Warnings)
		}
		if got := query(t, s, "select count(*)::text from step"); got != "1" {
			t.Errorf("%s rows, want those of the segments before the gap", got)
		}
	})
}

// removeWAL takes the n-th segment after the one of a position out of the repository, and returns its name.
func removeWAL(t *testing.T, b *bench, lsn string, n int) string {
	t.Helper()
	size := pgtest.One[int64](t, b.Server, "select setting::bigint from pg_settings where name = 'wal_segment_size'")
	name := b.SQL(t, "select pg_walfile_name($1::text::pg_lsn + $2::text::numeric)", lsn, fmt.Sprint(int64(n-1)*size))
	found := 0
	err := filepath.WalkDir(b.repoDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(filepath.Base(path), name) {
			found++
			return os.Remove(path)
		}
		return err
	})
	if err != nil || found == 0 {
		t.Fatalf("remove WAL %s: %d objects, %v", name, found, err)
	}
	return name
}
