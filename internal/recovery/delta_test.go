package recovery_test

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
)

// TestRestore_InPlace: a server is killed with commits that it had not archived. Its WAL is rescued (R20), and it is
// restored in its own data directory and tablespace (R1, R3), with the last commit there.
func TestRestore_InPlace(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		if major == 18 {
			t.Skip("proved on 15 and 17")
		}
		b := newBench(t, major, "one")
		b.Exec(t, "create table step (id int primary key)")
		b.Exec(t, "create table big tablespace one as select g as id, repeat(md5(g::text), 20) as v from generate_series(1, 20000) g")
		b.backup(t)
		b.Exec(t, "insert into step values (1)")
		waitForFrontier(t, b)
		b.Exec(t, "update big set v = 'changed' where id % 100 = 0")
		b.Exec(t, "create table later as select 1 as id")
		opts := recovery.PlanOptions{TargetDir: b.DataDir, Delta: true}
		refused(t, b, opts, "a server runs in")
		if _, err := b.rescue(t); !isRefused(err) {
			t.Errorf("rescue of a running server: %v", err)
		}
		b.Exec(t, "insert into step values (2)")
		b.Kill(t)

		testDeltaRefused(t, b, opts)
		testRescue(t, b)
		testDelta(t, b, opts)
		testDeltaAgain(t, b, opts)
	})
}

func isRefused(err error) bool {
	var refused *recovery.RefusedError
	return errors.As(err, &refused)
}

func (b *bench) rescue(t *testing.T) (*recovery.RescueResult, error) {
	t.Helper()
	return recovery.Rescue(t.Context(), recovery.RescueOptions{Repo: b.repo, Cluster: "c1", DataDir: b.DataDir})
}

// testDeltaRefused: whatever check fails, nothing is touched.
func testDeltaRefused(t *testing.T, b *bench, opts recovery.PlanOptions) {
	was := tree(t, b.Dir)
	control := filepath.Join(b.DataDir, "global/pg_control")
	data, err := os.ReadFile(control)
	if err != nil {
		t.Fatal(err)
	}
	spoil := func(t *testing.T, change func([]byte)) {
		t.Helper()
		other := append([]byte(nil), data...)
		change(other)
		rewrite(t, control, other)
	}
	defer rewrite(t, control, data)
	if hint := refused(t, b, opts, "WAL that the repository does not have"); !strings.Contains(hint, "lifeboat wal-rescue c1 --data-directory "+b.DataDir) {
		t.Errorf("hint %q (R20)", hint)
	}
	opts.DiscardWAL = true
	noDelta := opts
	noDelta.Delta = false
	refused(t, b, noDelta, "is not empty")
	spoil(t, func(c []byte) { c[0] ^= 1; sealControl(c) })
	refused(t, b, opts, "is that of the server with system identifier")
	if _, err := b.rescue(t); err == nil || !errors.As(err, new(*repo.IdentityError)) {
		t.Errorf("rescue of another server's WAL: %v", err)
	}
	spoil(t, func(c []byte) { c[100] ^= 1 })
	refused(t, b, opts, "cannot be told")
	rewrite(t, control, data)
	version := filepath.Join(b.DataDir, "PG_VERSION")
	major, err := os.ReadFile(version)
	if err != nil {
		t.Fatal(err)
	}
	rewrite(t, version, []byte("16\n"))
	refused(t, b, opts, "is of PostgreSQL 16")
	rewrite(t, version, major)
	refused(t, b, recovery.PlanOptions{TargetDir: filepath.Dir(b.DataDir), Delta: true}, "is no data directory")
	opts.Tablespaces = []recovery.TablespaceMap{{Old: b.Tablespaces["one"], New: filepath.Join(b.DataDir, "ts")}}
	refused(t, b, opts, "data directory")
	if now := tree(t, b.Dir); now != was {
		t.Errorf("refusals changed files:\nbefore\n%s\nafter\n%s", was, now)
	}
}

// rewrite changes a file and keeps its times, by which tree would tell.
func rewrite(t *testing.T, path string, data []byte) {
	t.Helper()
	info, err := os.Stat(path)
	do(t, err, os.WriteFile(path, data, 0o600), os.Chtimes(path, info.ModTime(), info.ModTime()))
}

// sealControl makes a changed pg_control whole again.
func sealControl(c []byte) {
	at := 288
	if binary.LittleEndian.Uint32(c[8:]) == 1800 {
		at = 292
	}
	binary.LittleEndian.PutUint32(c[at:], crc32.Checksum(c[:at], crc32.MakeTable(crc32.Castagnoli)))
}

// testRescue: the last commits of the crashed server are in the repository afterwards, and once is enough.
func testRescue(t *testing.T, b *bench) {
	was := tree(t, b.DataDir)
	res, err := b.rescue(t)
	if err != nil {
		t.Fatal(err)
	}
	n := len(res.Pushed)
	if n == 0 || !strings.HasSuffix(res.Pushed[n-1].Name, ".partial") || res.Pushed[n-1].Bytes <= 0 {
		t.Errorf("pushed %+v", res.Pushed)
	}
	again, err := b.rescue(t)
	if err != nil || len(again.Pushed) != 0 || again.EndLSN != res.EndLSN {
		t.Errorf("the second time: %+v, %v", again, err)
	}
	if now := tree(t, b.DataDir); now != was {
		t.Error("a rescue changed the data directory")
	}
	p := b.plan(t, recovery.PlanOptions{})
	if p.Frontier != res.EndLSN || p.Stop.ReplayedTo != res.EndLSN || !strings.Contains(p.Need, ".partial") {
		t.Errorf("latest reaches %v of %v, need %s", p.Stop.ReplayedTo, res.EndLSN, p.Need)
	}
}

