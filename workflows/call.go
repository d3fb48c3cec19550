package workflows

import (
	"errors"
	"fmt"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"lifeboat/internal/contract"
)

// errorNoWorker is the type of the error that tells that a host's queue has no worker.
const errorNoWorker = "NoWorker"

// call says which activity runs where.
type call struct {
	activity string
	// host and queue bind the call to one host; both empty means the workflow's own queue.
	host, queue string
	// summary is shown at the activity in the UI.
	summary string
}

// execute runs one activity and explains its failure. The types of In and Out are those that package contract gives
// the activity; nothing else checks them, because activities are called by name.
func execute[In, Out any](ctx workflow.Context, o Options, c call, in In) (Out, error) {
	var out Out
	ctx = workflow.WithActivityOptions(ctx, o.activityOptions(c))
	if err := workflow.ExecuteActivity(ctx, c.activity, in).Get(ctx, &out); err != nil {
		var none Out
		return none, o.explain(c, err)
	}
	return out, nil
}

// explain turns an activity's error into one whose first line a person can act on, and keeps its type, so that callers
// can decide on it. A cancellation stays what it is.
func (o Options) explain(c call, err error) error {
	if temporal.IsCanceledError(err) {
		return err
	}
	cause := err
	var failed *temporal.ActivityError
	if errors.As(err, &failed) {
		cause = failed.Unwrap()
	}
	switch cause := cause.(type) { //nolint:errorlint // the cause itself, not what it in turn wraps
	case *temporal.ApplicationError:
		return temporal.NewNonRetryableApplicationError(c.activity+": "+cause.Message(), cause.Type(), err)
	case *temporal.TimeoutError:
		return o.explainTimeout(c, cause, err)
	}
	return fmt.Errorf("%s: %w", c.activity, err)
}

func (o Options) explainTimeout(c call, timeout *temporal.TimeoutError, err error) error {
	switch timeout.TimeoutType() {
	case enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START:
		return temporal.NewNonRetryableApplicationError(fmt.Sprintf(
			"%s: no worker on host %s took it from task queue %s within %v: see that lifeboat-worker runs there and "+
				"serves this host, then start again, or choose another host; what is already laid is kept",
			c.activity, c.host, c.queue, o.hostTimeout(c)), errorNoWorker, err)
	case enumspb.TIMEOUT_TYPE_HEARTBEAT:
		return temporal.NewNonRetryableApplicationError(fmt.Sprintf(
			"%s: its worker went silent for %v at the last of %d attempts: see the worker's log, and whether the host "+
				"kills it (memory)", c.activity, o.HeartbeatTimeout, limitsOf(c.activity).attempts), "Timeout", err)
	}
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(
		"%s: not finished within the time for it (%s)", c.activity, timeout.TimeoutType()), "Timeout", err)
}

// errorType is the type of the outermost application error, or "".
func errorType(err error) string {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return app.Type()
	}
	return ""
}

// reason is what a person should read of an error: its own message without those of what it wraps.
func reason(err error) string {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return app.Message()
	}
	return err.Error()
}

// shorten cuts text to a number of bytes, on a rune, and to one line.
func shorten(text string, limit int) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) <= limit {
		return text
	}
	const mark = "…"
	cut := 0
	for i := range text {
		if i > limit-len(mark) {
			break
		}
		cut = i
	}
	return text[:cut] + mark
}

// summarize fits text into an activity's summary. What JSON would write as an escape of several bytes is replaced, so
// that the length of the text is that of the payload.
func summarize(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || strings.ContainsRune("<>&\"\\", r) {
			return '\''
		}
		return r
	}, shorten(text, maxSummary))
}

// describe puts a target into words.
func describe(t contract.Target) string {
	text := t.Kind
	if text == "" {
		text = targetLatest
	}
	if t.Value != "" {
		text += " " + t.Value
	}
	if t.Exclusive {
		text += " (exclusive)"
	}
	return text
}
