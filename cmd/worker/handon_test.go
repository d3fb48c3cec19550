package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"lifeboat/internal/contract"
	"lifeboat/internal/pgtest"
)

// each runs f for every verb at the same time, each on a lane of its own.
func (c *campaign) each(t *testing.T, what string, flags []string, f func(ctx context.Context, l *lane, verb string) (told string, err error)) {
	t.Helper()
	var wg sync.WaitGroup
	for name := range verbs() {
		l := c.newLane(t, what+"-"+name, flags...)
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			told, err := f(ctx, l, name)
			if err != nil {
				t.Errorf("%s %s: %v", what, name, err)
			}
			t.Log(told)
		})
	}
	wg.Wait()
}

// middles are where each verb is disturbed: in work that goes on for a while.
var middles = map[string]target{
	"backup":  {contract.TakeBackupActivity, "copy", 5},
	"restore": {contract.LayFilesActivity, "lay", 5},
	"verify":  {contract.VerifyBackupsActivity, "pages", 5},
	"drill":   {contract.ProveRecoveryActivity, "replay", 0},
}

// TestWorkers_EndInOrder disturbs each verb in other ways than by a kill.
func TestWorkers_EndInOrder(t *testing.T) {
	server, address := startTemporal(t)
	c := newCampaign(t, stackOn(t, server, address, pgtest.Options{}))
	t.Run("SIGTERM hands on at once", func(t *testing.T) { c.each(t, "term", nil, c.handOn) })
	t.Run("cancelled", func(t *testing.T) { c.each(t, "cancel", []string{"--heartbeat-timeout", "1500ms"}, c.cancelled) })
	t.Run("a lost host, and its reaper", func(t *testing.T) { c.lostHost(t) })
}

// handOn stops the worker that does the work by SIGTERM while another is there: it goes on long before the heartbeat
// timeout, which is 15 s here, and nothing of the first is left.
func (c *campaign) handOn(ctx context.Context, l *lane, name string) (string, error) {
	id, at := "term-"+name, middles[name]
	var (
		workers [2]*victim
		first   sync.Once
		err     error
	)
	for i := range workers {
		if workers[i], err = l.worker(laneHost); err != nil {
			return "", err
		}
	}
	var stopped *victim
	for _, w := range workers {
		w.set(func(e event) bool { return e.Workflow == id && at.reached(e) }, func() {
			first.Do(func() { stopped = w; w.signal(syscall.SIGTERM) })
		})
	}
	run, err := l.begin(ctx, id, verbs()[name].workflow, verbs()[name].input(c, l))
	if err != nil {
		return "", err
	}
	if err := wait("a worker that was stopped", func() (bool, error) { return workers[0].ended() || workers[1].ended(), nil }); err != nil {
		return "", err
	}
	other := workers[0]
	if other == stopped {
		other = workers[1]
	}
	if code := stopped.cmd.ProcessState.ExitCode(); code != 0 {
		return "", fmt.Errorf("the stopped worker exited with %d\n%s", code, stopped.tail(20))
	}
	if err := verbs()[name].check(ctx, c, l, run, id); err != nil {
		return "", fmt.Errorf("%w\n%s", err, other.tail(20))
	}
	n, failure, err := l.attempts(ctx, id, at.activity)
	if err != nil || n != 2 || !strings.Contains(failure, "the worker was stopped") {
		return "", fmt.Errorf("%d attempts at %s, the first of which ended with %q, %w", n, at.activity, failure, err)
	}
	second, ok := other.seen(func(e event) bool { return e.Workflow == id && e.Activity == at.activity && e.Attempt == 2 })
	took := second.at.Sub(stopped.sprungAt())
	if !ok || took > heartbeatTimeout/2 {
		return "", fmt.Errorf("the other worker had the work after %v", took)
	}
	return fmt.Sprintf("SIGTERM during %s: another worker had it after %.1f s", at, took.Seconds()), l.nothingLeft()
}

