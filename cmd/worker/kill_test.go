package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"

	"lifeboat/dbcore"
	"lifeboat/internal/contract"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

// stack is a protected server, Temporal, and a place for workers, which run as the server's user.
type stack struct {
	*pgtest.Server
	dir      string
	config   string
	bin      string
	temporal *testsuite.DevServer
	address  string
}

func newStack(t *testing.T, settings map[string]string) *stack {
	t.Helper()
	server, address := startTemporal(t)
	return stackOn(t, server, address, pgtest.Options{Settings: settings})
}

// programs builds both programs where the server's user can run them.
func programs(t *testing.T) string {
	t.Helper()
	bin := pgtest.TempDir(t)
	for name, pkg := range map[string]string{"lifeboat": "lifeboat/cmd/starter", "lifeboat-worker": "lifeboat/cmd/worker"} {
		copyFile(t, pgtest.Build(t, pkg), filepath.Join(bin, name))
	}
	return bin
}

func stackOn(t *testing.T, server *testsuite.DevServer, address string, opts pgtest.Options) *stack {
	t.Helper()
	s := &stack{dir: pgtest.TempDir(t), bin: programs(t), temporal: server, address: address}
	s.config = filepath.Join(s.dir, "lifeboat.yaml")
	opts.Checksums, opts.OwnIdentity = true, true
	opts.Archive = func(p *pgtest.Server) string {
		if err := os.WriteFile(s.config, []byte(s.yaml(p.SocketDir)), 0o644); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("KILLTEST_PORT=1 %s/lifeboat wal-push %%p --cluster c1 --config %s", s.bin, s.config)
	}
	s.Server = pgtest.New(t, opts)
	return s
}

// yaml is the configuration; the port, which is not known when it is written, comes by the environment.
func (s *stack) yaml(socketDir string) string {
	return fmt.Sprintf("version: 1\nrepositories: {main: {url: \"file://%s/repo\"}}\nclusters: {c1: {dsn: \"host=%s user=postgres dbname=postgres port=%s\"}}\n",
		s.dir, socketDir, "${KILLTEST_PORT}")
}

// startTemporal starts the development server on a free port.
func startTemporal(t *testing.T) (server *testsuite.DevServer, address string) {
	t.Helper()
	path := os.Getenv("TEMPORAL_DEV_SERVER")
	if path == "" {
		t.Skip("TEMPORAL_DEV_SERVER is not set: `make test` sets it")
	}
	port, err := pginstance.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	address = fmt.Sprintf("127.0.0.1:%d", port)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	server, err = testsuite.StartDevServer(ctx, testsuite.DevServerOptions{
		ExistingPath: path, LogLevel: "error",
		ClientOptions: &client.Options{HostPort: address, Logger: quiet{}}, Stdout: io.Discard, Stderr: io.Discard,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Client().Close()
		_ = server.Stop()
	})
	return server, address
}

// quiet drops the SDK's messages.
type quiet struct{}

func (quiet) Debug(string, ...any)     {}
func (quiet) Info(string, ...any)      {}
func (quiet) Warn(string, ...any)      {}
func (quiet) Error(string, ...any)     {}
func (q quiet) With(...any) log.Logger { return q }

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// worker starts a worker process and waits until it polls.
func (s *stack) worker(t *testing.T, name string) *exec.Cmd {
	t.Helper()
	logFile := filepath.Join(s.dir, name+".log")
	out, err := os.Create(logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(s.bin, "lifeboat-worker"), "--config", s.config, "--host", "h1", "--work-dir", filepath.Join(s.dir, "work"))
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", out, out
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TEMPORAL_ADDRESS=" + s.address, fmt.Sprintf("KILLTEST_PORT=%d", s.Port), "HOME=/"}
	cmd.SysProcAttr = pgtest.Owner(t).SysProcAttr()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			data, _ := os.ReadFile(logFile)
			t.Logf("%s:\n%s", name, data)
		}
	})
	waitFor(t, name+" is ready", func() bool {
		data, err := os.ReadFile(logFile)
		return err == nil && len(data) > 0 && contains(string(data), "worker ready")
	})
	return cmd
}

