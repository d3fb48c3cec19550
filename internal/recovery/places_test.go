package recovery_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
)

// refused asserts that a plan is refused with a text, and gives its hint.
func refused(t *testing.T, b *bench, opts recovery.PlanOptions, want string) string {
	t.Helper()
	opts.Repo, opts.Cluster = b.repo, "c1"
	p, err := recovery.MakePlan(t.Context(), opts)
	var refused *recovery.RefusedError
	if !errors.As(err, &refused) || !strings.Contains(refused.Reason, want) {
		t.Fatalf("plan %v, error %v, want it refused with %q", p, err, want)
	}
	return refused.Hint
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// TestRestore_MapsTablespaces lays tablespaces where they are told to go, and lets replay create one only where that was
// given free (R1).
func TestRestore_MapsTablespaces(t *testing.T) {
	b := newBench(t, 0, "one", "two", "three")
	b.Exec(t, "create table step (id int primary key)")
	for _, ts := range []string{"one", "two", "three"} {
		b.Exec(t, "create table in_"+ts+" tablespace "+ts+" as select g as id, repeat(md5(g::text), 20) as v from generate_series(1, 2000) g")
	}
	b.Set(t, map[string]string{"allow_in_place_tablespaces": "on"})
	b.Exec(t, "create tablespace inside location ''")
	b.Exec(t, "create table in_inside tablespace inside as select 1 as id")
	m := b.backup(t)
	b.Exec(t, "insert into step values (1)")
	waitForFrontier(t, b)

	t.Run("refused", func(t *testing.T) { testMapRefused(t, b) })
	t.Run("killed and resumed", func(t *testing.T) { testMapped(t, b, m) })
	t.Run("locked", func(t *testing.T) { testMapLocked(t, b) })
	t.Run("created by replay", func(t *testing.T) { testCreatedByReplay(t, b) })
}

func testMapRefused(t *testing.T, b *bench) {
	place := pgtest.TempDir(t)
	target, free, full := filepath.Join(place, "target"), filepath.Join(place, "free"), filepath.Join(place, "full")
	link := filepath.Join(place, "link")
	do(t, os.Mkdir(full, 0o700), os.WriteFile(filepath.Join(full, "precious"), nil, 0o600), os.Symlink(full, link))
	one, two := b.Tablespaces["one"], b.Tablespaces["two"]
	version, err := filepath.Glob(filepath.Join(one, "PG_*"))
	if err != nil || len(version) != 1 {
		t.Fatal(version, err)
	}
	was := tree(t, place)
	for _, tt := range []struct {
		name string
		maps []recovery.TablespaceMap
		want string
	}{
		{"unknown", []recovery.TablespaceMap{{Old: "/no/such", New: free}}, "at " + one},
		{"twice", []recovery.TablespaceMap{{Old: one, New: free}, {Old: one + "/", New: free + "2"}}, "mapped twice"},
		{"relative", []recovery.TablespaceMap{{Old: one, New: "free"}}, "absolute"},
		{"not empty", []recovery.TablespaceMap{{Old: one, New: full}}, "precious"},
		{"a link", []recovery.TablespaceMap{{Old: one, New: link}}, "not a directory"},
		{"no parent", []recovery.TablespaceMap{{Old: one, New: filepath.Join(place, "a/b")}}, "is not a directory"},
		{"the target", []recovery.TablespaceMap{{Old: one, New: target}}, "within one another"},
		{"within the target", []recovery.TablespaceMap{{Old: one, New: filepath.Join(place, "empty/ts")}}, "is not a directory"},
		{"around the target", []recovery.TablespaceMap{{Old: one, New: place}}, "is not empty"},
		{"one place for two", []recovery.TablespaceMap{{Old: one, New: free}, {Old: two, New: free}}, "within one another"},
		{"a live tablespace", []recovery.TablespaceMap{{Old: one, New: one}}, "is not empty"},
		{"another live tablespace", []recovery.TablespaceMap{{Old: one, New: two}}, "is not empty"},
		{"within a live tablespace", []recovery.TablespaceMap{{Old: one, New: filepath.Join(one, "new")}}, "which is a PostgreSQL tablespace"},
		{"deep within a live tablespace", []recovery.TablespaceMap{{Old: one, New: filepath.Join(version[0], "new")}}, "which is a PostgreSQL tablespace"},
		{"within the live data directory", []recovery.TablespaceMap{{Old: one, New: filepath.Join(b.DataDir, "base", "new")}}, "data directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, b, recovery.PlanOptions{TargetDir: target, Tablespaces: tt.maps}, tt.want)
		})
	}
	refused(t, b, recovery.PlanOptions{TargetDir: filepath.Join(one, "new")}, "which is a PostgreSQL tablespace")
	if now := tree(t, place); now != was {
		t.Errorf("refusals changed files:\nbefore\n%s\nafter\n%s", was, now)
	}
}

