package verify_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/blob/fs"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
)

func TestMain(m *testing.M) {
	syscall.Umask(0) // the server's user and this one share a repository
	os.Exit(pgtest.Main(m))
}

const cluster = "c1"

// bench is a protected server that archives into a repository by the real program.
type bench struct {
	*pgtest.Server
	repo     *repo.Repository
	dir      string // of the repository
	work     string
	lifeboat string
}

func newBench(t *testing.T, opt pgtest.Options) *bench {
	t.Helper()
	b := &bench{lifeboat: pgtest.Build(t, "lifeboat/cmd/starter"), dir: filepath.Join(pgtest.TempDir(t), "repo"), work: pgtest.TempDir(t)}
	store, err := fs.Open(b.dir, fs.Options{Create: true, DirMode: 0o777, FileMode: 0o666})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(b.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if b.repo, err = repo.OpenOrCreate(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(pgtest.TempDir(t), "lifeboat.yaml")
	opt.OwnIdentity = true
	opt.Archive = func(s *pgtest.Server) string {
		yaml := fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s\"}}\nclusters: {c1: {dsn: \"host=%s\"}}\n", b.dir, s.SocketDir)
		if err := os.WriteFile(config, []byte(yaml), 0o644); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s wal-push %%p --cluster c1 --config %s", b.lifeboat, config)
	}
	b.Server = pgtest.New(t, opt)
	return b
}

func (b *bench) open(t *testing.T) (*repo.Repository, error) {
	t.Helper()
	store, err := fs.Open(b.dir, fs.Options{DirMode: 0o777, FileMode: 0o666})
	if err != nil {
		return nil, err
	}
	return repo.Open(t.Context(), store)
}

// reopen gives the repository as another process sees it: with nothing in memory.
func (b *bench) reopen(t *testing.T) *repo.Repository {
	t.Helper()
	r, err := b.open(t)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (b *bench) backup(t *testing.T) *repo.Manifest {
	t.Helper()
	cfg, err := dbcore.ParseDSN(b.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := basebackup.Take(t.Context(), basebackup.Options{
		Repo: b.repo, Cluster: cluster, Server: cfg, WorkflowID: t.Name(), Host: "test", Program: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// archive ends the present segment and waits until the repository has it.
func (b *bench) archive(t *testing.T) string {
	t.Helper()
	b.Exec(t, "create table if not exists tick ()")
	name := b.SQL(t, "select pg_walfile_name(pg_switch_wal())")
	pgtest.Eventually(t, name+" is archived", func() bool {
		_, err := b.repo.WALHeader(context.Background(), cluster, name)
		return err == nil
	})
	return name
}

func (b *bench) options(t *testing.T, level int) verify.BackupOptions {
	return verify.BackupOptions{
		Repo: b.reopen(t), Cluster: cluster, Level: level, WorkDir: b.work, Fetch: []string{b.lifeboat, "--repository", "file://" + b.dir},
		Seed: 7, Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
}

func (b *bench) verify(t *testing.T, m *repo.Manifest, level int) verify.BackupReport {
	t.Helper()
	opts := b.options(t, level)
	opts.BackupID = m.BackupID
	report, err := verify.Backup(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

func (b *bench) all(t *testing.T, level int) []verify.BackupReport {
	t.Helper()
	reports, err := verify.All(t.Context(), b.options(t, level))
	if err != nil {
		t.Fatal(err)
	}
	return reports
}

// objects lists the files of the repository below a folder of the cluster.
func (b *bench) objects(t *testing.T, folder string) []string {
	t.Helper()
	var keys []string
	for o, err := range b.repo.Objects(t.Context(), cluster) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(o.Key, "clusters/c1/"+folder) {
			keys = append(keys, o.Key)
		}
	}
	if len(keys) == 0 {
		t.Fatalf("no object in %s", folder)
	}
	return keys
}

// remove takes one object away, and puts it back when the test ends.
func (b *bench) remove(t *testing.T, key string) {
	t.Helper()
	path := filepath.Join(b.dir, key)
	if err := os.Rename(path, path+".gone"); err != nil {
		t.Fatal(err)
	}
	aside := filepath.Join(b.work, "aside")
	if err := os.Rename(path+".gone", aside); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Rename(aside, path); err != nil {
			t.Fatal(err)
		}
	})
}

// of finds the report of a backup.
func of(t *testing.T, reports []verify.BackupReport, m *repo.Manifest) *verify.BackupReport {
	t.Helper()
	for _, r := range reports {
		if r.BackupID == m.BackupID {
			return &r
		}
	}
	t.Fatalf("no report of %s: %s", m.BackupID, text(reports...))
	return nil
}

func text(reports ...verify.BackupReport) string {
	var b strings.Builder
	for _, r := range reports {
		fmt.Fprintf(&b, "\n%q: %s, level %d, %q", r.BackupID, r.Outcome(), r.Level(), r.Levels)
		for _, p := range r.Problems {
			fmt.Fprintf(&b, "\n  L%d %s object=%s file=%s block=%d: %s", p.Level, p.Outcome, p.Object, p.File, p.Block, p.Text)
		}
	}
	return b.String()
}

func outcome(reports []verify.BackupReport) verify.Outcome {
	out := verify.Passed
	for _, r := range reports {
		if o := r.Outcome(); o == verify.Failed || out == verify.Passed {
			out = o
		}
	}
	return out
}

func names(reports []verify.BackupReport, key string) bool {
	return slices.ContainsFunc(reports, func(r verify.BackupReport) bool {
		return slices.ContainsFunc(r.Problems, func(p verify.Problem) bool { return p.Object == key })
	})
}
