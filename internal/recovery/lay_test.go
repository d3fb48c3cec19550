package recovery_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fs"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
)

// counting calls a function at each read of an object.
type counting struct {
	blob.Store
	onGet func(key string)
}

func (c *counting) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	c.onGet(key)
	return c.Store.Get(ctx, key, offset, length)
}

func openCounting(ctx context.Context, dir string, onGet func(key string)) (*repo.Repository, error) {
	store, err := fs.Open(dir, fs.Options{})
	if err != nil {
		return nil, err
	}
	return repo.Open(ctx, &counting{store, onGet})
}

// layChild is testLayKilled's other half: it lays a plan and kills itself at the n-th read, or for 0 at the first after
// the configuration was laid, which is that of pg_control. Below 0 it counts the reads of chunks.
func layChild(spec string) error {
	parts := strings.SplitN(spec, ",", 3)
	n, err := strconv.ParseInt(parts[0], 10, 64)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(parts[2])
	if err != nil {
		return err
	}
	var p recovery.Plan
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	var reads, chunks atomic.Int64
	r, err := openCounting(context.Background(), parts[1], func(key string) {
		if strings.HasPrefix(key, "clusters/c1/data/") && chunks.Add(1) == -n {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		_, err := os.Lstat(filepath.Join(p.TargetDir, "postgresql.conf"))
		if reads.Add(1) == n || n == 0 && err == nil {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
	if err != nil {
		return err
	}
	_, err = recovery.Lay(context.Background(), &p, recovery.LayOptions{Repo: r, FetchCommand: []string{"/bin/false"}, Workers: 1})
	return err
}

// layBench has one backup of a cluster with a tablespace, for all tests of Lay and Start.
func layBench(t *testing.T) *bench {
	t.Helper()
	b := newBench(t, 0, "one")
	b.Exec(t, "create table step (id int primary key)")
	b.Exec(t, "create table big tablespace one as select g as id, repeat(md5(g::text), 20) as v from generate_series(1, 5000) g")
	b.backup(t)
	b.Exec(t, "insert into step values (1)")
	b.Exec(t, "insert into step values (2)")
	waitForFrontier(t, b)
	return b
}

func TestLayAndStart(t *testing.T) {
	b := layBench(t)
	for _, sub := range []struct {
		name string
		test func(*testing.T, *bench)
	}{
		{"killed anywhere", testLayKilled},
		{"cancelled anywhere", testLayCancelled},
		{"leftovers", testLayLeftovers},
		{"somebody else's directory", testLayForeign},
		{"locked", testLayLocked},
		{"started again", testStartAgain},
		{"every failure leaves no server", testStartFails},
		{"detached", testStartDetached},
	} {
		t.Run(sub.name, func(t *testing.T) { sub.test(t, b) })
	}
}

// reads counts what a whole Lay reads.
func reads(t *testing.T, b *bench) int64 {
	t.Helper()
	var n atomic.Int64
	r, err := openCounting(t.Context(), b.repoDir, func(string) { n.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	opts := b.lay()
	opts.Repo, opts.Workers = r, 1
	if _, err := recovery.Lay(t.Context(), b.plan(t, recovery.PlanOptions{}), opts); err != nil {
		t.Fatal(err)
	}
	return n.Load()
}

// refusesToStart runs postgres itself on a directory that is half laid (R3).
func refusesToStart(t *testing.T, b *bench, dir string) {
	t.Helper()
	if _, err := os.Lstat(filepath.Join(dir, "global/pg_control")); !errors.Is(err, iofs.ErrNotExist) {
		t.Errorf("global/pg_control is there before the rest is: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), b.Bin.Path("postgres"), "-D", dir, "-c", "listen_addresses=", "-c", "unix_socket_directories="+pgtest.TempDir(t))
	cmd.SysProcAttr = pgtest.Owner(t).SysProcAttr()
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		t.Errorf("postgres started on half a restore: %v\n%s", err, out)
	}
}

// verified runs pg_verifybackup over laid files, and looks at owners and modes.
func verified(t *testing.T, b *bench, p *recovery.Plan) {
	t.Helper()
	if f := verify.Manifest(t.Context(), b.Bin, pgtest.Owner(t), p.TargetDir, p.ChangedFiles()); f.Outcome != verify.Passed {
		t.Errorf("pg_verifybackup: %+v", f)
	}
	err := filepath.WalkDir(p.TargetDir, func(path string, d iofs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; int(uid) != pgtest.Owner(t).UID {
			t.Errorf("%s belongs to user %d", path, uid)
		}
		if info.Mode().Type() != iofs.ModeSymlink && info.Mode().Perm()&0o027 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if strings.Contains(d.Name(), "lifeboat-tmp") {
			t.Errorf("%s was left", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func testLayKilled(t *testing.T, b *bench) {
	total := reads(t, b)
	p := b.plan(t, recovery.PlanOptions{})
	file := planFile(t, p)
	for _, n := range []int64{4, total / 2, 0} {
		layAndKill(t, b, file, n)
		refusesToStart(t, b, p.TargetDir)
		if recovery.CheckLaid(p) == nil {
			t.Error("a killed restore counts as laid")
		}
	}
	res, err := recovery.Lay(t.Context(), p, b.lay())
	if err != nil || res.ReusedBytes < p.Bytes*9/10 {
		t.Errorf("the last attempt reused %d of %d bytes, %v", res.ReusedBytes, p.Bytes, err)
	}
	verified(t, b, p)
}

// planFile writes a plan for a child.
func planFile(t *testing.T, p *recovery.Plan) string {
	t.Helper()
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(pgtest.TempDir(t), "plan.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// layAndKill lays a plan in a child that kills itself on the way, as layChild says.
func layAndKill(t *testing.T, b *bench, file string, n int64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("LIFEBOAT_TEST_LAY=%d,%s,%s", n, b.repoDir, file))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("killed at read %d: %v\n%s", n, err, out)
	}
}

func testLayCancelled(t *testing.T, b *bench) {
	total := reads(t, b)
	for _, n := range []int64{3, total / 2, total} {
		p := b.plan(t, recovery.PlanOptions{})
		before := openFiles(t)
		ctx, cancel := context.WithCancel(t.Context())
		var got atomic.Int64
		r, err := openCounting(ctx, b.repoDir, func(string) {
			if got.Add(1) == n {
				cancel()
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		opts := b.lay()
		opts.Repo = r
		if _, err := recovery.Lay(ctx, p, opts); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at read %d: %v", n, err)
		}
		cancel()
		if after := openFiles(t); after > before {
			t.Errorf("%d files are open that were not before", after-before)
		}
		refusesToStart(t, b, p.TargetDir)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

// testLayLeftovers spoils a half-done restore in every way, and lets it be finished.
func testLayLeftovers(t *testing.T, b *bench) {
	p := b.plan(t, recovery.PlanOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	var got atomic.Int64
	total := reads(t, b)
	r, err := openCounting(ctx, b.repoDir, func(string) {
		if got.Add(1) == total {
			cancel()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	opts := b.lay()
	opts.Repo, opts.Workers = r, 1
	if _, err := recovery.Lay(ctx, p, opts); err == nil {
		t.Fatal("the first attempt was to be cancelled")
	}
	at := func(name string) string { return filepath.Join(p.TargetDir, name) }
	files, err := filepath.Glob(at("base/1/*"))
	if err != nil || len(files) < 20 {
		t.Fatal(files, err)
	}
	slices.SortFunc(files, func(a, b string) int { return int(size(t, b) - size(t, a)) }) // largest first
	outside := pgtest.TempDir(t)
	precious := filepath.Join(outside, "precious")
	links, err := filepath.Glob(at("pg_tblspc/*"))
	if err != nil || len(links) != 1 {
		t.Fatal(links, err)
	}
	do := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	do(os.WriteFile(precious, []byte("precious"), 0o600), os.Mkdir(filepath.Join(outside, "dir"), 0o700))
	flip(t, files[0], 5000)
	do(os.Truncate(files[1], 100))
	do(os.Truncate(files[2], size(t, files[2])+8192))
	do(os.Remove(files[3]), os.Symlink(precious, files[3]))
	do(os.Remove(files[4]), os.Link(precious, files[4]))
	do(os.Remove(files[5]), os.Mkdir(files[5], 0o700))
	do(os.RemoveAll(at("pg_wal")), os.Symlink(filepath.Join(outside, "dir"), at("pg_wal")))
	do(os.Remove(links[0]), os.Symlink(outside, links[0]))
	do(os.WriteFile(at("standby.signal"), nil, 0o600), os.WriteFile(at("postgresql.conf.lifeboat-tmp"), []byte("x"), 0o600))
	do(os.MkdirAll(at("base/99999/deep"), 0o700), os.WriteFile(at("base/99999/deep/1"), []byte("x"), 0o600))
	do(os.Symlink(outside, at("elsewhere")))

	res, err := recovery.Lay(t.Context(), p, b.lay())
	if err != nil {
		t.Fatal(err)
	}
	if res.ReusedBytes == 0 || res.ReusedBytes >= p.Bytes {
		t.Errorf("reused %d of %d bytes", res.ReusedBytes, p.Bytes)
	}
	verified(t, b, p)
	for _, name := range []string{"standby.signal", "base/99999", "elsewhere"} {
		if _, err := os.Lstat(at(name)); !errors.Is(err, iofs.ErrNotExist) {
			t.Errorf("the leftover %s is still there: %v (R3)", name, err)
		}
	}
	if data, err := os.ReadFile(precious); err != nil || string(data) != "precious" {
		t.Errorf("the file outside holds %q, %v", data, err)
	}
	if names, err := os.ReadDir(filepath.Join(outside, "dir")); err != nil || len(names) != 0 {
		t.Errorf("the directory outside holds %v, %v", names, err)
	}
	if got := query(t, b.start(t, p), "select string_agg(id::text, ',' order by id) || (select count(*) from big) from step"); got != "1,25000" {
		t.Errorf("rows %s", got)
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func flip(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], offset)
	b[0] ^= 0x40
	_, werr := f.WriteAt(b[:], offset)
	if err := errors.Join(err, werr); err != nil {
		t.Fatal(err)
	}
}

// testLayForeign: what is not this plan's is refused and stays as it is.
func testLayForeign(t *testing.T, b *bench) {
	other := b.plan(t, recovery.PlanOptions{})
	if _, err := recovery.Lay(t.Context(), other, b.lay()); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		spoil func(dir string) error
		drill string
	}{
		{"another plan's", func(dir string) error { return os.Rename(other.TargetDir, dir) }, ""},
		{"a full one", func(dir string) error { return errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(dir+"/x", 0o755)) }, ""},
		{"one with a marker that nobody wrote", func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(dir+"/"+recovery.MarkerFile, []byte("{}"), 0o644), os.Mkdir(dir+"/x", 0o755))
		}, ""},
		{"one with a marker that leads away", func(dir string) error {
			return errors.Join(os.Mkdir(dir, 0o755), os.Symlink("/etc/hostname", dir+"/"+recovery.MarkerFile))
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := b.plan(t, recovery.PlanOptions{})
			if err := tt.spoil(p.TargetDir); err != nil {
				t.Fatal(err)
			}
			was := tree(t, p.TargetDir)
			_, err := recovery.Lay(t.Context(), p, b.lay())
			if refused := (*recovery.RefusedError)(nil); !errors.As(err, &refused) {
				t.Errorf("error %v", err)
			}
			if now := tree(t, p.TargetDir); now != was {
				t.Errorf("the refusal changed it:\n%s\nwas\n%s", now, was)
			}
		})
	}
}

func testLayLocked(t *testing.T, b *bench) {
	p := b.plan(t, recovery.PlanOptions{})
	inside, tried := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	r, err := openCounting(t.Context(), b.repoDir, func(string) {
		if once.CompareAndSwap(false, true) {
			return // the header of the repository
		}
		select {
		case <-inside:
		default:
			close(inside)
			<-tried
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	opts := b.lay()
	opts.Repo, opts.Workers = r, 1
	ended := make(chan error)
	go func() {
		_, err := recovery.Lay(t.Context(), p, opts)
		ended <- err
	}()
	<-inside
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("given up"))
	if _, err := recovery.Lay(ctx, p, b.lay()); err == nil || !strings.Contains(err.Error(), "given up") {
		t.Errorf("a second attempt beside the first: %v (R21)", err)
	}
	if _, err := recovery.Start(t.Context(), p, recovery.StartOptions{}); err == nil || !strings.Contains(err.Error(), "not finished") {
		t.Errorf("a start beside an attempt to lay: %v", err)
	}
	close(tried)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	verified(t, b, p)
}

func running(t *testing.T, dir string) int {
	t.Helper()
	list, err := pginstance.Running(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
