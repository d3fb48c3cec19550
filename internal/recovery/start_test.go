package recovery_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/recovery"
)

// testStartAgain: whatever a dead attempt had reached, the next one comes to the same end (invariant 11).
func testStartAgain(t *testing.T, b *bench) {
	p := b.plan(t, recovery.PlanOptions{})
	if _, err := recovery.Lay(t.Context(), p, b.lay()); err != nil {
		t.Fatal(err)
	}
	calls := 0
	start := func(ctx context.Context, at func() error) (*recovery.Server, error) {
		return recovery.Start(ctx, p, recovery.StartOptions{SocketOnly: true, AtTarget: func(context.Context, *pginstance.Instance) error {
			calls++
			return at()
		}})
	}
	broken := errors.New("broken off at the target")
	if _, err := start(t.Context(), func() error { return broken }); !errors.Is(err, broken) || running(t, p.TargetDir) != 0 {
		t.Fatalf("error %v, %d servers", err, running(t, p.TargetDir))
	}
	var ends []recovery.Reached
	for range 3 { // the first pauses again where it was, and promotes; the others find a promoted server
		s, err := start(t.Context(), func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if got := query(t, s, rowsOf); got != "1,2" {
			t.Errorf("rows %s", got)
		}
		ends = append(ends, s.Reached)
		if err := s.Instance.Stop(t.Context(), pginstance.Immediate); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range ends {
		if r.LSN != p.Stop.ReplayedTo || r.Timeline != 2 || !r.LastCommitAt.Equal(p.Stop.LastTime.Time()) {
			t.Errorf("reached %+v", r)
		}
	}
	if calls != 2 {
		t.Errorf("AtTarget was called %d times, want once for each time that the server was paused there", calls)
	}
	var result string
	if recovery.Recorded(p, &result) == nil {
		t.Error("there is a record before there was a Record")
	}
	if err := recovery.Record(p, "done"); err != nil {
		t.Fatal(err)
	}
	if err := recovery.Recorded(p, &result); err != nil || result != "done" {
		t.Errorf("recorded %q, %v", result, err)
	}
	other := *p
	other.Hash = "another"
	if recovery.Recorded(&other, &result) == nil {
		t.Error("another plan takes the record for its own")
	}
	// A server that somebody else promoted is nobody's to judge.
	if err := os.Remove(filepath.Join(p.TargetDir, "lifeboat.reached.json")); err != nil {
		t.Fatal(err)
	}
	var refused *recovery.RefusedError
	if _, err := start(t.Context(), func() error { return nil }); !errors.As(err, &refused) {
		t.Errorf("a promoted server of unknown origin: %v", err)
	}
}

// testStartFails: no failure leaves a server, and none but the planned place is promoted (invariant 5).
func testStartFails(t *testing.T, b *bench) {
	lay := func(t *testing.T, change func(*recovery.Plan), opts recovery.LayOptions) *recovery.Plan {
		t.Helper()
		p := b.plan(t, recovery.PlanOptions{})
		change(p)
		p.Rehash()
		if _, err := recovery.Lay(t.Context(), p, opts); err != nil {
			t.Fatal(err)
		}
		return p
	}
	fetchNothing := b.lay()
	fetchNothing.FetchCommand = []string{"/bin/false"}
	tests := []struct {
		name    string
		change  func(*recovery.Plan)
		opts    recovery.LayOptions
		limit   time.Duration
		want    string
		asserts bool
	}{
		{"another place than planned", func(p *recovery.Plan) { p.Stop.ReplayedTo += 8 << 10 }, b.lay(), time.Minute, "nothing was promoted", true},
		{"another transaction than planned", func(p *recovery.Plan) { at := *p.Stop.LastTime + 1; p.Stop.LastTime = &at }, b.lay(), time.Minute, "last transaction", true},
		{"WAL that cannot be fetched", func(*recovery.Plan) {}, fetchNothing, time.Minute, "has ended", false},
		{"no time", func(*recovery.Plan) {}, b.lay(), 60 * time.Millisecond, "deadline", false},
		{"a version that is not here", func(p *recovery.Plan) { p.PostgresMajor = 16 }, b.lay(), time.Minute, "16", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := lay(t, tt.change, tt.opts)
			ctx, cancel := context.WithTimeout(t.Context(), tt.limit)
			defer cancel()
			_, err := recovery.Start(ctx, p, recovery.StartOptions{SocketOnly: true, Detached: true})
			var asserted *recovery.AssertionError
			if err == nil || !strings.Contains(err.Error(), tt.want) || errors.As(err, &asserted) != tt.asserts {
				t.Errorf("error %v", err)
			}
			if n := running(t, p.TargetDir); n != 0 {
				t.Errorf("%d servers are left", n)
			}
			if _, err := os.Stat(filepath.Join(p.TargetDir, "pg_wal", "00000002.history")); err == nil {
				t.Error("it was promoted")
			}
		})
	}
	t.Run("not laid", func(t *testing.T) {
		p := b.plan(t, recovery.PlanOptions{})
		if _, err := recovery.Start(t.Context(), p, recovery.StartOptions{}); err == nil || strings.Contains(err.Error(), "%!") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("changed after it was made", func(t *testing.T) {
		p := b.plan(t, recovery.PlanOptions{})
		p.TargetDir += "2"
		if _, err := recovery.Lay(t.Context(), p, b.lay()); err == nil {
			t.Error("it was laid")
		}
		if _, err := recovery.Start(t.Context(), p, recovery.StartOptions{}); err == nil {
			t.Error("it was started")
		}
	})
}

// startChild is testStartDetached's other half: it starts a server for a person, prints its process id, and ends.
func startChild(spec string) error {
	data, err := os.ReadFile(spec)
	if err != nil {
		return err
	}
	var p recovery.Plan
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	_, err = recovery.Start(context.Background(), &p, recovery.StartOptions{SocketOnly: true, Detached: true})
	return err
}

// testStartDetached: a server for a person outlives the process that started it (R21). With pause it stays readable.
func testStartDetached(t *testing.T, b *bench) {
	p := b.plan(t, recovery.PlanOptions{Action: recovery.Pause})
	if _, err := recovery.Lay(t.Context(), p, b.lay()); err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(filepath.Dir(p.TargetDir), "plan.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "LIFEBOAT_TEST_START="+file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	in, err := pginstance.Attach(p.TargetDir, pginstance.AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Stop(context.Background(), pginstance.Immediate) })
	if st := in.Status(t.Context()); st.State != pginstance.StatePaused || st.ReplayLSN != p.Stop.ReplayedTo {
		t.Errorf("the server is %v", st)
	}
	if err := in.Stop(t.Context(), pginstance.Fast); err != nil {
		t.Error(err)
	}
}
