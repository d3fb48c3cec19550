package pginstance

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// A zombie has ended: where nobody reaps it, waiting for it to vanish would never end.
func TestProcessEnded(t *testing.T) {
	if processEnded(os.Getpid()) {
		t.Error("this process has ended")
	}
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for timeout := time.After(10 * time.Second); procState(pid) != 'Z'; {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("process %d is in state %q", pid, procState(pid))
		}
	}
	if !processEnded(pid) {
		t.Error("a zombie has not ended")
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if !processEnded(pid) {
		t.Error("a reaped process has not ended")
	}
}