// cancelled cancels each verb from Temporal: it ends soon, as cancelled, and leaves no server, no files of its own, no
// lease, and nothing that could be started.
func (c *campaign) cancelled(ctx context.Context, l *lane, name string) (string, error) {
	id, at := "cancel-"+name, middles[name]
	w, err := l.worker(laneHost)
	if err != nil {
		return "", err
	}
	w.set(func(e event) bool { return e.Workflow == id && at.reached(e) }, func() {
		go func() { _ = l.temporal.Client().CancelWorkflow(ctx, id, "") }()
	})
	run, err := l.begin(ctx, id, verbs()[name].workflow, verbs()[name].input(c, l))
	if err != nil {
		return "", err
	}
	if err := run.Get(ctx, nil); !temporal.IsCanceledError(errors.Unwrap(err)) && !temporal.IsCanceledError(err) {
		return "", fmt.Errorf("it ended with %w, want a cancellation\n%s", err, w.tail(20))
	}
	took := time.Since(w.sprungAt())
	if took > 30*time.Second {
		return "", fmt.Errorf("it ended only after %v", took)
	}
	switch name {
	case "backup":
		lease, err := c.repo.AcquireLease(ctx, "c1", "backup", "probe", "test", time.Second)
		if err != nil {
			return "", err
		}
		if err := lease.Release(ctx); err != nil {
			return "", err
		}
	case "restore":
		if _, err := os.Stat(filepath.Join(l.restored(), "global/pg_control")); !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("what was laid could be started: %w", err)
		}
	case "drill":
		names, err := c.repo.ListDocuments(ctx, "c1", "reports/")
		if err != nil {
			return "", err
		}
		var rep contract.Report
		for _, n := range names {
			if err := c.repo.GetDocument(ctx, "c1", n, &rep); err != nil {
				return "", err
			}
			if rep.WorkflowID == id {
				break
			}
		}
		if rep.WorkflowID != id || rep.Verdict == contract.Pass || !strings.Contains(rep.Failure, "cancelled during") || !rep.CleanedUp {
			return "", fmt.Errorf("the report of the cancelled drill: %s", shown(rep))
		}
	}
	return fmt.Sprintf("cancelled during %s: ended after %.1f s", at, took.Seconds()), l.nothingLeft()
}

// lostHost kills the only worker of a host in the middle of a drill. A worker of another host notices, and says what to
// do. When the host comes back, its worker removes what was left, though the drill has ended.
func (c *campaign) lostHost(t *testing.T) {
	l := c.newLane(t, "lost", "--heartbeat-timeout", "2s", "--host-timeout", "1s")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	lost, err := l.worker(laneHost)
	fatal(err)
	const id = "lost-drill"
	lost.set(func(e event) bool { return e.Workflow == id && middles["drill"].reached(e) }, lost.kill)
	run, err := l.begin(ctx, id, contract.DrillWorkflow, verbs()["drill"].input(c, l))
	fatal(err)
	fatal(wait("the kill", func() (bool, error) { return lost.ended(), nil }))
	if count(l.work()+"/drill-*/PG_VERSION") != 1 || len(socketDirs(l.dir)) != 1 {
		t.Fatalf("nothing was left that could be reaped: %d, %v", count(l.work()+"/drill-*"), socketDirs(l.dir))
	}
	foreign := filepath.Join(l.work(), "drill-thesis")
	fatal(os.MkdirAll(foreign, 0o755))

	other, err := l.worker("h2")
	fatal(err)
	var res contract.DrillResult
	fatal(run.Get(ctx, &res))
	t.Logf("the lost host was given up after %.1f s", time.Since(lost.sprungAt()).Seconds())
	var rep contract.Report
	fatal(c.repo.GetDocument(ctx, "c1", "reports/"+res.DrillID, &rep))
	for _, text := range []string{"host h1", l.queue() + "@h1", "see that lifeboat-worker runs there", "may still be there"} {
		if !strings.Contains(rep.Failure, text) {
			t.Errorf("the report says %q, which lacks %q", rep.Failure, text)
		}
	}
	if res.Verdict != contract.CouldNotVerify || rep.CleanedUp {
		t.Errorf("verdict %s, cleaned up %v", res.Verdict, rep.CleanedUp)
	}
	if count(l.work()+"/drill-*/PG_VERSION") != 1 {
		t.Error("the files are gone before their host was back")
	}
	other.kill() // it shares the work directory here, and would reap at its next start only
	<-other.done
	_, err = l.worker(laneHost)
	fatal(err)
	fatal(wait("the reaper", func() (bool, error) { return count(l.work()+"/drill-*/PG_VERSION") == 0, nil }))
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("what Lifeboat did not make was removed: %v", err)
	}
	fatal(os.Remove(foreign))
	fatal(l.nothingLeft())
}
