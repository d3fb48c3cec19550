package walrecord

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/pg"
)

// A small harness for real servers: initdb, start, stop, run a tool. It needs no
// network port, only a socket in a folder of its own.

// binDir finds the programs of one major version, or skips the test in plain sight.
func binDir(t testing.TB, major int) string {
	t.Helper()
	patterns := filepath.SplitList(os.Getenv("LIFEBOAT_TEST_PG_BIN"))
	m := strconv.Itoa(major)
	patterns = append(patterns, "/usr/lib/postgresql/"+m+"/bin", "/usr/pgsql-"+m+"/bin", "/opt/pg/"+m+"/usr/lib/postgresql/"+m+"/bin")
	for _, p := range patterns {
		out, err := exec.Command(filepath.Join(p, "postgres"), "-V").Output()
		if err == nil && strings.Contains(string(out), ") "+m+".") {
			return p
		}
	}
	t.Skipf("PostgreSQL %d is not installed: nothing was checked against it", major)
	return ""
}

type cluster struct {
	t    testing.TB
	bin  string
	root string // holds data and the socket
	data string
	cred *syscall.Credential
	stop func(syscall.Signal)
}

// newCluster runs initdb; the folder goes away with the test.
func newCluster(t testing.TB, major int, initArgs ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, bin: binDir(t, major)}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Skipf("running as root without a user postgres: %v", err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		c.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	root, err := os.MkdirTemp("/tmp", "lbpg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	c.root, c.data = root, filepath.Join(root, "data")
	if c.cred != nil {
		if err := os.Chown(root, int(c.cred.Uid), int(c.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	args := append([]string{"-D", c.data, "-U", "postgres", "-A", "trust", "--locale=C.UTF-8", "--no-sync"}, initArgs...)
	c.run("initdb", args...)
	return c
}

func (c *cluster) command(ctx context.Context, tool string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, tool), args...)
	cmd.Dir = c.root
	cmd.Env = []string{"PATH=" + c.bin + ":/usr/bin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC", "PGTZ=UTC", "HOME=" + c.root}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.cred, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a program of the server's version and returns what it printed.
func (c *cluster) run(tool string, args ...string) string {
	c.t.Helper()
	out, err := c.try(tool, args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c *cluster) try(tool string, args ...string) (string, error) {
	runtime.LockOSThread() // Pdeathsig follows the thread
	defer runtime.UnlockOSThread()
	cmd := c.command(context.Background(), tool, args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", tool, err, errOut.String())
	}
	return string(out), nil
}

// start starts the server with settings ("name=value") and waits until it answers.
func (c *cluster) start(settings ...string) {
	c.t.Helper()
	args := []string{
		"-D", c.data, "-c", "listen_addresses=", "-c", "unix_socket_directories=" + c.root,
		"-c", "fsync=off", "-c", "autovacuum=off",
	}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	cmd := c.command(context.Background(), "postgres", args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	started, done := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		c.t.Fatal(err)
	}
	c.stop = func(sig syscall.Signal) {
		_ = cmd.Process.Signal(sig)
		<-done
		c.stop = func(syscall.Signal) {}
	}
	c.t.Cleanup(func() { c.stop(syscall.SIGQUIT) })
	for range 300 {
		if _, err := c.try("psql", c.psqlArgs("select 1")...); err == nil {
			return
		}
		select {
		case <-done:
			c.t.Fatalf("server ended: %s", log.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	c.t.Fatalf("server does not answer: %s", log.String())
}

func (c *cluster) psqlArgs(sql string) []string {
	return []string{"-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", c.root, "-U", "postgres", "-d", "postgres", "-c", sql}
}

// script runs statements in one session.
func (c *cluster) script(sql string) {
	c.t.Helper()
	path := filepath.Join(c.root, "script.sql")
	if err := os.WriteFile(path, []byte(sql), 0o644); err != nil {
		c.t.Fatal(err)
	}
	args := c.psqlArgs("")
	c.run("psql", append(args[:len(args)-2], "-f", path)...)
}

func (c *cluster) sql(sql string) string {
	c.t.Helper()
	return strings.TrimSpace(c.run("psql", c.psqlArgs(sql)...))
}

// eachMajor runs f once for every supported major version; missing ones show as skips.
func eachMajor(t *testing.T, f func(t *testing.T, major int)) {
	for major := pg.MinMajor; major <= pg.MaxMajor; major++ {
		t.Run(fmt.Sprintf("PostgreSQL%d", major), func(t *testing.T) { f(t, major) })
	}
}
