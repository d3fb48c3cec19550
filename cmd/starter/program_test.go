package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// call is one run of the built program, as a person or PostgreSQL runs it: in a process of its own.
type call struct {
	program string
	env     []string // beside PATH; nothing of the test's own environment leaks in
	args    []string
	as      *syscall.SysProcAttr // nil: the server's user
	prefix  []string             // a command that runs it, such as unshare
	bare    bool                 // an empty environment, as of "env -i"
}

// patience bounds one run of the program on a machine under load.
const patience = 3 * time.Minute

func (c call) run(t *testing.T) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	line := append(append(append([]string{}, c.prefix...), c.program), c.args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", &stdout, &stderr
	cmd.Env = append([]string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin"}, c.env...)
	if c.bare {
		cmd.Env = []string{}
	}
	if cmd.SysProcAttr = c.as; c.as == nil {
		cmd.SysProcAttr = pgtest.Owner(t).SysProcAttr()
	}
	return outcome{exitOf(cmd.Run()), stdout.String(), stderr.String()}
}

// digest hashes a tree: names, kinds, modes, owners and contents; not times, which reading and probing change. A
// missing tree has a digest, too.
func digest(t *testing.T, root string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(h, "%q %v %d %d\n", path, info.Mode(), st.Uid, st.Gid)
		if !info.Mode().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		n, err := io.Copy(h, f)
		fmt.Fprintln(h, n)
		return err
	})
	if os.IsNotExist(err) {
		return "missing"
	}
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// copyTree copies with owners, modes and times.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp -a %s %s: %v: %s", from, to, err, out)
	}
}

// refusal is a run that must fail, how, and what must be as it was afterwards.
type refusal struct {
	call
	exit  int
	code  string
	says  string   // part of the message
	hint  string   // part of the hint; "" any
	still []string // trees, beside those of the test, that must not change
}

// digests are those of trees, by name.
func digests(t *testing.T, trees ...string) map[string]string {
	out := map[string]string{}
	for _, tree := range trees {
		out[tree] = digest(t, tree)
	}
	return out
}

// unchanged compares trees with what they were.
func unchanged(t *testing.T, before map[string]string) {
	t.Helper()
	for tree, was := range before {
		if digest(t, tree) != was {
			t.Errorf("%s was changed", tree)
		}
	}
}

// check runs it by --json, and compares trees with what they were before.
func (r refusal) check(t *testing.T, before map[string]string) {
	t.Helper()
	own := digests(t, r.still...)
	r.args = append([]string{"--json"}, r.args...)
	got := r.run(t).must(t, r.exit)
	if got.stdout != "" {
		t.Errorf("stdout: %s", got.stdout)
	}
	// What a library logged may come before the error, which is the last line.
	lines := strings.Split(strings.TrimSpace(got.stderr), "\n")
	got.stderr = lines[len(lines)-1]
	e := got.errorObject(t)
	if e["code"] != r.code {
		t.Errorf("code %v, want %s: %s", e["code"], r.code, got.stderr)
	}
	message, hint := e["message"].(string), e["hint"].(string)
	if !strings.Contains(message, r.says) {
		t.Errorf("message %q lacks %q", message, r.says)
	}
	if hint == "" || !strings.Contains(hint, r.hint) {
		t.Errorf("hint %q lacks %q", hint, r.hint)
	}
	if strings.Contains(message, hint) {
		t.Errorf("message %q repeats the hint %q", message, hint)
	}
	unchanged(t, before)
	unchanged(t, own)
	t.Logf("exit %d, %s: %s; hint: %s", got.code, e["code"], message, hint)
}

// rootAttr runs a process as the test's own user.
var rootAttr = &syscall.SysProcAttr{}

// server runs statements on a server that is not the test's own.
type server struct{ in *pginstance.Instance }

func (s server) session(t *testing.T, f func(*dbcore.Conn) error) {
	t.Helper()
	cfg, err := dbcore.ParseDSN(s.in.ConnString("", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dbcore.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := f(conn); err != nil {
		t.Fatal(err)
	}
}

func (s server) exec(t *testing.T, sql string) {
	t.Helper()
	s.session(t, func(c *dbcore.Conn) error { _, err := c.Exec(t.Context(), sql); return err })
}

func (s server) one(t *testing.T, sql string) (v string) {
	t.Helper()
	s.session(t, func(c *dbcore.Conn) (err error) { v, err = dbcore.One[string](t.Context(), c, sql); return err })
	return v
}
