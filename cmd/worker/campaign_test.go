package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"go.temporal.io/sdk/client"

	"lifeboat/internal/assemble"
	"lifeboat/internal/contract"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
)

// target is a place in a run to kill its worker at: as an activity begins (no phase), or in a phase of one, at least
// that far.
type target struct {
	activity, phase string
	percent         int
}

func (t target) String() string {
	switch {
	case t.phase == "":
		return t.activity
	case t.percent > 0:
		return fmt.Sprintf("%s: %s from %d %%", t.activity, t.phase, t.percent)
	}
	return t.activity + ": " + t.phase
}

func (t target) reached(e event) bool {
	return e.Activity == t.activity && (t.phase == "" && e.Msg == lineBegins || t.phase != "" && e.Phase == t.phase && e.Percent >= t.percent)
}

// targets are all phases of each verb; those that count bytes at several shares of them.
func targets() map[string][]target {
	const (
		backup, verify, prove = contract.TakeBackupActivity, contract.VerifyBackupsActivity, contract.ProveRecoveryActivity
		plan, lay, start      = contract.PlanRestoreActivity, contract.LayFilesActivity, contract.StartServerActivity
	)
	return map[string][]target{
		"backup": {
			{backup, "checkpoint", 0},
			{backup, "copy", 10},
			{backup, "publish", 0},
			{backup, "copy", 60},
			{backup, "wal", 0},
			{backup, "", 0},
			{backup, "copy", 30},
			{backup, "publish", 0},
			{backup, "copy", 80},
			{backup, "wal", 0},
		},
		"restore": {
			{plan, "", 0},
			{lay, "lay", 10},
			{start, "replay", 0},
			{start, "promote", 0},
			{lay, "lay", 70},
			{lay, "", 0},
			{lay, "lay", 30},
			{start, "", 0},
			{start, "replay", 50},
			{start, "promote", 0},
		},
		"verify": {
			{verify, "objects", 20},
			{verify, "pages", 10},
			{verify, "pg_verifybackup", 0},
			{verify, "promote", 0},
			{verify, "lay", 60},
			{verify, "wal", 0},
			{verify, "lay", 10},
			{verify, "replay", 0},
			{verify, "pg_checksums", 0},
			{verify, "pages", 60},
		},
		"drill": {
			{contract.PrepareDrillActivity, "canary", 0},
			{lay, "lay", 20},
			{prove, "replay", 0},
			{prove, "check", 0},
			{contract.CleanUpDrillActivity, "", 0},
			{plan, "", 0},
			{prove, "", 0},
			{prove, "promote", 0},
			{prove, "amcheck", 0},
			{contract.PublishReportActivity, "", 0},
		},
	}
}

// chosen gives n targets of a list; the second half of the majors begins in its middle, so that few kills see all.
func chosen(list []target, half, n int, random *rand.Rand) []target {
	out := make([]target, 0, n)
	for i := range n {
		t := list[(half*len(list)/2+i)%len(list)]
		if i >= len(list) && t.percent > 0 {
			t.percent = 5 + random.IntN(85) // again, elsewhere
		}
		out = append(out, t)
	}
	return out
}

// row is one kill in the table.
type row struct {
	verb            string
	major           int
	at              event
	share           string
	attempts        int
	seconds         float64
	verdict, remark string
	counts          bool
}

// campaign is the truth that all runs are measured by: one protected cluster that does not change.
type campaign struct {
	*stack
	backup string // the one that restores, verifications and drills use
	digest string // of its rows at the restore point
	repo   *repo.Repository
}

const truth = "truth" // the restore point

