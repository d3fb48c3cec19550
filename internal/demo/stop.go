package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"lifeboat/internal/pginstance"
)

// stateFile stands in the folder of a demo that was left up.
const stateFile = "demo.json"

type state struct {
	Dir     string `json:"dir"`
	DataDir string `json:"dataDir"`
	PIDs    []int  `json:"pids"`
}

// StopAll ends and removes every demo of this machine that was left up.
func StopAll(ctx context.Context, out io.Writer) error {
	found, err := filepath.Glob("/tmp/lifeboat-demo-*/" + stateFile)
	for _, path := range found {
		if serr := stopOne(ctx, path); serr != nil {
			err = errors.Join(err, serr)
			continue
		}
		fmt.Fprintf(out, "stopped and removed %s\n", filepath.Dir(path))
	}
	if len(found) == 0 {
		fmt.Fprintln(out, "no demo is up")
	}
	return err
}

func stopOne(ctx context.Context, path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil || s.Dir != filepath.Dir(path) {
		return fmt.Errorf("%s does not describe the demo in its folder: %w", path, err)
	}
	for _, pid := range s.PIDs {
		if s.owns(pid) {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	}
	deadline := time.Now().Add(stopTimeout)
	for _, pid := range s.PIDs {
		for s.owns(pid) {
			if time.Now().After(deadline) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	in, err := pginstance.Attach(s.DataDir, pginstance.AttachOptions{})
	if err == nil {
		err = in.Stop(ctx, pginstance.Immediate)
	} else if errors.Is(err, pginstance.ErrNotRunning) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(s.Dir))
}

// owns tells whether a process is one of the demo's: pids are used again.
func (s *state) owns(pid int) bool {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && strings.HasPrefix(exe, s.Dir+"/")
}
