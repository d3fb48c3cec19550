package workflows

import (
	"reflect"
	"strings"
	"testing"

	"lifeboat/internal/contract"
)

// What is wrong with a backup is a result, and is shown; the run itself has succeeded.
func TestVerify(t *testing.T) {
	r := newRun(t, Options{})
	r.execute(contract.VerifyWorkflow, backupInput)
	want := r.fakes.verified
	want.WorkflowID = "run-1"
	if got := resultOf[contract.VerifyResult](r); !reflect.DeepEqual(got, want) {
		t.Errorf("result is %+v, want %+v", got, want)
	}
	checkList(t, "activities", r.fakes.where(), "VerifyBackups lifeboat")
	in := inputOf[contract.VerifyInput](t, r.fakes, contract.VerifyBackupsActivity)
	if in.Cluster != "orders" || in.Backup != contract.VerifyLatest || in.UpTo() != contract.DefaultVerifyLevel || in.Level == nil {
		t.Errorf("input is %+v", in)
	}
	checkList(t, "search attributes", r.spy.attributes,
		"LifeboatCluster=orders", "LifeboatPhase=verify", "LifeboatPhase=done", "LifeboatVerdict=FAIL")
	_, details := r.shown()
	for _, text := range []string{"### Verify of orders", "✅ verify", "1 findings", "**Verdict: FAIL**", "there is a gap in the WAL"} {
		if !strings.Contains(details, text) {
			t.Errorf("details have no %q:\n%s", text, details)
		}
	}
}

func TestVerifyPassesOnWhatWasAskedFor(t *testing.T) {
	r := newRun(t, Options{})
	r.execute(contract.VerifyWorkflow, `{"cluster":"orders","backup":"all","level":0}`)
	resultOf[contract.VerifyResult](r)
	in := inputOf[contract.VerifyInput](t, r.fakes, contract.VerifyBackupsActivity)
	if in.Backup != contract.VerifyAll || in.UpTo() != 0 {
		t.Errorf("input is %+v, level %d", in, in.UpTo())
	}
}

// A verification that could not go on is a failed run without a verdict.
func TestVerifyErrors(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.before[contract.VerifyBackupsActivity] = always(typed(contract.ErrorInvalidInput, "no such backup"))
	r.execute(contract.VerifyWorkflow, `{"cluster":"orders","backup":"20261123T074500Z-full-000000"}`)
	r.failure(contract.ErrorInvalidInput, "no such backup")
	if n := r.fakes.attempts(contract.VerifyBackupsActivity); n != 1 {
		t.Errorf("%d attempts", n)
	}
	for _, a := range r.spy.attributes {
		if strings.HasPrefix(a, "LifeboatVerdict") {
			t.Errorf("it has a verdict: %s", a)
		}
	}
}