func newCampaign(t *testing.T, s *stack) *campaign {
	t.Helper()
	c := &campaign{stack: s}
	s.Exec(t, "create table bulk (id int, v float8[])")
	s.Exec(t, "alter table bulk alter v set storage external")
	s.Exec(t, "insert into bulk select g, array(select random() + g * 0 from generate_series(1, 1000)) from generate_series(1, 4000) g")
	s.Exec(t, "create table small as select g as id, md5(g::text) as t from generate_series(1, 20000) g")
	s.Exec(t, "create index on small (t)")
	out, _ := s.lifeboat(t, 0, "backup", "c1", "--local", "--json", "--config", s.config)
	c.backup = decode[contract.BackupResult](t, out).BackupID
	// The truth changes after the backup, so that replay counts too.
	s.Exec(t, "update small set t = t || 'x' where id % 3 = 0")
	s.Exec(t, "update bulk set id = id + 1 where id % 10 = 0")
	s.Exec(t, "select pg_create_restore_point('"+truth+"')")
	c.digest = s.SQL(t, digest)
	segment := s.SQL(t, "select pg_walfile_name(pg_switch_wal())")
	waitFor(t, "the last WAL", func() bool { return count(s.dir+"/repo/clusters/c1/wal/segments/*/"+segment) == 1 })
	var err error
	if c.repo, err = assemble.OpenRepository(t.Context(), "file://"+s.dir+"/repo", false); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestKill_Campaign kills the worker in every phase of every verb, and at shares of those that count; each time another
// goes on, the run ends as if nothing had been, and nothing is left behind (invariant 11).
func TestKill_Campaign(t *testing.T) {
	majors := []int{}
	for _, m := range pgtest.Majors(t) {
		if m == 15 || m == 17 {
			majors = append(majors, m)
		}
	}
	kills := min(20, 5*pgtest.Scale(t))
	server, address := startTemporal(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var (
		rows []row
		mu   sync.Mutex
		wg   sync.WaitGroup
	)
	begun := time.Now()
	for half, major := range majors {
		c := newCampaign(t, stackOn(t, server, address, pgtest.Options{Major: major}))
		for verb, list := range targets() {
			l := c.newLane(t, verb, "--heartbeat-timeout", "3s")
			plan := chosen(list, half%2, kills, rand.New(rand.NewPCG(seed, uint64(major))))
			wg.Go(func() {
				done := c.run(t.Context(), l, verb, plan)
				mu.Lock()
				defer mu.Unlock()
				rows = append(rows, done...)
			})
		}
	}
	wg.Wait()
	report(t, rows, time.Since(begun))
	hit := map[string]bool{}
	for _, r := range rows {
		if r.verdict != "ok" {
			t.Errorf("%s on %d, killed in %s %s: %s", r.verb, r.major, r.at.Activity, r.at.Phase, r.verdict)
		}
		if r.counts {
			hit[r.verb+" "+r.at.Activity+" "+r.at.Phase] = true
		}
	}
	for verb, list := range targets() {
		for _, want := range list {
			if len(majors) > 1 && !hit[verb+" "+want.activity+" "+want.phase] {
				t.Errorf("%s was never killed in %s", verb, want)
			}
		}
		for _, major := range majors {
			n := 0
			for _, r := range rows {
				if r.verb == verb && r.major == major && r.counts {
					n++
				}
			}
			if n < kills {
				t.Errorf("%s on %d: %d kills count, want %d", verb, major, n, kills)
			}
		}
	}
}

// report shows the table; with LIFEBOAT_TEST_TABLES set also in a file of that folder.
func report(t *testing.T, rows []row, took time.Duration) {
	t.Helper()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "verb\tmajor\tkilled in\tprogress\tattempts\tseconds until done\tverdict")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%d\t%.1f\t%s\n", r.verb, r.major, strings.TrimSuffix(r.at.Activity+" "+r.at.Phase, " "), r.share,
			r.attempts, r.seconds, strings.TrimSpace(r.verdict+" "+r.remark))
	}
	_ = w.Flush()
	fmt.Fprintf(&b, "%d kills in %.0f s\n", len(rows), took.Seconds())
	t.Logf("kill campaign:\n%s", b.String())
	if dir := os.Getenv("LIFEBOAT_TEST_TABLES"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "kills.txt"), []byte(b.String()), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// run kills one verb's worker at each target. A run that had finished before its kill, or whose worker had got beyond
// the phase when the signal came, is repeated.
func (c *campaign) run(ctx context.Context, l *lane, verb string, plan []target) []row {
	var rows []row
	worker, err := l.worker(laneHost)
	for i, at := range plan {
		const most = 6
		for try := 1; ; try++ {
			r := row{verb: verb, major: l.Bin.Major, at: event{Activity: at.activity, Phase: at.phase}}
			if err == nil {
				worker, err = c.kill(ctx, l, worker, fmt.Sprintf("%s-%d-%d-%d", verb, l.Bin.Major, i, try), at, &r)
			}
			if err != nil {
				r.verdict = err.Error()
				return append(rows, r)
			}
			rows = append(rows, r)
			if r.counts && r.at.Phase == at.phase || try == most {
				break
			}
		}
	}
	return rows
}

// kill is one run with one kill. It returns the worker that lives on.
func (c *campaign) kill(ctx context.Context, l *lane, worker *victim, id string, at target, r *row) (*victim, error) {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	worker.set(func(e event) bool { return e.Workflow == id && at.reached(e) }, worker.kill)
	verb := verbs()[r.verb]
	run, err := l.begin(ctx, id, verb.workflow, verb.input(c, l))
	if err != nil {
		return nil, err
	}
	running := true
	err = wait("the kill of "+id, func() (bool, error) {
		if worker.ended() {
			return true, nil
		}
		running, err = l.running(ctx, id)
		return !running, err
	})
	worker.set(nil, nil)
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, worker.tail(30))
	}
	next := worker
	if worker.ended() {
		if running, err = l.running(ctx, id); err != nil {
			return nil, err
		}
		r.at = worker.last(id)
		r.share = progress(r.at)
		if next, err = l.worker(laneHost); err != nil {
			return nil, err
		}
	}
	if !running {
		r.remark = "(had finished before: does not count)"
	}
	if err := verb.check(ctx, c, l, run, id); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", at, err, next.tail(30))
	}
	r.seconds = time.Since(worker.sprungAt()).Seconds()
	if r.attempts, _, err = l.attempts(ctx, id, r.at.Activity); err != nil {
		return nil, err
	}
	if r.counts = running && next != worker; r.counts && r.attempts < 2 {
		return nil, fmt.Errorf("%s: killed, but there is only one attempt at %s", at, r.at.Activity)
	}
	if r.counts && r.at.Phase != at.phase {
		r.remark = fmt.Sprintf("(meant: %s, so repeated)", at)
	}
	r.verdict = "ok"
	return next, l.nothingLeft()
}

func progress(e event) string {
	if e.Msg == lineProgress && e.Percent > 0 {
		return strconv.Itoa(e.Percent) + " %"
	}
	return ""
}

// verb is how a verb runs and what must be true afterwards.
type verb struct {
	workflow string
	input    func(*campaign, *lane) any
	check    func(context.Context, *campaign, *lane, client.WorkflowRun, string) error
}
