// Package devtest tests the development server from outside, as the programs
// that start it do: over its command line and with the Go SDK. It is a package
// of its own so that it compiles without the 1800 packages of the server.
package devtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
)

// binary is the path of the server under test.
var binary string

func TestMain(m *testing.M) {
	var err error
	if binary, err = findBinary(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// findBinary takes the program that TEMPORAL_DEV_SERVER names, or builds the
// server of this checkout.
func findBinary() (string, error) {
	if path := os.Getenv("TEMPORAL_DEV_SERVER"); path != "" {
		return path, nil
	}
	script, err := filepath.Abs("../temporal-server.sh")
	if err != nil {
		return "", err
	}
	cmd := exec.Command(script, "--own")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s --own: %w", script, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// process is a running server that the test may kill.
type process struct {
	cmd    *exec.Cmd
	addr   string
	stdout *lockedBuffer
	stderr *lockedBuffer
	done   chan struct{} // closed when it has ended
}

// launch starts the server and returns when it has announced itself.
func launch(t *testing.T, port string, args ...string) *process {
	t.Helper()
	p := spawn(t, append([]string{"server", "start-dev", "--port", port}, args...)...)
	p.addr = net.JoinHostPort("127.0.0.1", port)
	waitFor(t, 30*time.Second, "the server to be ready", func() error {
		select {
		case <-p.done:
			t.Fatalf("server ended: %s", p.stderr)
		default:
		}
		if !strings.Contains(p.stdout.String(), "Temporal Server:") {
			return errors.New("it has announced nothing")
		}
		return nil
	})
	return p
}

// spawn starts the program with any arguments.
func spawn(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{stdout: &lockedBuffer{}, stderr: &lockedBuffer{}, done: make(chan struct{})}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Stdout, p.cmd.Stderr = p.stdout, p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the exit code is in ProcessState
	}()
	t.Cleanup(func() { p.signal(t, syscall.SIGKILL) })
	return p
}

// signal sends the signal and waits for the end; it returns how long that took.
func (p *process) signal(t *testing.T, sig syscall.Signal) time.Duration {
	t.Helper()
	begun := time.Now()
	_ = p.cmd.Process.Signal(sig) // it may have ended
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		t.Fatalf("server does not end after %v", sig)
	}
	return time.Since(begun)
}

func (p *process) dial(t *testing.T) client.Client {
	t.Helper()
	c, err := client.DialContext(t.Context(), client.Options{HostPort: p.addr, Logger: quietLogger{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// freePort is a port on which nobody listens now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// waitFor calls f until it succeeds.
func waitFor(t *testing.T, limit time.Duration, what string, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waited %v for %s: %v", limit, what, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// lockedBuffer can be read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*lockedBuffer)(nil)

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// quietLogger drops what the SDK says about servers that we kill.
type quietLogger struct{}

var _ sdklog.Logger = quietLogger{}

func (quietLogger) Debug(string, ...any) {}
func (quietLogger) Info(string, ...any)  {}
func (quietLogger) Warn(string, ...any)  {}
func (quietLogger) Error(string, ...any) {}
