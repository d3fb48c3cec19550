package devtest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestRefusals lists what must be an error before anything is served.
func TestRefusals(t *testing.T) {
	file, port := filepath.Join(t.TempDir(), "dev.db"), freePort(t)
	launch(t, port, "--headless", "--db-filename", file)
	foreign := filepath.Join(t.TempDir(), "foreign.db")
	if err := os.WriteFile(foreign, []byte("this is no database, whatever its name says"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		args []string
		code int
		text string
	}{
		{"file in use", []string{"--port", freePort(t), "--db-filename", file}, 1, "in use by another server"},
		{"port in use", []string{"--port", port}, 1, "choose another --port"},
		{"no folder", []string{"--port", "0", "--db-filename", filepath.Join(t.TempDir(), "no", "dev.db")}, 1, "no such file or directory"},
		{"not a database", []string{"--port", "0", "--db-filename", foreign}, 1, "file is not a database"},
		{"address of another host", []string{"--ip", "192.0.2.1", "--port", "0"}, 1, "192.0.2.1"},
		{"unknown flag", []string{"--bogus"}, 2, "-bogus"},
		{"unknown type", []string{"--search-attribute", "A=Number"}, 2, "Number"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := spawn(t, append([]string{"server", "start-dev", "--headless"}, tc.args...)...)
			expectEnd(t, p, tc.code, tc.text)
			if out := p.stdout.String(); out != "" {
				t.Errorf("it announced %q", out)
			}
		})
	}
}

// expectEnd waits for the process to end by itself.
func expectEnd(t *testing.T, p *process, code int, text string) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("it still runs; stdout %q, stderr %q", p.stdout, p.stderr)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		t.Errorf("exit code %d, want %d", got, code)
	}
	if got := p.stderr.String(); !strings.Contains(got, text) {
		t.Errorf("stderr %q does not contain %q", got, text)
	}
}

// TestListensOnLoopbackOnly looks at every socket of the process.
func TestListensOnLoopbackOnly(t *testing.T) {
	p := launch(t, freePort(t), "--metrics-port", freePort(t))
	sockets, err := listening(p.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if len(sockets) < 7 { // four services, HTTP, metrics, UI
		t.Errorf("only %d listening sockets found: %v", len(sockets), sockets)
	}
	for _, address := range sockets {
		if address != "0100007F" { // 127.0.0.1, as /proc/net/tcp writes it
			t.Errorf("it listens on %s", address)
		}
	}
}

// listening returns the addresses of the listening TCP sockets of a process, in
// the form of proc_pid_net(5).
func listening(pid int) ([]string, error) {
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return nil, err
	}
	mine := map[string]bool{}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil {
			mine[target] = true
		}
	}
	var addresses []string
	for _, name := range []string{"tcp", "tcp6"} {
		f, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, name))
		if errors.Is(err, os.ErrNotExist) && name == "tcp6" {
			continue // a host without IPv6
		}
		if err != nil {
			return nil, err
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) > 9 && fields[3] == "0A" && mine["socket:["+fields[9]+"]"] {
				address, _, _ := strings.Cut(fields[1], ":")
				addresses = append(addresses, address)
			}
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return addresses, nil
}

// TestVersion keeps the form that temporal-server.sh reads.
func TestVersion(t *testing.T) {
	p := spawn(t, "--version")
	<-p.done
	form := regexp.MustCompile(`^lifeboat-devserver version \S+ \(Server 1\.32\.1, UI 2\.54\.1\)\n$`)
	if got := p.stdout.String(); !form.MatchString(got) {
		t.Errorf("--version prints %q", got)
	}
}
