package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// event is one line of a worker's log that tells where an activity is.
type event struct {
	Msg, Activity, Workflow, Phase string
	Attempt, Percent               int
	at                             time.Time
}

const (
	lineBegins   = "activity begins"
	lineProgress = "progress"
)

// victim is a worker process whose log is read as it is written, so that it can be killed the moment it says where it is.
type victim struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and all of its log was read

	mu     sync.Mutex
	trap   func(event) bool // act at the first event for which it is true
	act    func()
	sprung time.Time
	events []event
	log    []string
}

// sprungAt is when the trap was sprung; the zero time if it was not.
func (v *victim) sprungAt() time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.sprung
}

// read takes the log until the process has ended.
func (v *victim) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		ok := json.Unmarshal(lines.Bytes(), &e) == nil
		v.mu.Lock()
		if v.log = append(v.log, lines.Text()); len(v.log) > 400 {
			v.log = v.log[200:]
		}
		if ok && (e.Msg == lineBegins || e.Msg == lineProgress) {
			e.at = time.Now()
			v.events = append(v.events, e)
			if v.trap != nil && v.trap(e) {
				v.act()
				v.trap, v.sprung = nil, e.at
			}
		}
		v.mu.Unlock()
	}
	_ = v.cmd.Wait()
	close(v.done)
}

// set makes the process act, once, at an event; nil ends that.
func (v *victim) set(trap func(event) bool, act func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.trap, v.act = trap, act
}

// kill is kill -9.
func (v *victim) kill() { v.signal(syscall.SIGKILL) }

// seen looks for an event.
func (v *victim) seen(match func(event) bool) (event, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range v.events {
		if match(e) {
			return e, true
		}
	}
	return event{}, false
}

// last is where a workflow's work was when the log ended.
func (v *victim) last(workflow string) event {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := len(v.events) - 1; i >= 0; i-- {
		if v.events[i].Workflow == workflow {
			return v.events[i]
		}
	}
	return event{}
}

func (v *victim) tail(n int) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.name + ":\n" + strings.Join(v.log[max(0, len(v.log)-n):], "\n")
}

func (v *victim) ended() bool {
	select {
	case <-v.done:
		return true
	default:
		return false
	}
}

func (v *victim) signal(sig syscall.Signal) { _ = v.cmd.Process.Signal(sig) }

// lane is a place for workers with a queue, a host and a work directory of their own, so that several can be killed at
// the same time. Its methods return errors and may be used from any goroutine.
type lane struct {
	*stack
	name, dir, config string
	env               []string
	owner             pginstance.Owner
	flags             []string
	workers           int
	mu                sync.Mutex
	all               []*victim
}