func contains(s, sub string) bool {
	for i := 0; i+len(sub) <= len(s); i++ {
		if s[i:i+len(sub)] == sub {
			return true
		}
	}
	return false
}

func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func count(pattern string) int {
	found, _ := filepath.Glob(pattern)
	return len(found)
}

// start begins a workflow.
func (s *stack) start(t *testing.T, workflow string, in any) client.WorkflowRun {
	t.Helper()
	run, err := s.temporal.Client().ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		ID: "test-" + workflow, TaskQueue: contract.DefaultTaskQueue,
	}, workflow, in)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// digest sums up every row of the two tables.
const digest = `select (select count(*) || '/' || sum(hashtextextended(b::text, 0)::numeric) from bulk b) || ' ' ||
	(select count(*) || '/' || coalesce(sum(hashtextextended(s::text, 0)::numeric), 0) from small s)`

// TestKill_BackupAndRestore_AnotherWorkerFinishes kills the only worker with -9 while it takes a backup, and again
// while it restores it; each time another worker finishes, and the data equals the source.
func TestKill_BackupAndRestore_AnotherWorkerFinishes(t *testing.T) {
	s := newStack(t, nil)
	s.Exec(t, "create table bulk (id int, v float8[])")
	s.Exec(t, "alter table bulk alter v set storage external")
	s.Exec(t, "insert into bulk select g, array(select random() + g * 0 from generate_series(1, 1000)) from generate_series(1, 25000) g")
	s.Exec(t, "create table small as select g as id, md5(g::text) as t from generate_series(1, 5000) g")

	victim := s.worker(t, "worker-1")
	run := s.start(t, contract.BackupWorkflow, contract.BackupInput{Cluster: "c1"})
	waitFor(t, "packs of the backup", func() bool { return count(s.dir+"/repo/clusters/c1/data/*/*") >= 3 })
	kill(t, victim)
	if count(s.dir+"/repo/clusters/c1/backups/*") != 0 {
		t.Fatal("the backup had finished before it was killed")
	}
	killed := time.Now()
	victim = s.worker(t, "worker-2")
	var backup contract.BackupResult
	if err := run.Get(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	t.Logf("killed the backup after %d packs; another finished %v later: %s", 3, time.Since(killed).Round(time.Second), backup.BackupID)
	if n := count(s.dir + "/repo/clusters/c1/backups/*"); n != 1 {
		t.Errorf("%d backups are visible, want 1", n)
	}

	// The truth changes after the backup, so that replay counts too.
	s.Exec(t, "update small set t = t || 'x' where id % 3 = 0")
	s.Exec(t, "delete from bulk where id % 1000 = 0")
	want := s.SQL(t, digest)
	segment := s.SQL(t, "select pg_walfile_name(pg_switch_wal())")
	waitFor(t, "the last WAL", func() bool { return count(s.dir+"/repo/clusters/c1/wal/segments/*/"+segment) == 1 })

	target := filepath.Join(s.dir, "restored")
	run = s.start(t, contract.RestoreWorkflow, contract.RestoreInput{Cluster: "c1", Host: "h1", TargetDir: target, Start: true})
	waitFor(t, "files of the restore", func() bool { return count(target+"/base/*/*") > 600 })
	kill(t, victim)
	if count(target+"/global/pg_control") != 0 {
		t.Fatal("the files were laid before the worker was killed")
	}
	killed = time.Now()
	s.worker(t, "worker-3")
	var restored contract.RestoreResult
	if err := run.Get(t.Context(), &restored); err != nil {
		t.Fatal(err)
	}
	t.Logf("killed the restore while it laid files; another finished %v later, %.1f of %.1f MB reused",
		time.Since(killed).Round(time.Second), float64(restored.ReusedBytes)/1e6, float64(restored.Bytes)/1e6)
	if restored.ReusedBytes == 0 {
		t.Error("nothing that was laid was kept")
	}
	in, err := pginstance.Attach(target, pginstance.AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Stop(context.Background(), pginstance.Immediate) })
	if got := ask(t, in, digest); got != want {
		t.Errorf("restored rows %s, want %s", got, want)
	}
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

func ask(t *testing.T, in *pginstance.Instance, sql string) string {
	t.Helper()
	cfg, err := dbcore.ParseDSN(in.ConnString("", ""))
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