func testDelta(t *testing.T, b *bench, opts recovery.PlanOptions) {
	stray := []string{filepath.Join(b.DataDir, "base/99999"), filepath.Join(b.DataDir, "pg_wal/junk"), filepath.Join(b.DataDir, "standby.signal")}
	for _, name := range stray {
		do(t, os.WriteFile(name, []byte("x"), 0o600))
	}
	p := b.plan(t, opts)
	if len(p.Tablespaces) != 1 || !p.Tablespaces[0].InPlace || p.Tablespaces[0].Place != b.Tablespaces["one"] {
		t.Fatalf("tablespaces %+v", p.Tablespaces)
	}
	config, err := os.ReadFile(filepath.Join(b.DataDir, "postgresql.conf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{-1, -4} {
		layAndKill(t, b, planFile(t, p), n)
		refusesToStart(t, b, b.DataDir)
		if again := b.plan(t, opts); again.Hash != p.Hash {
			t.Errorf("after a kill the same command makes another plan:\n%s\nwas\n%s", again.Summary(), p.Summary())
		}
	}
	res, err := recovery.Lay(t.Context(), p, b.lay())
	if err != nil {
		t.Fatal(err)
	}
	if res.ReusedBytes < p.Bytes/2 || res.ReusedBytes >= p.Bytes {
		t.Errorf("reused %d of %d bytes", res.ReusedBytes, p.Bytes)
	}
	verified(t, b, p)
	// The answer may be lost, and the command typed again: what no server has run in has no WAL that could be lost.
	if again, err := recovery.Lay(t.Context(), p, b.lay()); err != nil || again.ReusedBytes != p.Bytes {
		t.Errorf("once more: %+v, %v", again, err)
	}
	if again := b.plan(t, opts); again.Hash != p.Hash {
		t.Errorf("once more it is another plan:\n%s\nwas\n%s", again.Summary(), p.Summary())
	}
	testKilledAtTheEnd(t, b, p)
	for _, name := range stray {
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v (R3)", name, err)
		}
	}
	if wal, err := filepath.Glob(filepath.Join(b.DataDir, "pg_wal/0*")); err != nil || len(wal) != 0 {
		t.Errorf("pg_wal still holds %v, %v (R3)", wal, err)
	}
	if kept, err := os.ReadFile(filepath.Join(b.DataDir, "postgresql.conf.lifeboat-before")); err != nil || string(kept) != string(config) {
		t.Errorf("the server's configuration was not kept: %v", err)
	}
	s := b.start(t, p)
	if got := query(t, s, rowsOf); got != "1,2" {
		t.Errorf("rows %s: the last commit is lost (R20)", got)
	}
	const rest = "select (select count(*) from big where v = 'changed') || ',' || (select count(*) from later) || ',' || pg_tablespace_location(oid) from pg_tablespace where spcname = 'one'"
	if got, want := query(t, s, rest), "200,1,"+b.Tablespaces["one"]; got != want {
		t.Errorf("rows and place %s, want %s", got, want)
	}
	do(t, s.Instance.Stop(t.Context(), pginstance.Fast))
}

// testKilledAtTheEnd: pg_control was in place already, the marker did not say so yet.
func testKilledAtTheEnd(t *testing.T, b *bench, p *recovery.Plan) {
	marker := filepath.Join(b.DataDir, recovery.MarkerFile)
	data, err := os.ReadFile(marker)
	if err != nil || !strings.Contains(string(data), `"laid"`) {
		t.Fatalf("the marker is %s, %v", data, err)
	}
	rewrite(t, marker, []byte(strings.Replace(string(data), `"laid"`, `"laying"`, 1)))
	if recovery.CheckLaid(p) == nil {
		t.Error("it counts as laid")
	}
	res, err := recovery.Lay(t.Context(), p, b.lay())
	if err != nil || res.ReusedBytes < p.Bytes*9/10 {
		t.Errorf("reused %d of %d bytes, %v", res.ReusedBytes, p.Bytes, err)
	}
	do(t, recovery.CheckLaid(p))
}

// testDeltaAgain: the restored server has written a timeline of its own, which nobody has archived. That too is at stake.
func testDeltaAgain(t *testing.T, b *bench, opts recovery.PlanOptions) {
	in, err := pginstance.Start(t.Context(), pginstance.Options{
		Binaries: b.Bin, DataDir: b.DataDir, Owner: pgtest.Owner(t).Name, SocketOnly: true,
		Settings: map[string]string{"hba_file": filepath.Join(b.DataDir, "lifeboat_private_hba.conf")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Stop(context.Background(), pginstance.Immediate) })
	if _, err := in.WaitReady(t.Context(), pginstance.Promoted); err != nil {
		t.Fatal(err)
	}
	conn, err := recovery.Connect(t.Context(), in, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), "insert into step values (3)")
	do(t, err, conn.Close())
	refused(t, b, opts, "a server runs in")
	do(t, in.Stop(t.Context(), pginstance.Immediate))
	refused(t, b, opts, "00000002.history")
	opts.DiscardWAL = true
	p := b.plan(t, opts)
	if _, err := recovery.Lay(t.Context(), p, b.lay()); err != nil {
		t.Fatal(err)
	}
	s := b.start(t, p)
	if got := query(t, s, rowsOf); got != "1,2" {
		t.Errorf("rows %s, want those of the repository", got)
	}
	do(t, s.Instance.Stop(t.Context(), pginstance.Immediate))
}
