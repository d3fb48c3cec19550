package migrate_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"

	golangmigrate "github.com/golang-migrate/migrate/v4"
	golangpgx "github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/source/iofs"

	"lifeboat/dbcore"
	"lifeboat/dbcore/migrate"
)

// golangMigrate is the real golang-migrate on the same files and database.
func (e *env) golangMigrate(src map[string]string) *golangmigrate.Migrate {
	e.t.Helper()
	dir := e.t.TempDir()
	for name, text := range src {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			e.t.Fatal(err)
		}
	}
	driver, err := iofs.New(os.DirFS(dir), ".")
	if err != nil {
		e.t.Fatal(err)
	}
	m, err := golangmigrate.NewWithSourceInstance("iofs", driver, e.golangURL())
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { m.Close() })
	return m
}

func (e *env) golangURL() string {
	return "pgx5://postgres@127.0.0.1:" + strconv.Itoa(e.s.Port) + "/" + url.PathEscape(e.db) + "?sslmode=disable"
}

// testGolangMigrateLock: the two tools exclude each other.
func testGolangMigrateLock(t *testing.T, e *env) {
	peer, err := (&golangpgx.Postgres{}).Open(e.golangURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	if err := peer.Lock(); err != nil {
		t.Fatal(err)
	}
	m := e.open(files("1_a.up", "create table a ();"), func(o *migrate.Options) { o.LockWait = -1 })
	if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); !errors.Is(err, migrate.ErrLocked) || e.exists("a") {
		t.Errorf("while golang-migrate holds the lock: %v", err)
	}
	if err := peer.Unlock(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); err != nil {
		t.Error(err)
	}
}

// testGolangMigrate goes there and back: each tool goes on where the other stopped.
func testGolangMigrate(t *testing.T, e *env) {
	all := map[string]string{
		"1_a.up.sql": "create table a ();", "1_a.down.sql": "drop table a;",
		"2_b.up.sql": "create table b ();", "2_b.down.sql": "drop table b;",
		"3_c.up.sql": "create index concurrently c on a ((1));", "3_c.down.sql": "drop index c;",
		"4_d.up.sql": "create table d ();", "4_d.down.sql": "drop table d;",
	}
	var pairs []string
	for name, text := range all {
		pairs = append(pairs, strings.TrimSuffix(name, ".sql"), text)
	}
	m := e.open(files(pairs...))
	peer := e.golangMigrate(all)
	if err := peer.Migrate(2); err != nil {
		t.Fatal(err)
	}
	plan, err := m.Plan(e.ctx(), migrate.PlanOptions{})
	if err != nil || !plan.Adopt || len(plan.Files) != 2 {
		t.Fatalf("%v, %v", plan, err)
	}
	three := int64(3)
	if r, err := m.Apply(e.ctx(), migrate.ApplyOptions{To: &three}); err != nil || r.Version != 3 {
		t.Fatalf("%+v, %v", r, err)
	}
	if v, dirty, err := peer.Version(); v != 3 || dirty || err != nil {
		t.Errorf("golang-migrate sees %d, %t, %v", v, dirty, err)
	}
	if err := peer.Up(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Plan(e.ctx(), migrate.PlanOptions{}); !errors.Is(err, migrate.ErrMismatch) {
		t.Errorf("another tool has migrated: %v", err)
	}
	rep, err := m.Repair(e.ctx(), migrate.RepairOptions{Execute: true, Resolve: migrate.ResolveVersionTable})
	if err != nil || len(rep.Items) != 2 || rep.Items[0].Kind != "versions" || !rep.Items[0].Executed || rep.Items[1].Kind != "drift" {
		t.Fatalf("repair: %+v, %v", rep, err)
	}
	if r, err := m.Down(e.ctx(), migrate.ApplyOptions{AllowDestructive: true}); err != nil || r.Version != 3 || e.exists("d") {
		t.Errorf("down: %+v, %v", r, err)
	}
	if v, dirty, err := peer.Version(); v != 3 || dirty || err != nil {
		t.Errorf("golang-migrate sees %d, %t, %v", v, dirty, err)
	}
}

// testGolangMigrateDirty: golang-migrate's failed concurrent index is repaired by looking at the catalogs.
func testGolangMigrateDirty(t *testing.T, e *env) {
	e.exec("create table a (i int); insert into a values (1), (1)")
	src := map[string]string{"1_x.up.sql": "create table x ();", "2_u.up.sql": "create unique index concurrently a_u on a (i);"}
	if err := e.golangMigrate(src).Up(); err == nil || e.version() != "2 true" || !e.exists("a_u") {
		t.Fatalf("golang-migrate: %v, version %s", err, e.version())
	}
	m := e.open(files("1_x.up", src["1_x.up.sql"], "2_u.up", src["2_u.up.sql"]))
	if _, err := m.Plan(e.ctx(), migrate.PlanOptions{}); !errors.Is(err, migrate.ErrDirty) {
		t.Errorf("plan: %v", err)
	}
	rep, err := m.Repair(e.ctx(), migrate.RepairOptions{Execute: true})
	if err != nil || len(rep.Items) != 1 || rep.Items[0].Outcome != "leftover" || !rep.Items[0].Executed {
		t.Fatalf("repair: %+v, %v", rep, err)
	}
	if e.exists("a_u") || e.version() != "1 false" {
		t.Errorf("version %s", e.version())
	}
	e.exec("truncate a")
	if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); err != nil || e.version() != "2 false" {
		t.Errorf("apply: %v", err)
	}
}

// testPooler: a proxy in front of the real server that does what PgBouncer does at login: the process number that it
// tells the client is its own.
func testPooler(t *testing.T, e *env) {
	cfg := e.cfg
	cfg.Pooler = true
	if _, err := migrate.Open(e.ctx(), migrate.Options{Source: files(), Config: cfg}); !errors.Is(err, dbcore.ErrPooler) {
		t.Errorf("a configured pooler: %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-done })
	go func() {
		defer close(done)
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			pool(client, "127.0.0.1:"+strconv.Itoa(e.s.Port))
		}
	}()
	m := e.open(files("1_a.up", "create table a ();"), func(o *migrate.Options) {
		o.Config, err = dbcore.ParseDSN("postgres://postgres@" + listener.Addr().String() + "/" + e.db + "?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
	})
	if _, err := m.Apply(e.ctx(), migrate.ApplyOptions{}); !errors.Is(err, dbcore.ErrPooler) || e.exists("a") || e.exists("schema_migrations") {
		t.Errorf("error %v", err)
	}
	if r := e.check(m, migrate.CheckOptions{}); r.Verdict != migrate.Fail || !strings.HasPrefix(item(r, "server"), "FAIL") {
		t.Errorf("check: %+v", r.Items)
	}
}

// pool copies both ways, and changes BackendKeyData ('K': length, process, key).
func pool(client net.Conn, addr string) {
	defer client.Close()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		server.Close()
	}()
	head := make([]byte, 5)
	for {
		if _, err := io.ReadFull(server, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}
		if head[0] == 'K' {
			binary.BigEndian.PutUint32(body, 4711)
		}
		if _, err := client.Write(append(head, body...)); err != nil {
			return
		}
	}
}
