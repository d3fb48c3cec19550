package basebackup_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
)

// TestTakeLocal_RestoresUnderLoad backs up while rows and tables come and go, on 15 and 17, and restores twice: to the
// earliest consistent moment, where an invariant of all transactions holds, and to the latest, where every row is as on
// the source.
func TestTakeLocal_RestoresUnderLoad(t *testing.T) {
	for _, major := range []int{15, 17} {
		t.Run(fmt.Sprintf("pg%d", major), func(t *testing.T) {
			b := newBench(t, pgtest.Options{
				Major: major, Checksums: true, Tablespaces: []string{"one"},
				Settings: map[string]string{"shared_buffers": "1MB", "bgwriter_delay": "10ms"},
			})
			b.accounts(t)
			opts := b.localOptions(t)
			slow := false
			opts.Progress = func(p basebackup.Progress) {
				if p.Phase == "copy" && !slow { // the load shall meet the copy
					slow = true
					<-time.After(300 * time.Millisecond)
				}
			}
			stop := b.load(t)
			m, err := b.take(t, opts)
			rounds := stop()
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d rounds of load", rounds)
			if rounds < 3 {
				t.Errorf("only %d rounds of load", rounds)
			}
			truth := b.SQL(t, hashes)
			b.waitForFrontier(t)

			immediate := b.recovered(t, m, recovery.Target{Kind: recovery.Immediate})
			if got := ask(t, immediate, "select sum(balance)::text || ' ' || count(*)::text from accounts"); got != "0 20000" {
				t.Errorf("at the earliest consistent moment the sum of all balances and their number are %s", got)
			}
			latest := b.recovered(t, m, recovery.Target{Kind: recovery.Latest})
			if got := ask(t, latest, hashes); got != truth {
				t.Errorf("restored:\n%s\nsource:\n%s", got, truth)
			}
			if got := ask(t, latest, "select count(*)::text from unlogged_one"); got != "0" {
				t.Errorf("the unlogged table has %s rows after the restore", got)
			}
		})
	}
}

// hashes are of all rows of all tables that survive a crash, and of all large objects.
const hashes = `
	select string_agg(t || ' ' || h, E'\n' order by t) from (
		select 'accounts' t, md5(string_agg(a::text, ',' order by id)) h from accounts a union all
		select 'journal', md5(string_agg(j::text, ',' order by id)) from journal j union all
		select 'shrinking', coalesce(md5(string_agg(s::text, ',' order by g)), 'empty') from shrinking s union all
		select 'tables', md5(string_agg(relname, ',' order by relname)) from pg_class where relname like 'short_%' union all
		select 'large objects', md5(string_agg(md5(lo_get(oid)), ',' order by oid)) from pg_largeobject_metadata) x`

func (b *bench) accounts(t *testing.T) {
	t.Helper()
	b.Exec(t, `create table accounts (id int primary key, balance bigint not null, filler text) tablespace one;
		insert into accounts select g, 0, repeat(md5(g::text), 3) from generate_series(1, 20000) g;
		create table journal (id bigserial primary key, a int, b int, amount int);
		create table shrinking (g int, filler text) tablespace one;
		create unlogged table unlogged_one tablespace one as select generate_series(1, 1000) g`)
}

