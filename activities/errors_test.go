package activities

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/user"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/contract"
	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

// kinds says what kind each engine's error is: whether trying again may help ("") is decided here.
var kinds = []struct {
	name string
	err  error
	want string
}{
	{"input", &InputError{errors.New("x")}, contract.ErrorInvalidInput},
	{"refused plan", &recovery.RefusedError{Reason: "x"}, contract.ErrorRefused},
	{"other server", &repo.IdentityError{}, contract.ErrorRefused},
	{"other directory", pginstance.ErrNotOurs, contract.ErrorRefused},
	{"lease held", &repo.BusyError{}, contract.ErrorBusy},
	{"lease not readable", &repo.BusyError{Damage: &repo.DamageError{}}, ""},
	{"not in the configuration", &ConfigurationError{"x"}, contract.ErrorConfiguration},
	{"dsn", dbcore.ErrInvalidConfig, contract.ErrorConfiguration},
	{"no repository", repo.ErrNoRepository, contract.ErrorConfiguration},
	{"archiving is off", &basebackup.UnsupportedError{Reason: "x"}, contract.ErrorConfiguration},
	{"old version", &pg.UnsupportedVersionError{Major: 14}, contract.ErrorConfiguration},
	{"PostgreSQL is not installed", pginstance.ErrNoBinaries, contract.ErrorConfiguration},
	{"no such user", user.UnknownUserError("x"), contract.ErrorConfiguration},
	{"another place reached", &recovery.AssertionError{}, contract.ErrorFailed},
	{"server ended", &pginstance.ExitError{}, contract.ErrorFailed},
	{"target missed", pginstance.ErrTargetMissed, contract.ErrorFailed},
	{"backup without WAL", &basebackup.WALTimeoutError{Missing: &wal.MissingError{}}, contract.ErrorFailed},
	{"two servers archive", &repo.WALConflictError{}, contract.ErrorFailed},
	{"damaged object", &repo.DamageError{Key: "x"}, contract.ErrorFailed},
	{"lease lost", repo.ErrLeaseLost, ""},
	{"WAL has not come", &wal.MissingError{}, ""},
	{"store", fault.ErrInjected, ""},
	{"deadline", context.DeadlineExceeded, ""},
	{"anything", errors.New("x"), ""},
	{"nothing", nil, ""},
}

func TestErrorType(t *testing.T) {
	for _, c := range kinds {
		if got := ErrorType(c.err); got != c.want {
			t.Errorf("%s is %q, want %q", c.name, got, c.want)
		}
		if c.err == nil {
			continue
		}
		if got := ErrorType(fmt.Errorf("deep: %w", fmt.Errorf("down: %w", c.err))); got != c.want {
			t.Errorf("%s, wrapped, is %q, want %q", c.name, got, c.want)
		}
	}
}

// environment runs work as an activity.
func environment(t *testing.T) *testsuite.TestActivityEnvironment {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	return suite.NewTestActivityEnvironment()
}

type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

// Temporal sees the type, the message, and whether to try again.
func TestRegister_TellsTemporalWhatKindOfErrorItIs(t *testing.T) {
	for _, c := range kinds {
		if c.err == nil {
			continue
		}
		env := environment(t)
		register(env, slog.New(slog.DiscardHandler), "work", func(context.Context, string, Run) (string, error) { return "", fmt.Errorf("the message: %w", c.err) })
		_, err := env.ExecuteActivity("work", "")
		var app *temporal.ApplicationError
		if !errors.As(err, &app) {
			t.Fatalf("%s: %v", c.name, err)
		}
		want := c.want
		if want == "" {
			want = "Transient"
		}
		if app.Type() != want || app.NonRetryable() != (c.want != "") || !strings.HasPrefix(app.Message(), "the message: ") {
			t.Errorf("%s: type %q, final %v, message %q", c.name, app.Type(), app.NonRetryable(), app.Message())
		}
	}
}

func TestRegister_ResultsAndRun(t *testing.T) {
	env := environment(t)
	register(env, slog.New(slog.DiscardHandler), "work", func(ctx context.Context, in string, run Run) (string, error) {
		if run.WorkflowID != activity.GetInfo(ctx).WorkflowExecution.ID || run.WorkflowID == "" {
			t.Errorf("the run's id is %q", run.WorkflowID)
		}
		run.Progress(contract.Progress{Phase: "x"})
		return in + "!", nil
	})
	value, err := env.ExecuteActivity("work", "done")
	var out string
	if err != nil || value.Get(&out) != nil || out != "done!" {
		t.Errorf("%q, %v", out, err)
	}
}

// A worker that stops ends the work at once, and says so in a way that another goes on, whatever the work's error is.
func TestRegister_AStoppingWorkerHandsOn(t *testing.T) {
	for name, err := range map[string]error{"its context's": nil, "a final one": &recovery.RefusedError{Reason: "x"}} {
		env := environment(t)
		stopping := make(chan struct{})
		env.SetWorkerStopChannel(stopping)
		register(env, slog.New(slog.DiscardHandler), "work", func(ctx context.Context, _ string, _ Run) (string, error) {
			close(stopping)
			select {
			case <-ctx.Done():
			case <-time.After(time.Minute):
				t.Error("the work was not ended")
			}
			if err == nil {
				return "", ctx.Err()
			}
			return "", err
		})
		_, got := env.ExecuteActivity("work", "")
		var app *temporal.ApplicationError
		if !errors.As(got, &app) || app.Type() != "WorkerStopped" || app.NonRetryable() {
			t.Errorf("error %s: %v", name, got)
		}
	}
	// What was finished nevertheless counts.
	env := environment(t)
	stopping := make(chan struct{})
	env.SetWorkerStopChannel(stopping)
	register(env, slog.New(slog.DiscardHandler), "work", func(context.Context, string, Run) (string, error) { close(stopping); return "done", nil })
	if _, err := env.ExecuteActivity("work", ""); err != nil {
		t.Errorf("finished work of a stopping worker: %v", err)
	}
}