// mapped plans a restore with one tablespace by location into a new directory, one by OID into an empty one, and one
// below the target directory.
func (b *bench) mapped(t *testing.T) (p *recovery.Plan, one, two string) {
	t.Helper()
	place := pgtest.TempDir(t)
	one, two = filepath.Join(place, "new one"), filepath.Join(place, "two=2")
	do(t, os.Mkdir(two, 0o755))
	p = b.plan(t, recovery.PlanOptions{Tablespaces: []recovery.TablespaceMap{
		{Old: b.Tablespaces["one"], New: one}, {Old: b.SQL(t, "select oid::text from pg_tablespace where spcname = 'two'"), New: two},
	}})
	return p, one, two
}

func testMapped(t *testing.T, b *bench, m *repo.Manifest) {
	p, one, two := b.mapped(t)
	if len(p.Tablespaces) != 2 || !strings.Contains(p.Summary(), one) {
		t.Fatalf("plan %+v\n%s", p.Tablespaces, p.Summary())
	}
	total := reads(t, b)
	for _, n := range []int64{total / 2, 0} {
		layAndKill(t, b, planFile(t, p), n)
		refusesToStart(t, b, p.TargetDir)
		// What is half laid is this plan's alone.
		refused(t, b, recovery.PlanOptions{
			TargetDir: filepath.Join(pgtest.TempDir(t), "x"), Tablespaces: []recovery.TablespaceMap{{Old: b.Tablespaces["two"], New: one}},
		}, "holds another restore")
	}
	stray, err := filepath.Glob(filepath.Join(one, "PG_*"))
	if err != nil || len(stray) != 1 {
		t.Fatal(stray, err)
	}
	do(t, os.WriteFile(filepath.Join(stray[0], "stray"), nil, 0o600))
	b.mkdir(t, filepath.Join(one, "PG_14_202107181"))
	res, err := recovery.Lay(t.Context(), p, b.lay())
	if err != nil || res.ReusedBytes < p.Bytes*9/10 {
		t.Fatalf("the last attempt reused %d of %d bytes, %v", res.ReusedBytes, p.Bytes, err)
	}
	verified(t, b, p)
	if _, err := os.Lstat(filepath.Join(stray[0], "stray")); err == nil {
		t.Error("a leftover in a tablespace is still there (R3)")
	}
	if _, err := os.Lstat(filepath.Join(one, "PG_14_202107181")); err != nil {
		t.Errorf("another version's directory in the place was touched: %v (R1)", err)
	}
	for _, dir := range []string{one, two} {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm() != 0o700 || int(info.Sys().(*syscall.Stat_t).Uid) != pgtest.Owner(t).UID {
			t.Errorf("%s: %v, %v", dir, info, err)
		}
	}
	s := b.start(t, p)
	const locations = "select string_agg(pg_tablespace_location(oid), ',' order by spcname) from pg_tablespace where spcname in ('one', 'two', 'three')"
	three := filepath.Join(p.TargetDir, "lifeboat.tablespaces", fmt.Sprint(b.SQL(t, "select oid::text from pg_tablespace where spcname = 'three'")))
	if got, want := query(t, s, locations), strings.Join([]string{one, three, two}, ","); got != want {
		t.Errorf("tablespaces at %s, want %s", got, want)
	}
	const rows = "select (select count(*) from in_one) || ',' || (select count(*) from in_two) || ',' || (select count(*) from in_three) || ',' || (select count(*) from in_inside)"
	if got := query(t, s, rows); got != "2000,2000,2000,1" {
		t.Errorf("rows %s", got)
	}
	if len(m.Tablespaces) < 3 {
		t.Errorf("the backup has tablespaces %v", m.Tablespaces)
	}
}

