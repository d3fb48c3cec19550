package pginstance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const stamp = "2026-11-23 07:46:00.123 UTC "

// What the log says about an end, from lines as PostgreSQL writes them. The postmaster is process 10.
func TestFatalLine(t *testing.T) {
	for name, c := range map[string]struct {
		lines  []string
		fatal  string
		target string
	}{
		"nothing": {nil, "", ""},
		"turned away clients are not the reason, the startup process is": {[]string{
			stamp + "[10] LOG:  starting PostgreSQL 15.18",
			stamp + "[12] FATAL:  the database system is starting up",
			stamp + "[11] FATAL:  recovery ended before configured recovery target was reached",
			stamp + "[13] FATAL:  the database system is shutting down",
			stamp + "[10] LOG:  startup process (PID 11) exited with exit code 1",
			stamp + "[10] LOG:  database system is shut down",
		}, "FATAL:  recovery ended before configured recovery target was reached", ""},
		"clean shutdown, with a background worker's usual exit": {[]string{
			stamp + "[12] FATAL:  the database system is starting up",
			stamp + "[11] LOG:  recovery stopping before commit of transaction 735, time 2026-11-22",
			stamp + "[10] LOG:  background worker \"logical replication launcher\" (PID 14) exited with exit code 1",
			stamp + "[10] LOG:  database system is shut down",
		}, "", "recovery stopping before commit of transaction 735, time 2026-11-22"},
		"killed": {[]string{
			stamp + "[12] FATAL:  the database system is starting up",
			stamp + "[10] LOG:  startup process (PID 11) was terminated by signal 9: Killed",
		}, "startup process (PID 11) was terminated by signal 9: Killed", ""},
		"panic": {[]string{
			stamp + "[11] PANIC:  could not locate a valid checkpoint record",
			stamp + "[10] LOG:  startup process (PID 11) was terminated by signal 6: Aborted",
		}, "PANIC:  could not locate a valid checkpoint record", ""},
		"the postmaster's own": {[]string{
			stamp + "[10] LOG:  could not bind IPv4 address \"127.0.0.1\": Address already in use",
			stamp + "[10] FATAL:  could not create any TCP/IP sockets",
		}, "FATAL:  could not create any TCP/IP sockets", ""},
		"before there is a prefix": {
			[]string{"FATAL:  could not access the server configuration file"},
			"FATAL:  could not access the server configuration file", "",
		},
		"a crash that was survived": {[]string{
			stamp + "[10] LOG:  server process (PID 15) was terminated by signal 9: Killed",
			stamp + "[10] LOG:  all server processes terminated; reinitializing",
			stamp + "[10] LOG:  database system is shut down",
		}, "", ""},
		"an earlier run says nothing about this one": {[]string{
			stamp + "[10] LOG:  starting PostgreSQL 15.18",
			stamp + "[11] LOG:  recovery stopping at restore point \"x\", time 2026-11-22",
			stamp + "[10] FATAL:  old",
			stamp + "[10] LOG:  starting PostgreSQL 15.18",
			stamp + "[10] LOG:  database system is shut down",
		}, "", ""},
		"a client that writes such words": {[]string{
			stamp + "[20] ERROR:  recovery stopping at restore point",
			stamp + "[20] STATEMENT:  select 'FATAL:  x'",
			stamp + "[20] WARNING:  recovery stopping now",
			"\trecovery stopping, on a further line",
		}, "", ""},
	} {
		s := newLogScan("", 0)
		s.feed([]byte(strings.Join(c.lines, "\n"))) // the last line without its end
		e := s.exitError("/data", "10")
		if e.FatalLine != c.fatal || e.TargetLine != c.target {
			t.Errorf("%s: fatal %q, want %q; target %q, want %q", name, e.FatalLine, c.fatal, e.TargetLine, c.target)
		}
	}
}

// Statements do not get into the tail: they may hold passwords.
func TestLogTailWithoutStatements(t *testing.T) {
	s := newLogScan("", 0)
	s.feed([]byte(stamp + "[20] ERROR:  role \"x\" does not exist\n" +
		stamp + "[20] STATEMENT:  ALTER ROLE x\n\tPASSWORD 'secret'\n" +
		stamp + "[10] FATAL:  data directory has invalid permissions\n" +
		stamp + "[10] DETAIL:  Permissions should be\n\tu=rwx (0700)\n"))
	got := strings.Join(s.exitError("/data", "10").LogTail, "\n")
	want := stamp + "[20] ERROR:  role \"x\" does not exist\n" +
		stamp + "[10] FATAL:  data directory has invalid permissions\n" +
		stamp + "[10] DETAIL:  Permissions should be\n\tu=rwx (0700)"
	if got != want {
		t.Errorf("tail:\n%s\nwant:\n%s", got, want)
	}
}

// The log is read as it grows, in whatever pieces, from the offset on; memory stays bounded.
func TestLogScanGrows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	write := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	old := stamp + "[1] LOG:  recovery stopping of old\n"
	write(old)
	s := newLogScan(path, int64(len(old)))
	s.update()
	if s.targetLine() != "" {
		t.Error("what lies before the offset was read")
	}
	write(stamp + "[1] LOG:  recovery sto")
	s.update()
	if s.targetLine() != "" {
		t.Error("half a line was taken for a whole one")
	}
	write("pping after reaching consistency\n")
	s.update()
	if got := s.targetLine(); got != "recovery stopping after reaching consistency" {
		t.Errorf("target %q", got)
	}
	for i := range 5000 { // more than a buffer
		write(fmt.Sprintf("%s[2] FATAL:  client %d\n", stamp, i))
	}
	write(strings.Repeat("x", 3*maxLine))
	s.update()
	e := s.exitError("/data", "10")
	if len(e.LogTail) != tailLines || len(s.run.fatals) != maxFatals || cap(s.partial) > 4*maxLine {
		t.Errorf("kept %d lines, %d fatals, %d bytes", len(e.LogTail), len(s.run.fatals), cap(s.partial))
	}
	if !strings.Contains(strings.Join(e.LogTail, "\n"), "client 4999") {
		t.Error("the tail is not the end of the log")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s.update() // a log that is gone is no reason to fail
	if s.targetLine() == "" {
		t.Error("what was read is forgotten")
	}
}

func TestReadPIDFile(t *testing.T) {
	for content, want := range map[string]pidFile{
		"123\n": {pid: 123},
		"-123\n/data\n1700000000\n5432\n/tmp/s\n":                           {pid: 123, port: 5432, socketDir: "/tmp/s"},
		"123\n/data\n1700000000\n5432\n/tmp/s\nlocalhost\n 1 2\nstarting\n": {pid: 123, port: 5432, socketDir: "/tmp/s", state: "starting"},
		"123\n/data\n1700000000\n5433\n\n\n 1 2\nready   \n":                {pid: 123, port: 5433, state: "ready"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readPIDFile(dir); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", content, got, err, want)
		}
		if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte("x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readPIDFile(dir); err == nil {
			t.Error("a process id that is no number is accepted")
		}
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		root, path string
		want       bool
	}{
		{"/a", "/a", true},
		{"/a", "/a/b", true},
		{"/a", "/a/..b", true},
		{"/", "/a", true},
		{"/a", "/ab", false},
		{"/a/b", "/a", false},
		{"/a", "/", false},
	} {
		if got := within(c.root, c.path); got != c.want {
			t.Errorf("within(%q, %q) = %v", c.root, c.path, got)
		}
	}
}