func TestRegister_EveryActivityUnderItsName(t *testing.T) {
	var names registry
	Register(&names, NewRunner(Settings{}))
	want := []string{
		contract.PlanBackupActivity, contract.TakeBackupActivity, contract.PlanRestoreActivity, contract.LayFilesActivity, contract.StartServerActivity,
		contract.PrepareDrillActivity, contract.ProveRecoveryActivity, contract.CleanUpDrillActivity, contract.PublishReportActivity, contract.VerifyBackupsActivity,
		contract.PlanMigrationActivity, contract.RehearseMigrationActivity, contract.MarkRestorePointActivity,
		contract.ApplyMigrationActivity, contract.CheckMigratedActivity, contract.RevertMigrationActivity,
		contract.CheckHealthActivity,
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("registered are %v, want %v", names, want)
	}
}

type registry []string

func (r *registry) RegisterActivityWithOptions(_ any, options activity.RegisterOptions) {
	*r = append(*r, options.Name)
}

// clock is a time that a test moves, and the beats that were sent.
type clock struct {
	at    time.Time
	beats []contract.Progress
}

func (c *clock) beater() *beater {
	return newBeater(func(p contract.Progress) { c.beats = append(c.beats, p) }, func() time.Time { return c.at })
}

func (c *clock) after(d time.Duration, f func()) int {
	c.at = c.at.Add(d)
	before := len(c.beats)
	f()
	return len(c.beats) - before
}

func TestBeater_StopsBeatingWhenTheWorkHangs(t *testing.T) {
	c := &clock{at: time.Now()}
	b := c.beater()
	if c.after(time.Hour, b.beat) != 1 {
		t.Error("work that has not reported yet has no heartbeat")
	}
	say := func(p contract.Progress) func() { return func() { b.progress(p) } }
	for _, step := range []struct {
		name  string
		after time.Duration
		do    func()
		beats int
	}{
		{"a first report is sent at once", time.Second, say(contract.Progress{Phase: "copy", Done: 0, Total: 100}), 1},
		{"it is repeated", 9 * time.Minute, b.beat, 1},
		{"bytes that stand still are not", 61 * time.Second, b.beat, 0},
		{"saying the same again does not help", 0, say(contract.Progress{Phase: "copy", Done: 0, Total: 100}), 0},
		{"nor then", 0, b.beat, 0},
		{"a byte does", 0, say(contract.Progress{Phase: "copy", Done: 1, Total: 100}), 1},
		{"and then", 9 * time.Minute, b.beat, 1},
		{"another thing awaited does", time.Hour, say(contract.Progress{Phase: "copy", Done: 1, Total: 100, Waiting: "x"}), 1},
		{"the next phase does", time.Hour, say(contract.Progress{Phase: "amcheck"}), 1},
		{"work that counts nothing may be silent for long", 5 * time.Hour, b.beat, 1},
		{"but not for ever", 61 * time.Minute, b.beat, 0},
		{"the wait for WAL has a patience of its own", 0, say(contract.Progress{Phase: "wal", Done: 1, Total: 2, Waiting: "s"}), 1},
		{"which may be long", time.Hour, b.beat, 1},
	} {
		if got := c.after(step.after, step.do); got != step.beats {
			t.Errorf("%s: %d beats, want %d", step.name, got, step.beats)
		}
	}
}

func TestBeater_CarriesTheLastProgressAndARate(t *testing.T) {
	c := &clock{at: time.Now()}
	b := c.beater()
	b.progress(contract.Progress{Phase: "copy", Done: 100, Total: 1000})
	c.after(2*time.Second, func() { b.progress(contract.Progress{Phase: "copy", Done: 300, Total: 1000}) })
	c.after(5*time.Second, b.beat)
	last := c.beats[len(c.beats)-1]
	if last.Done != 300 || last.Rate != 100 || last.Phase != "copy" || last.Total != 1000 {
		t.Errorf("the last beat is %+v", last)
	}
	// A clock that stands still gives no rate: infinity is no JSON, and the SDK panics on what it cannot encode.
	b.progress(contract.Progress{Phase: "copy", Done: 350, Total: 1000})
	b.progress(contract.Progress{Phase: "copy", Done: 400, Total: 1000})
	if last := c.beats[len(c.beats)-1]; last.Rate != 0 || last.Done != 400 {
		t.Errorf("the last beat is %+v", last)
	}
	c.after(time.Second, func() { b.progress(contract.Progress{Phase: "next", Done: 900, Total: 1000}) })
	if last := c.beats[len(c.beats)-1]; last.Rate != 0 {
		t.Errorf("a new phase begins with a rate of %v", last.Rate)
	}
}

func TestBeater_KeepsBeatingUntilStopped(t *testing.T) {
	beats := make(chan contract.Progress, 1000)
	b := newBeater(func(p contract.Progress) { beats <- p }, time.Now)
	b.progress(contract.Progress{Phase: "x"})
	stop := b.keep(t.Context(), time.Millisecond)
	for range 5 {
		select {
		case p := <-beats:
			if p.Phase != "x" {
				t.Errorf("beat %+v", p)
			}
		case <-time.After(time.Minute):
			t.Fatal("no beat")
		}
	}
	stop()
	for len(beats) > 0 {
		<-beats
	}
	<-time.After(20 * time.Millisecond)
	if len(beats) > 0 {
		t.Error("it beats on after it was stopped")
	}
}
