package devtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

const taskQueue = "devtest"

var clusterKey = temporal.NewSearchAttributeKeyKeyword("LifeboatCluster")

// greet is a trivial workflow with a search attribute.
func greet(ctx workflow.Context, name string) (string, error) {
	if err := workflow.UpsertTypedSearchAttributes(ctx, clusterKey.ValueSet(name)); err != nil {
		return "", err
	}
	return "hello " + name, nil
}

// waitForWord ends when it is sent a word, and returns it.
func waitForWord(ctx workflow.Context) (string, error) {
	var word string
	workflow.GetSignalChannel(ctx, "word").Receive(ctx, &word)
	return word, nil
}

// work runs a worker until stop is called or the test ends.
func work(t *testing.T, c client.Client) (stop func()) {
	t.Helper()
	w := worker.New(c, taskQueue, worker.Options{})
	w.RegisterWorkflow(greet)
	w.RegisterWorkflow(waitForWord)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	return w.Stop
}

// TestStartDevServer is how Lifeboat's own tests start it.
func TestStartDevServer(t *testing.T) {
	uiPort := freePort(t)
	begun := time.Now()
	server, err := testsuite.StartDevServer(t.Context(), testsuite.DevServerOptions{
		ExistingPath:  binary,
		EnableUI:      true,
		UIPort:        uiPort,
		LogLevel:      "error",
		LogFormat:     "json",
		ClientOptions: &client.Options{Logger: quietLogger{}},
		ExtraArgs:     []string{"--search-attribute", "LifeboatCluster=Keyword"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ready after %v", time.Since(begun).Round(time.Millisecond))
	c := server.Client()
	stopWorker := work(t, c)

	runGreet(t, c)

	waitFor(t, 10*time.Second, "the web UI", func() error {
		return getOK(t.Context(), "http://127.0.0.1:"+uiPort+"/", "<html")
	})
	if err := getOK(t.Context(), "http://127.0.0.1:"+uiPort+"/api/v1/namespaces", `"default"`); err != nil {
		t.Errorf("the web UI does not reach the server: %v", err)
	}

	stopWorker()
	c.Close()
	begun = time.Now()
	if err := server.Stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if d := time.Since(begun); d > 2*time.Second {
		t.Errorf("it took %v to stop, more than 2 s", d)
	} else {
		t.Logf("stopped after %v", d.Round(time.Millisecond))
	}
}

// runGreet runs the trivial workflow and finds it by its search attribute.
func runGreet(t *testing.T, c client.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{TaskQueue: taskQueue}, greet, "orders")
	if err != nil {
		t.Fatal(err)
	}
	var got string
	if err := run.Get(ctx, &got); err != nil { // an unknown attribute is tried again for ever
		t.Fatal(err)
	}
	if got != "hello orders" {
		t.Errorf("workflow returned %q", got)
	}
	waitFor(t, 10*time.Second, "the workflow to be listed by its search attribute", func() error {
		list, err := c.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: "LifeboatCluster = 'orders'"})
		if err != nil {
			return err
		}
		for _, e := range list.Executions {
			if e.GetExecution().GetRunId() == run.GetRunID() {
				return nil
			}
		}
		return fmt.Errorf("not among the %d that are listed", len(list.Executions))
	})
}

// getOK fails unless the answer is 200 and contains the text.
func getOK(ctx context.Context, url, text string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(strings.ToLower(string(body)), text) {
		return fmt.Errorf("GET %s: %s, %d bytes, without %s", url, resp.Status, len(body), text)
	}
	return nil
}

// TestKillKeepsWaitingWorkflow kills the server while a workflow waits, starts
// it on the same file without naming the search attributes, and goes on.
func TestKillKeepsWaitingWorkflow(t *testing.T) {
	file, port := filepath.Join(t.TempDir(), "dev ?#%.db"), freePort(t)
	first := launch(t, port, "--headless", "--db-filename", file, "--search-attribute", "LifeboatCluster=Keyword")
	c := first.dial(t)
	stopWorker := work(t, c)
	run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "waiting", TaskQueue: taskQueue}, waitForWord)
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, 10*time.Second, "the workflow to wait", func() error {
		d, err := c.DescribeWorkflowExecution(t.Context(), run.GetID(), run.GetRunID())
		if err != nil {
			return err
		}
		if n := d.GetWorkflowExecutionInfo().GetHistoryLength(); n < 4 { // its first task is done
			return fmt.Errorf("its history has %d events", n)
		}
		return nil
	})
	first.signal(t, syscall.SIGKILL)
	stopWorker()

	begun := time.Now()
	second := launch(t, port, "--headless", "--db-filename", file)
	t.Logf("ready %v after kill -9", time.Since(begun).Round(time.Millisecond))
	c = second.dial(t)
	defer work(t, c)()
	if err := c.SignalWorkflow(t.Context(), run.GetID(), run.GetRunID(), "word", "still here"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got string
	if err := c.GetWorkflow(ctx, run.GetID(), run.GetRunID()).Get(ctx, &got); err != nil {
		t.Fatal(err)
	}
	if got != "still here" {
		t.Errorf("workflow returned %q", got)
	}
	runGreet(t, c) // the search attribute is still there
}