func (s *stack) newLane(t *testing.T, name string, flags ...string) *lane {
	t.Helper()
	l := &lane{stack: s, name: name, dir: filepath.Join(s.dir, name), owner: pgtest.Owner(t), flags: flags}
	l.config = filepath.Join(l.dir, "lifeboat.yaml")
	l.env = []string{"PATH=/usr/bin:/bin", "HOME=/", "TEMPORAL_ADDRESS=" + s.address, fmt.Sprintf("KILLTEST_PORT=%d", s.Port)}
	for _, dir := range []string{l.dir, l.work()} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := l.owner.Chown(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(l.config, []byte(s.yaml(s.SocketDir)+"worker: {task_queue: "+l.queue()+"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.stop)
	return l
}

func (l *lane) work() string  { return filepath.Join(l.dir, "work") }
func (l *lane) queue() string { return fmt.Sprintf("%s-%d", l.name, l.Bin.Major) }

// host is the usual host of the lane's workers.
const laneHost = "h1"

// worker starts a worker on a host and waits until it polls.
func (l *lane) worker(host string) (*victim, error) {
	l.mu.Lock()
	l.workers++
	v := &victim{name: fmt.Sprintf("%s worker %d on %s", l.queue(), l.workers, host), done: make(chan struct{})}
	l.all = append(l.all, v)
	l.mu.Unlock()
	args := append([]string{
		"--config", l.config, "--host", host, "--work-dir", l.work(), "--log-format", "json", "--log-level", "debug",
	}, l.flags...)
	v.cmd = exec.Command(filepath.Join(l.bin, "lifeboat-worker"), args...)
	v.cmd.Dir, v.cmd.Env, v.cmd.SysProcAttr = "/", l.env, l.owner.SysProcAttr()
	r, err := v.cmd.StderrPipe()
	if err == nil {
		err = v.cmd.Start()
	}
	if err != nil {
		close(v.done)
		return nil, err
	}
	go v.read(r)
	err = wait("a worker that is ready", func() (bool, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		for _, line := range v.log {
			if strings.Contains(line, `"worker ready"`) {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, v.tail(40))
	}
	return v, nil
}

// stop ends what is left of the lane's workers.
func (l *lane) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range l.all {
		if v.cmd.Process != nil {
			v.signal(syscall.SIGKILL)
			<-v.done
		}
	}
}

// begin starts a workflow on the lane's queue.
func (l *lane) begin(ctx context.Context, id, workflow string, in any) (client.WorkflowRun, error) {
	return l.temporal.Client().ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: l.queue()}, workflow, in)
}

// running tells whether a workflow has not ended.
func (l *lane) running(ctx context.Context, id string) (bool, error) {
	d, err := l.temporal.Client().DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return false, err
	}
	return d.GetWorkflowExecutionInfo().GetStatus() == enums.WORKFLOW_EXECUTION_STATUS_RUNNING, nil
}

// attempts is the number of attempts at an activity that the history tells of; failure is what ended the one before the last.
func (l *lane) attempts(ctx context.Context, id, activity string) (n int, failure string, err error) {
	scheduled := map[int64]bool{}
	events := l.temporal.Client().GetWorkflowHistory(ctx, id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		e, err := events.Next()
		if err != nil {
			return 0, "", err
		}
		if a := e.GetActivityTaskScheduledEventAttributes(); a.GetActivityType().GetName() == activity {
			scheduled[e.GetEventId()] = true
		}
		if a := e.GetActivityTaskStartedEventAttributes(); a != nil && scheduled[a.GetScheduledEventId()] {
			n, failure = max(n, int(a.GetAttempt())), a.GetLastFailure().GetMessage()
		}
	}
	return n, failure, nil
}

// nothingLeft tells what the lane's runs left behind: servers, files of drills and verifications, sockets.
func (l *lane) nothingLeft() error {
	return wait("nothing left of "+l.name, func() (bool, error) {
		running, err := pginstance.Running(l.dir)
		if err != nil {
			return false, err
		}
		if len(running) > 0 {
			return false, fmt.Errorf("a server runs: %+v", running)
		}
		if left, err := os.ReadDir(l.work()); err != nil || len(left) > 0 {
			return false, errors.Join(err, fmt.Errorf("left in the work directory: %v", left))
		}
		if left := socketDirs(l.dir); len(left) > 0 {
			return false, fmt.Errorf("socket directories are left: %v", left)
		}
		return true, nil
	})
}

// socketDirs lists the private socket directories of servers whose data directories lie below root: those whose lock
// file names one (its second line, src/backend/utils/init/miscinit.c), and those that say so themselves.
func socketDirs(root string) []string {
	found := map[string]bool{}
	files, _ := filepath.Glob("/tmp/lifeboat-*/.s.PGSQL.*.lock")
	more, _ := filepath.Glob("/tmp/lifeboat-*/" + pginstance.SocketDirMarker)
	for _, f := range append(files, more...) {
		if data, err := os.ReadFile(f); err == nil && strings.Contains(string(data), root+"/") {
			found[filepath.Dir(f)] = true
		}
	}
	return slices.Collect(maps.Keys(found))
}

// wait asks until it is so, for three minutes. An error is why it is not so yet.
func wait(what string, done func() (bool, error)) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(3 * time.Minute); ; <-tick.C {
		ok, err := done()
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited in vain for %s: %w", what, err)
		}
	}
}
