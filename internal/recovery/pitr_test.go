package recovery_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/blob/fs"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
)

func TestMain(m *testing.M) {
	syscall.Umask(0) // the server's user and this one share a repository
	for name, child := range map[string]func(string) error{"LIFEBOAT_TEST_LAY": layChild, "LIFEBOAT_TEST_START": startChild} {
		if spec := os.Getenv(name); spec != "" { // this process is the child of a test
			if err := child(spec); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	os.Exit(pgtest.Main(m))
}

// bench is a protected server that archives into a repository by the real programs.
type bench struct {
	*pgtest.Server
	repo     *repo.Repository
	repoDir  string
	lifeboat string
}

func newBench(t *testing.T, major int, tablespaces ...string) *bench {
	t.Helper()
	return newBenchOf(t, pgtest.Options{
		Major: major, Checksums: true, OwnIdentity: true,
		Settings: map[string]string{"track_commit_timestamp": "on"}, Tablespaces: tablespaces,
	})
}

// newBenchWith is newBench for a server with these options and settings besides its own.
func newBenchWith(t *testing.T, opts pgtest.Options) *bench {
	t.Helper()
	settings := map[string]string{"track_commit_timestamp": "on"}
	maps.Copy(settings, opts.Settings)
	opts.Checksums, opts.OwnIdentity, opts.Settings = true, true, settings
	return newBenchOf(t, opts)
}

func newBenchOf(t *testing.T, opt pgtest.Options) *bench {
	t.Helper()
	b := newRepository(t)
	opt.Archive = func(s *pgtest.Server) string { return b.archiveCommand(t, s.SocketDir) }
	b.Server = pgtest.New(t, opt)
	return b
}

// newRepository is a bench without a server.
func newRepository(t *testing.T) *bench {
	t.Helper()
	b := &bench{lifeboat: pgtest.Build(t, "lifeboat/cmd/starter"), repoDir: filepath.Join(pgtest.TempDir(t), "repo")}
	// The server's user and this one share the repository.
	store, err := fs.Open(b.repoDir, fs.Options{Create: true, DirMode: 0o777, FileMode: 0o666})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(b.repoDir, 0o777); err != nil {
		t.Fatal(err)
	}
	if b.repo, err = repo.OpenOrCreate(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	return b
}

// archiveCommand is that of the server whose socket stands in a directory.
func (b *bench) archiveCommand(t *testing.T, socketDir string) string {
	t.Helper()
	config := filepath.Join(pgtest.TempDir(t), "lifeboat.yaml")
	yaml := fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s\"}}\nclusters: {c1: {dsn: \"host=%s\"}}\n", b.repoDir, socketDir)
	if err := os.WriteFile(config, []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s wal-push %%p --cluster c1 --config %s", b.lifeboat, config)
}

func (b *bench) backup(t *testing.T) *repo.Manifest {
	t.Helper()
	cfg, err := dbcore.ParseDSN(b.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	return b.backupOf(t, cfg)
}

func (b *bench) backupOf(t *testing.T, cfg dbcore.Config) *repo.Manifest {
	t.Helper()
	m, err := basebackup.Take(t.Context(), basebackup.Options{
		Repo: b.repo, Cluster: "c1", Server: cfg, WorkflowID: t.Name(),
		Host: "test", Program: "test", Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// restore recovers to a target in a new place, and stops the server when the test ends.
func (b *bench) restore(t *testing.T, target recovery.Target) (*recovery.Plan, *recovery.Server) {
	t.Helper()
	return b.restoreBy(t, recovery.PlanOptions{Target: target})
}

func (b *bench) restoreBy(t *testing.T, opts recovery.PlanOptions) (*recovery.Plan, *recovery.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	p := b.plan(t, opts)
	if _, err := recovery.Lay(ctx, p, b.lay()); err != nil {
		t.Fatal(err)
	}
	return p, b.start(t, p)
}

// plan plans into a new place, unless opts name one.
func (b *bench) plan(t *testing.T, opts recovery.PlanOptions) *recovery.Plan {
	t.Helper()
	opts.Repo, opts.Cluster = b.repo, "c1"
	if opts.TargetDir == "" {
		opts.TargetDir = filepath.Join(pgtest.TempDir(t), "restored")
	}
	p, err := recovery.MakePlan(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (b *bench) lay() recovery.LayOptions {
	return recovery.LayOptions{Repo: b.repo, FetchCommand: []string{b.lifeboat, "--repository", "file://" + b.repoDir}}
}

func (b *bench) start(t *testing.T, p *recovery.Plan) *recovery.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := recovery.Start(ctx, p, recovery.StartOptions{SocketOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Instance.Stop(context.Background(), pginstance.Immediate) })
	return s
}

func query(t *testing.T, s *recovery.Server, sql string) string {
	t.Helper()
	cfg, err := dbcore.ParseDSN(s.Instance.ConnString("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dbcore.Connect(t.Context(), cfg)
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

// TestRestore_RandomTimesAreExact compares restored rows with the source's own commit timestamps (R19).
func TestRestore_RandomTimesAreExact(t *testing.T) {
	b := newBench(t, 0)
	b.Exec(t, "create table ledger (id int primary key, filler text)")
	b.Exec(t, "create table noise as select g as id, repeat(md5(g::text), 10) as filler from generate_series(1, 20000) g")
	done := make(chan struct{})
	conn := b.DB(t, "postgres")
	go func() {
		defer close(done)
		for i := range 400 {
			if _, err := conn.Exec(context.Background(), "insert into ledger values ($1, repeat('x', 500))", i); err != nil {
				t.Error(err)
				return
			}
			if i%10 == 0 {
				_, _ = conn.Exec(context.Background(), "update noise set filler = filler || 'y' where id % 97 = $1", i%97)
			}
			<-time.After(5 * time.Millisecond)
		}
	}()
	m := b.backup(t)
	<-done
	b.Exec(t, "create table later ()")
	truth := pgtest.Collect[struct {
		ID int
		At time.Time
	}](t, b.Server, "select id, pg_xact_commit_timestamp(xmin) as at from ledger order by 2")
	waitForFrontier(t, b)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 7))
	var after []int // positions of commits that the backup's end precedes
	for i, r := range truth {
		if r.At.After(m.FinishedAt) {
			after = append(after, i)
		}
	}
	if len(after) < 50 {
		t.Fatalf("only %d of %d commits came after the backup", len(after), len(truth))
	}
	for n := range 5 {
		i := after[rng.IntN(len(after)-1)]
		gap := truth[i+1].At.Sub(truth[i].At)
		target := truth[i].At.Add(time.Duration(rng.Int64N(int64(gap)))).Truncate(time.Microsecond)
		if n == 0 {
			target = truth[i].At // exactly at a commit: inclusive
		}
		t.Run(fmt.Sprintf("%d", n), func(t *testing.T) {
			begin := time.Now()
			p, s := b.restore(t, recovery.Target{Kind: recovery.Time, Value: target.Format(time.RFC3339Nano)})
			var want []string
			for _, r := range truth {
				if !r.At.After(target) {
					want = append(want, fmt.Sprint(r.ID))
				}
			}
			got := query(t, s, "select coalesce(string_agg(id::text, ',' order by id), '') from ledger")
			if got != strings.Join(want, ",") {
				t.Errorf("target %v: restored %d rows, want %d", target, strings.Count(got, ",")+1, len(want))
			}
			t.Logf("target %v: %d rows, replay %v, ready %v, all %v; %s", target, len(want), s.Replay, s.Ready, time.Since(begin), p.Summary())
		})
	}
}

// waitForFrontier ends the present segment and waits until the repository has it.
func waitForFrontier(t *testing.T, b *bench) {
	t.Helper()
	want := b.SQL(t, "select pg_walfile_name(pg_switch_wal())")
	for range 600 {
		last := ""
		for name, err := range b.repo.WALNames(t.Context(), "c1", 0, "") {
			if err != nil {
				t.Fatal(err)
			}
			last = name
		}
		if last >= want {
			return
		}
		<-time.After(50 * time.Millisecond)
	}
	t.Fatalf("WAL %s was not archived", want)
}
