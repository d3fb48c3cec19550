package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// step is one command of a page, with what the page says that it prints.
type step struct {
	line     int
	command  string
	expected []string
}

// consoleSteps reads the console blocks of a Markdown page: a command follows "$ " and goes on after "> ".
func consoleSteps(text string) (steps []step) {
	inside := false
	for i, line := range strings.Split(text, "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console"
		case !inside:
		case strings.HasPrefix(line, "$ "):
			steps = append(steps, step{line: i + 1, command: line[2:]})
		case strings.HasPrefix(line, "> ") && len(steps) > 0:
			steps[len(steps)-1].command += "\n" + line[2:]
		case len(steps) > 0:
			last := &steps[len(steps)-1]
			last.expected = append(last.expected, line)
		}
	}
	return steps
}

// matches compares output with what a page shows: "…" stands for any text, alone in a line for any number of lines; runs
// of blanks are one.
func matches(expected []string, output string) bool {
	var pattern strings.Builder
	pattern.WriteString(`\A`)
	for _, line := range expected {
		if strings.TrimSpace(line) == "…" {
			pattern.WriteString(`(?:[^\n]*\n)*`)
			continue
		}
		words := strings.Fields(line)
		for i, w := range words {
			words[i] = strings.ReplaceAll(regexp.QuoteMeta(w), "…", `[^\n]*`)
		}
		pattern.WriteString(`\s*` + strings.Join(words, `[ \t]+`) + `[ \t]*\n`)
	}
	pattern.WriteString(`\z`)
	return regexp.MustCompile(pattern.String()).MatchString(output)
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		expected []string
		output   string
		want     bool
	}{
		{nil, "", true},
		{nil, "x\n", false},
		{[]string{"a … c"}, "a  b b   c\n", true},
		{[]string{"a … c"}, "a b\n", false},
		{[]string{"a", "…"}, "a\nb\nc\n", true},
		{[]string{"a", "…"}, "b\n", false},
		{[]string{"11000"}, "10999\n", false},
	} {
		if got := matches(c.expected, c.output); got != c.want {
			t.Errorf("%q against %q: %v", c.expected, c.output, got)
		}
	}
}

// shell is one bash in which the commands of a page run, as the servers' user.
type shell struct {
	in   io.Writer
	pipe *os.File
	out  *bufio.Reader
}

const endOfStep = "=== end of step"

func startShell(t *testing.T, env []string) *shell {
	t.Helper()
	cmd := exec.Command("/bin/bash", "--norc")
	cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", env, pgtest.Owner(t).SysProcAttr()
	cmd.SysProcAttr.Setpgid = true
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what the page left running, if it failed half way
		_ = cmd.Wait()
		r.Close()
	})
	fmt.Fprintln(in, "set -o pipefail")
	return &shell{in: in, pipe: r, out: bufio.NewReader(r)}
}

// stepTimeout is for a command that waits for what never comes, such as a password.
const stepTimeout = 3 * time.Minute

// run gives a command's output and exit code.
func (s *shell) run(command string) (output, code string, err error) {
	fmt.Fprintf(s.in, "%s\necho '%s' $?\n", command, endOfStep)
	if err := s.pipe.SetReadDeadline(time.Now().Add(stepTimeout)); err != nil {
		return "", "", err
	}
	for {
		line, err := s.out.ReadString('\n')
		if before, after, found := strings.Cut(line, endOfStep); found {
			return output + before, strings.TrimSpace(after), nil
		}
		output += line
		if err != nil {
			return output, "", err
		}
	}
}

// TestTutorial runs docs/tutorial.md as a reader would, with ports and a folder that are free.
func TestTutorial(t *testing.T) {
	temporal := os.Getenv("TEMPORAL_DEV_SERVER")
	if temporal == "" {
		t.Skip("TEMPORAL_DEV_SERVER is not set: `make test` sets it")
	}
	page, err := os.ReadFile("../../docs/tutorial.md")
	if err != nil {
		t.Fatal(err)
	}
	dir, bin := pgtest.TempDir(t), pgtest.TempDir(t)
	for name, pkg := range map[string]string{"lifeboat": "lifeboat/cmd/starter", "lifeboat-worker": "lifeboat/cmd/worker"} {
		if err := os.Link(pgtest.Build(t, pkg), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	text := strings.ReplaceAll(string(page), "/tmp/lifeboat-tutorial", dir+"/tutorial")
	for _, port := range []string{"54321", "54322", "54323", "7233"} {
		free, err := pginstance.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		text = strings.ReplaceAll(text, port, fmt.Sprint(free))
	}
	sh := startShell(t, []string{
		"PATH=" + bin + ":" + pgtest.Binaries(t, 0).Dir + ":/usr/bin:/bin", "HOME=" + dir, "LC_ALL=C.UTF-8",
		"TEMPORAL_DEV_SERVER=" + temporal,
	})
	steps := consoleSteps(text)
	if len(steps) < 30 {
		t.Fatalf("the page has %d commands: are its blocks still marked as console?", len(steps))
	}
	t.Cleanup(func() { stopServers(t, dir) })
	for _, s := range steps {
		begun := time.Now()
		output, code, err := sh.run(s.command)
		if err != nil {
			t.Fatalf("line %d: $ %s\nthe shell ended: %v\n%s", s.line, s.command, err, output)
		}
		if code != "0" || !matches(s.expected, output) {
			logs, _ := exec.Command("sh", "-c", "tail -n 20 "+dir+"/tutorial/*.log "+dir+"/tutorial/*.err").CombinedOutput()
			t.Fatalf("line %d: $ %s\nexit code %s, printed:\n%s\nthe page says:\n%s\n\nlogs:\n%s",
				s.line, s.command, code, output, strings.Join(s.expected, "\n"), logs)
		}
		t.Logf("line %3d  %5.1f s  $ %s", s.line, time.Since(begun).Seconds(), strings.SplitN(s.command, "\n", 2)[0])
	}
	if _, err := os.Stat(dir + "/tutorial"); err == nil {
		t.Error("the page does not tidy up after itself")
	}
}

// stopServers ends what a page that failed half way left running.
func stopServers(t *testing.T, dir string) {
	running, err := pginstance.Running(dir)
	if err != nil {
		t.Error(err)
	}
	for _, p := range running {
		t.Errorf("a server was left behind: %+v", p)
		_ = syscall.Kill(p.PID, syscall.SIGQUIT)
	}
}