// TestSearchAttributeAddedLater names a search attribute only when the file has
// been in use without it; a second name for the same does no harm.
func TestSearchAttributeAddedLater(t *testing.T) {
	file, port := filepath.Join(t.TempDir(), "dev.db"), freePort(t)
	first := launch(t, port, "--headless", "--db-filename", file)
	c := first.dial(t)
	_, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
		TaskQueue:             taskQueue,
		TypedSearchAttributes: temporal.NewSearchAttributes(clusterKey.ValueSet("orders")),
	}, greet, "orders")
	if err == nil {
		t.Fatal("a search attribute that nobody registered is accepted: this test shows nothing")
	}
	if d := first.signal(t, syscall.SIGTERM); d > 2*time.Second {
		t.Errorf("it took %v to stop, more than 2 s", d)
	}
	if code := first.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0; stderr: %s", code, first.stderr)
	}
	for range 2 {
		p := launch(t, port, "--headless", "--db-filename", file, "--search-attribute", "LifeboatCluster=Keyword")
		c := p.dial(t)
		stopWorker := work(t, c)
		runGreet(t, c)
		stopWorker()
		p.signal(t, syscall.SIGTERM)
	}

	other := spawn(t, "server", "start-dev", "--port", port, "--headless", "--db-filename", file, "--search-attribute", "LifeboatCluster=Int")
	expectEnd(t, other, 1, "LifeboatCluster exists as Keyword, not Int")
}

// TestKillDuringFirstStart kills the server again and again while it makes its
// database, a little later each time; what is left must do for the last start.
func TestKillDuringFirstStart(t *testing.T) {
	file, port := filepath.Join(t.TempDir(), "dev.db"), freePort(t)
	args := []string{"--headless", "--db-filename", file, "--search-attribute", "LifeboatCluster=Keyword"}
	early := 0
	for range 5 {
		for delay := time.Duration(0); delay < 80*time.Millisecond; delay += 10 * time.Millisecond {
			p := spawn(t, append([]string{"server", "start-dev", "--port", port}, args...)...)
			waitFor(t, 20*time.Second, "the server to take the file", func() error {
				_, err := os.Stat(file)
				return err
			})
			<-time.After(delay)
			if p.stdout.String() == "" {
				early++
			}
			p.signal(t, syscall.SIGKILL)
		}
		last := launch(t, port, args...)
		c := last.dial(t)
		stopWorker := work(t, c)
		runGreet(t, c)
		stopWorker()
		last.signal(t, syscall.SIGKILL)
		removeDatabase(t, file)
	}
	if early < 20 {
		t.Errorf("only %d of 40 kills came before the server was ready: this test shows little", early)
	}
}

// removeDatabase removes the file and what belongs to it.
func removeDatabase(t *testing.T, file string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal", "-shm", "-journal"} {
		if err := os.Remove(file + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// TestSignalDuringStart stops it before it is ready.
func TestSignalDuringStart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dev.db")
	p := spawn(t, "server", "start-dev", "--port", freePort(t), "--headless", "--db-filename", file)
	waitFor(t, 20*time.Second, "the server to take the file", func() error {
		_, err := os.Stat(file + ".lock")
		return err
	})
	if d := p.signal(t, syscall.SIGTERM); d > 2*time.Second {
		t.Errorf("it took %v to stop, more than 2 s", d)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 || p.stderr.String() != "" || p.stdout.String() != "" {
		t.Errorf("exit code %d, stdout %q, stderr %q; want 0 and nothing", code, p.stdout, p.stderr)
	}
}
