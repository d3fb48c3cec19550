package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/sys/unix"

	"lifeboat/internal/pgtest"
)

// terminalColumns is narrower than some bars.
const terminalColumns = 45

// pseudoTerminal is a pair: what is written to the terminal can be read from the other side.
func pseudoTerminal(t *testing.T) (side, terminal *os.File) {
	t.Helper()
	side, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { side.Close() })
	n, err := unix.IoctlGetInt(int(side.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(side.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatalf("open a pseudo terminal: %v", err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("open a pseudo terminal: %v", err)
	}
	t.Cleanup(func() { terminal.Close() })
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: terminalColumns}); err != nil {
		t.Fatalf("size a pseudo terminal: %v", err)
	}
	return side, terminal
}

// onTerminal runs the program with the streams that are named at a terminal, and returns what it wrote to each.
func (p *protected) onTerminal(t *testing.T, stdout, stderr bool, env []string, args ...string) (terminal, out, errs string) {
	t.Helper()
	side, tty := pseudoTerminal(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.program, args...)
	var outBuffer, errBuffer, seen bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", &outBuffer, &errBuffer
	if stdout {
		cmd.Stdout = tty
	}
	if stderr {
		cmd.Stderr = tty
	}
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "TERM=xterm", "LIFEBOAT_CONFIG=" + p.env["LIFEBOAT_CONFIG"]}, env...)
	cmd.SysProcAttr = pgtest.Owner(t).SysProcAttr()
	read := make(chan struct{})
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	go func() {
		defer close(read)
		_, _ = io.Copy(&seen, side) // ends with EIO when the last writer is gone
	}()
	err := cmd.Wait()
	<-read
	if err != nil {
		t.Fatalf("%v: %v\n%s%s%s", args, err, seen.String(), outBuffer.String(), errBuffer.String())
	}
	return seen.String(), outBuffer.String(), errBuffer.String()
}

// plainText tells whether text has no control characters but line ends and tabs.
func plainText(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) < 0
}

// TestTerminal: a bar and colors where somebody looks, and nothing but plain lines elsewhere.
func TestTerminal(t *testing.T) {
	p := protect(t)
	const redraw, bold, barStart = "\r\x1b[K", "\x1b[1;", "["

	seen, out, _ := p.onTerminal(t, false, true, nil, "backup", "orders", "--local")
	if !strings.Contains(seen, redraw+barStart+"=") || !strings.Contains(seen, "% of ") {
		t.Errorf("no bar on a terminal: %q", seen)
	}
	if !strings.HasSuffix(seen, "\n") {
		t.Errorf("the bar's line does not end: %q", seen)
	}
	for _, drawn := range strings.Split(seen, redraw)[1:] {
		if line, _, _ := strings.Cut(drawn, "time=20"); len(strings.TrimRight(line, "\r\n")) >= terminalColumns {
			t.Errorf("a bar wraps: %q", line)
		}
	}
	if parts := strings.Split(seen, "time=20"); len(parts) < 2 || slices.ContainsFunc(parts[:len(parts)-1], func(before string) bool {
		return before != "" && !strings.HasSuffix(before, "\n") && !strings.HasSuffix(before, redraw)
	}) {
		t.Errorf("a line of the log does not begin a line: %q", seen)
	}
	if out == "" || !plainText(out) {
		t.Errorf("stdout is no terminal, and gets %q", out)
	}

	seen, _, errs := p.onTerminal(t, true, false, nil, "backup", "orders", "--local")
	if strings.Contains(seen, redraw) || !plainText(errs) || !strings.Contains(errs, "\n") || !strings.Contains(errs, "copy") {
		t.Errorf("stderr is no terminal, and gets %q; stdout: %q", errs, seen)
	}
	for name, c := range map[string]struct{ env, args []string }{
		"quiet":    {nil, []string{"--quiet"}},
		"json":     {nil, []string{"--json"}},
		"dumb":     {[]string{"TERM=dumb"}, nil},
		"no TERM":  {[]string{"TERM="}, nil},
		"no color": {[]string{"TERM=dumb"}, []string{"--no-color"}},
	} {
		seen, _, _ := p.onTerminal(t, true, true, c.env, append([]string{"backup", "orders", "--local"}, c.args...)...)
		if strings.Contains(seen, "\x1b") {
			t.Errorf("%s: control characters: %q", name, seen)
		}
		if strings.Contains(seen, "copy") && (name == "quiet" || name == "json") {
			t.Errorf("%s: progress: %q", name, seen)
		}
	}

	// A verdict is painted on a terminal.
	verify := []string{"verify", "orders", "--local", "--level", "0"}
	if seen, _, _ := p.onTerminal(t, true, false, nil, verify...); !strings.Contains(seen, bold+"32mPASS") {
		t.Errorf("no color on a terminal: %q", seen)
	}
	for name, c := range map[string]struct{ env, args []string }{"--no-color": {nil, []string{"--no-color"}}, "NO_COLOR": {[]string{"NO_COLOR=1"}, nil}} {
		if seen, _, _ := p.onTerminal(t, true, false, c.env, append(verify, c.args...)...); strings.Contains(seen, bold) || !strings.Contains(seen, "PASS") {
			t.Errorf("%s: colors: %q", name, seen)
		}
	}
}