// testMapLocked: a place that another attempt holds is waited for, not shared (R21).
func testMapLocked(t *testing.T, b *bench) {
	p, one, _ := b.mapped(t)
	do(t, os.Mkdir(one, 0o700))
	marker := filepath.Join(one, recovery.MarkerFile)
	f, err := os.OpenFile(marker, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	do(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("given up"))
	if _, err := recovery.Lay(ctx, p, b.lay()); err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("a place that is held: %v (R21)", err)
	}
	if recovery.CheckLaid(p) == nil {
		t.Error("it counts as laid")
	}
}

// testCreatedByReplay: CREATE TABLESPACE after the backup. On the host of the server that did it nothing is touched; on
// one where the path is free it can be given free; otherwise the plan is refused, with a remedy.
func testCreatedByReplay(t *testing.T, b *bench) {
	late := filepath.Join(pgtest.TempDir(t), "late")
	b.mkdir(t, late)
	b.Exec(t, "create tablespace late location '"+late+"'")
	b.Exec(t, "create table in_late tablespace late as select g as id from generate_series(1, 500) g")
	b.Exec(t, "create tablespace later_inside location ''")
	b.Exec(t, "create table in_later tablespace later_inside as select 7 as id")
	waitForFrontier(t, b)
	dir := filepath.Join(pgtest.TempDir(t), "restored")
	own := []recovery.TablespaceMap{{Old: late, New: late}}
	if hint := refused(t, b, recovery.PlanOptions{TargetDir: dir}, "creates a tablespace at "+late); !strings.Contains(hint, "backup that was taken after") {
		t.Errorf("hint %q", hint)
	}
	was := tree(t, late)
	refused(t, b, recovery.PlanOptions{TargetDir: dir, Tablespaces: own}, "is not empty")
	refused(t, b, recovery.PlanOptions{TargetDir: dir, Tablespaces: []recovery.TablespaceMap{{Old: late, New: late + "2"}}}, "and nowhere else")
	if now := tree(t, late); now != was {
		t.Errorf("the live tablespace was touched:\n%s\nwas\n%s", now, was)
	}

	b.Stop(t) // as on another host, where the path is free
	do(t, os.Rename(late, late+".away"))
	if hint := refused(t, b, recovery.PlanOptions{TargetDir: dir}, "does not exist on this host"); !strings.Contains(hint, "--tablespace "+late+"="+late) {
		t.Errorf("hint %q", hint)
	}
	_, s := b.restoreBy(t, recovery.PlanOptions{TargetDir: dir, Tablespaces: own})
	const rows = "select (select count(*) from in_late) || ',' || (select id from in_later) || ',' || pg_tablespace_location(oid) from pg_tablespace where spcname = 'late'"
	if got := query(t, s, rows); got != "500,7,"+late {
		t.Errorf("rows and place %s", got)
	}
}

func (b *bench) mkdir(t *testing.T, dir string) {
	t.Helper()
	do(t, os.Mkdir(dir, 0o700), pgtest.Owner(t).Chown(dir))
}
