package basebackup_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/fs"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
)

func TestMain(m *testing.M) {
	syscall.Umask(0) // the server's user and this one share a repository
	if dsn := os.Getenv(childDSN); dsn != "" {
		if os.Getenv(childMemory) != "" {
			os.Exit(memoryChild(dsn, os.Getenv(childRepo), os.Getenv(childDir)))
		}
		if err := takeChild(dsn, os.Getenv(childRepo), os.Getenv(childDir)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := pgtest.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// bench is a protected server that archives by the real program, and its repository, whose faults a test can script:
// the archiving program does not meet them.
type bench struct {
	*pgtest.Server
	repo     *repo.Repository
	store    *fault.Store
	files    blob.Store
	repoDir  string
	lifeboat string
}

func openStore(dir string) (blob.Store, error) {
	return fs.Open(dir, fs.Options{Create: true, DirMode: 0o777, FileMode: 0o666})
}

func newBench(t *testing.T, opt pgtest.Options) *bench {
	t.Helper()
	b := &bench{repoDir: filepath.Join(pgtest.TempDir(t), "repo")}
	var err error
	if b.files, err = openStore(b.repoDir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(b.repoDir, 0o777); err != nil {
		t.Fatal(err)
	}
	b.store = fault.New(b.files)
	if b.repo, err = repo.OpenOrCreate(t.Context(), b.store); err != nil {
		t.Fatal(err)
	}
	b.lifeboat = pgtest.Build(t, "lifeboat/cmd/starter")
	config := filepath.Join(pgtest.TempDir(t), "lifeboat.yaml")
	opt.OwnIdentity = true
	opt.Archive = func(s *pgtest.Server) string {
		yaml := fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s\"}}\nclusters: {c1: {dsn: \"host=%s\"}}\n", b.repoDir, s.SocketDir)
		if err := os.WriteFile(config, []byte(yaml), 0o644); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s wal-push %%p --cluster c1 --config %s", b.lifeboat, config)
	}
	b.Server = pgtest.New(t, opt)
	return b
}

func config(t testing.TB, dsn string) dbcore.Config {
	t.Helper()
	cfg, err := dbcore.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// options are those of a backup of the bench.
func (b *bench) options(t testing.TB) basebackup.Options {
	return basebackup.Options{
		Repo: b.repo, Cluster: "c1", Server: config(t, b.DSN("")), WorkflowID: "w1", Host: "test", Program: "test",
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

func (b *bench) take(t testing.TB, opts basebackup.Options) (*repo.Manifest, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	return basebackup.Take(ctx, opts)
}

// background takes a backup and gives its end.
func (b *bench) background(t testing.TB, opts basebackup.Options) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	go func() {
		defer cancel()
		_, err := basebackup.Take(ctx, opts)
		ended <- err
	}()
	return ended
}

// visible counts what readers can see: backups, and intents.
func (b *bench) visible(t testing.TB) (manifests []*repo.Manifest, intents []repo.Intent) {
	t.Helper()
	clean, err := repo.Open(t.Context(), b.files)
	if err != nil {
		t.Fatal(err)
	}
	if manifests, err = clean.Manifests(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	if intents, err = clean.Intents(t.Context(), "c1"); err != nil {
		t.Fatal(err)
	}
	return manifests, intents
}

// fill makes tables of about 1 MiB each, which do not compress well.
func (b *bench) fill(t testing.TB, tables int) {
	t.Helper()
	for i := range tables {
		b.Exec(t, fmt.Sprintf(`create table t%d as select g, md5(g::text || '%d') || md5('%d' || g::text) as filler from generate_series(1, 10000) g`, i, i, i))
	}
	b.Exec(t, "checkpoint")
}

// gate holds a call until it is opened, or its context ends.
type gate struct{ reached, open chan struct{} }

func newGate() *gate { return &gate{reached: make(chan struct{}), open: make(chan struct{})} }

// at is a rule that holds the first write of a key that contains part.
func (g *gate) at(part string) fault.Rule {
	return fault.Rule{Op: fault.Writes, Key: fault.Contains(part), Do: fault.Before(func(ctx context.Context, _ fault.Call) error {
		close(g.reached)
		select {
		case <-g.open:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})}
}

func (g *gate) wait(t testing.TB) {
	t.Helper()
	select {
	case <-g.reached:
	case <-time.After(time.Minute):
		t.Fatal("the backup did not come to the place")
	}
}

// ballast puts files of 50 MiB that do not compress into the data directory: BASE_BACKUP sends every file there is.
// That is quicker than as many bytes of rows, and without their WAL.
func (b *bench) ballast(t testing.TB, files int) {
	t.Helper()
	block := make([]byte, 50<<20)
	var key [32]byte
	for i := range files {
		key[0] = byte(i)
		_, _ = rand.NewChaCha8(key).Read(block)
		name := filepath.Join(b.DataDir, fmt.Sprintf("ballast%d", i))
		if err := errors.Join(os.WriteFile(name, block, 0o600), pgtest.Owner(t).Chown(name)); err != nil {
			t.Fatal(err)
		}
	}
}
