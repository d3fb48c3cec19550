package pginstance

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
)

// ExitError says that the server has ended, and why, as far as its log tells.
type ExitError struct {
	// DataDir is the server's data directory.
	DataDir string
	// Code is the exit status; -1 if a signal ended it, or if it is not our child and so cannot be known.
	Code int
	// Signal ended the server; 0 if none did, or if it cannot be known.
	Signal syscall.Signal
	// FatalLine is the FATAL or PANIC message that ended it, from that word on, without the time; or the line that
	// says which process was killed; "" if there is neither, as after a clean shutdown.
	FatalLine string
	// TargetLine is the message by which recovery said that it had reached its target; "" if it did not.
	TargetLine string
	// LogTail holds the last lines of the log, at most 40, of this run only, without the statements that PostgreSQL
	// repeats there. Messages may still quote data: it is for an operator's eyes, not for workflow history.
	LogTail []string
	// LogFile is the path of the log; the file may be gone with its directory.
	LogFile string
}

// Error names the directory, how the server ended, and the reason or else the last line of the log.
func (e *ExitError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "the server in %s has ended", e.DataDir)
	switch {
	case e.Signal != 0:
		fmt.Fprintf(&b, " by signal %v", e.Signal)
	case e.Code >= 0:
		fmt.Fprintf(&b, " with exit code %d", e.Code)
	}
	switch {
	case e.FatalLine != "":
		fmt.Fprintf(&b, ": %s", e.FatalLine)
	case len(e.LogTail) > 0:
		fmt.Fprintf(&b, ": its log ends with %q", e.LogTail[len(e.LogTail)-1])
	}
	return b.String()
}

// portTaken tells whether the server ended because somebody else had its port.
func (e *ExitError) portTaken() bool {
	return slices.ContainsFunc(e.LogTail, func(line string) bool {
		return strings.Contains(line, "could not bind IPv") && strings.Contains(line, "Address already in use")
	})
}

// logScan reads a server's log as it grows and keeps what matters of the present run.
type logScan struct {
	path string

	mu      sync.Mutex
	offset  int64
	partial []byte // the beginning of a line whose end is not written yet
	run     runLog
}

// runLog is what one run of the server has logged.
type runLog struct {
	tail    []string
	fatals  []logLine
	crashed string // "startup process (PID 7) exited with exit code 1"
	victim  string // its PID
	target  string // "recovery stopping ..."
	muted   bool   // within a STATEMENT, whose further lines begin with a tab
}

type logLine struct{ pid, text string }

const (
	tailLines = 40
	maxFatals = 100
	maxLine   = 64 << 10 // of a longer line the rest is another line
)

func newLogScan(path string, offset int64) *logScan { return &logScan{path: path, offset: offset} }

var (
	// The format is the one that forcedSettings sets; a server that somebody else started may have another.
	logFormat = regexp.MustCompile(`^\S+ \S+ \S+ \[(\d+)\] ([A-Z0-9]+):  (.*)$`)
	// LogChildExit in postmaster.c. Only the startup process ends the server by an exit code; background workers exit
	// with 1 in every shutdown.
	childExit = regexp.MustCompile(
		`^(?:startup process \(PID (\d+)\) exited with exit code|.* \(PID (\d+)\) was terminated by signal) `)
)

// update reads what was added. A log that cannot be read adds nothing: there is nothing that a caller could do, and the
// state of the server is known without it.
func (s *logScan) update() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path == "" {
		return
	}
	f, err := os.Open(s.path)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := f.ReadAt(buf, s.offset)
		s.offset += int64(n)
		s.feed(buf[:n])
		if err != nil || n == 0 { // io.EOF for one
			return
		}
	}
}

func (s *logScan) feed(data []byte) {
	s.partial = append(s.partial, data...)
	for {
		i := bytes.IndexByte(s.partial, '\n')
		if i < 0 && len(s.partial) < maxLine {
			return
		}
		if i < 0 {
			s.line(string(s.partial))
			s.partial = s.partial[:0]
			return
		}
		s.line(string(s.partial[:i]))
		s.partial = append(s.partial[:0], s.partial[i+1:]...)
	}
}

func (s *logScan) line(line string) {
	pid, level, text := "", "", line
	if m := logFormat.FindStringSubmatch(line); m != nil {
		pid, level, text = m[1], m[2], m[3]
	}
	r := &s.run
	switch level {
	case "STATEMENT", "QUERY", "CONTEXT": // may hold passwords (ALTER ROLE)
		r.muted = true
		return
	case "":
		if r.muted && strings.HasPrefix(line, "\t") {
			return
		}
	}
	r.muted = false
	switch {
	case level == "LOG" && strings.HasPrefix(text, "starting PostgreSQL "):
		*r = runLog{} // what an earlier run wrote into the same file says nothing about this one
	case level == "LOG" && strings.HasPrefix(text, "all server processes terminated; reinitializing"):
		r.crashed, r.victim = "", "" // that crash was survived
	case level == "FATAL" || level == "PANIC":
		r.fatals = appendBounded(r.fatals, logLine{pid, level + ":  " + text}, maxFatals)
	case strings.HasPrefix(line, "FATAL:  "): // without a prefix, as before the settings are read
		r.fatals = appendBounded(r.fatals, logLine{"", line}, maxFatals)
	case level == "LOG" && strings.HasPrefix(text, "recovery stopping "):
		r.target = text // recoveryStopsBefore, recoveryStopsAfter in xlogrecovery.c
	case level == "LOG" && r.crashed == "":
		if m := childExit.FindStringSubmatch(text); m != nil {
			r.crashed, r.victim = text, m[1]+m[2]
		}
	}
	r.tail = appendBounded(r.tail, line, tailLines)
}

func appendBounded[T any](list []T, v T, limit int) []T {
	if len(list) >= limit {
		list = append(list[:0], list[1:]...)
	}
	return append(list, v)
}

// targetLine returns the message that a recovery target was reached, "" if there was none.
func (s *logScan) targetLine() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run.target
}

// fatalLine returns why the server ended. A FATAL line alone proves nothing: every connection that is turned away while
// the server starts writes one. So the one counts that the process wrote whose end the postmaster reports, else the
// postmaster's own, else the bare report (a killed process writes nothing), else one from before there were prefixes.
func (r *runLog) fatalLine(postmaster string) string {
	by := func(pid string) string {
		for _, f := range slices.Backward(r.fatals) {
			if f.pid == pid {
				return f.text
			}
		}
		return ""
	}
	if r.victim != "" {
		if text := by(r.victim); text != "" {
			return text
		}
	}
	if text := by(postmaster); text != "" {
		return text
	}
	if r.crashed != "" {
		return r.crashed
	}
	return by("")
}

// exitError describes the end of the server from what update has read.
func (s *logScan) exitError(dataDir, postmaster string) *ExitError {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.partial) > 0 {
		s.line(string(s.partial))
		s.partial = nil
	}
	return &ExitError{
		DataDir: dataDir, Code: -1, FatalLine: s.run.fatalLine(postmaster), TargetLine: s.run.target,
		LogTail: slices.Clone(s.run.tail), LogFile: s.path,
	}
}