// load changes everything in the background; stop ends it and tells how many rounds there were.
func (b *bench) load(t *testing.T) (stop func() int) {
	t.Helper()
	conn, err := dbcore.Connect(t.Context(), config(t, b.DSN("")))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		defer conn.Close()
		rounds := 0
		for ctx.Err() == nil {
			n := rounds
			for _, sql := range []string{
				fmt.Sprintf(`with m as (select 1 + (g * 7919 + %d) %% 10000 a, 10001 + (g * 104729 + %d) %% 10000 b, g %% 50 n from generate_series(1, 200) g),
					x as (select a, sum(n) n from m group by a), y as (select b, sum(n) n from m group by b),
					u as (update accounts set balance = balance - n from x where id = a),
					v as (update accounts set balance = balance + n from y where id = b)
					insert into journal (a, b, amount) select a, b, n from m`, n, n),
				fmt.Sprintf("insert into shrinking select g, repeat('x', 500) from generate_series(%d, %d) g", n, n+3000),
				fmt.Sprintf("delete from shrinking where g > %d", n+5),
				"vacuum (truncate) shrinking",
				fmt.Sprintf("create table short_%d tablespace one as select generate_series(1, 2000) g", n),
				fmt.Sprintf("drop table if exists short_%d", max(0, n-2)),
				"create temp table if not exists tmp (g int); insert into tmp select generate_series(1, 1000)",
				"select lo_from_bytea(0, decode(repeat('ab', 5000), 'hex'))",
			} {
				if _, err := conn.Exec(context.WithoutCancel(ctx), sql); err != nil {
					t.Errorf("load: %s: %v", sql, err)
					done <- rounds
					return
				}
			}
			rounds++
		}
		done <- rounds
	}()
	return func() int { cancel(); return <-done }
}

// waitForFrontier ends the present segment and waits until the repository has it.
func (b *bench) waitForFrontier(t *testing.T) {
	t.Helper()
	b.Exec(t, "create table last ()")
	name := b.SQL(t, "select pg_walfile_name(pg_switch_wal())")
	pgtest.Eventually(t, name+" is archived", func() bool {
		_, err := b.repo.WALHeader(context.Background(), "c1", name)
		return err == nil
	})
}

// recovered restores a backup and starts the server.
func (b *bench) recovered(t *testing.T, m *repo.Manifest, target recovery.Target) *recovery.Server {
	t.Helper()
	plan, err := recovery.MakePlan(t.Context(), recovery.PlanOptions{
		Repo: b.repo, Cluster: "c1", Backup: m.BackupID, TargetDir: filepath.Join(pgtest.TempDir(t), "restored"), Target: target,
	})
	if err != nil {
		t.Fatal(err)
	}
	b.lay(t, plan)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := recovery.Start(ctx, plan, recovery.StartOptions{SocketOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Instance.Stop(context.Background(), pginstance.Immediate) })
	return s
}

func ask(t *testing.T, s *recovery.Server, sql string) string {
	t.Helper()
	conn, err := dbcore.Connect(t.Context(), config(t, s.Instance.ConnString("postgres", "postgres")))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	v, err := dbcore.One[string](t.Context(), conn, sql)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestTakeLocal_FilesShrinkAndVanish cuts a file short while it is read, and removes others that were seen and not read.
// The backup is whole all the same: what is missing comes by replay.
func TestTakeLocal_FilesShrinkAndVanish(t *testing.T) {
	b := newBench(t, pgtest.Options{})
	b.ballast(t, 1)
	for i := range 5 {
		b.write(t, filepath.Join(b.DataDir, fmt.Sprintf("zvanishes%d", i)), "x")
	}
	opts := b.localOptions(t)
	opts.Compression = repo.NoCompression
	g, second := newGate(), newGate()
	b.store.Add(g.at("/data/"), second.at("/data/"))
	ended := b.background(t, opts)
	g.wait(t)
	second.wait(t) // two packs wait, so that the reading of ballast0 does, too
	const left = 40 << 20
	if err := os.Truncate(filepath.Join(b.DataDir, "ballast0"), left); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if err := os.Remove(filepath.Join(b.DataDir, fmt.Sprintf("zvanishes%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	close(g.open)
	close(second.open)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	manifests, _ := b.visible(t)
	entries := b.entries(t, manifests[0])
	if got := entries["ballast0"].Size; got != left {
		t.Errorf("the file that shrank has %d bytes in the backup, want %d", got, left)
	}
	for name := range entries {
		if strings.HasPrefix(name, "zvanishes") {
			t.Errorf("%s is in the backup", name)
		}
	}
	b.verifies(t, manifests[0])
}
