package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/contract"
)

// loss is what the accident destroyed, and the moment to go back to.
type loss struct {
	target time.Time // after the row that must come back, before the row that must not
	at     time.Time // when the table was dropped
	wrong  time.Time // after the row that must not come back: for sabotage
	rows   int64     // in the table at the target
	sum    string    // digest of its content then
}

// Verdicts of the demo beside the drill's own.
var errNotPassed = errors.New("the drill's verdict is not PASS")

// accident loses the table, drills the recovery to the second before, and shows the report.
func (d *demo) accident(ctx context.Context) error {
	load, err := d.startLoad(ctx)
	if err != nil {
		return err
	}
	defer load.stop()
	lost, err := d.loseTable(ctx, load)
	if err != nil {
		return err
	}
	load.stop()
	d.say("orders had %d rows at %s; at %s somebody dropped the table", lost.rows,
		lost.target.Format(time.RFC3339Nano), lost.at.Format(time.RFC3339Nano))
	if err := d.archived(ctx); err != nil {
		return err
	}
	checks, err := d.writeChecks(lost)
	if err != nil {
		return err
	}
	target := lost.target
	switch d.opts.Sabotage {
	case "wrong-target":
		target = lost.wrong
	case "no-wal":
		if err := d.removeWAL(); err != nil {
			return err
		}
	}
	return d.drill(ctx, target, lost.at, checks)
}

// loseTable writes a row, notes the moment, writes another a second later, and drops the table.
func (d *demo) loseTable(ctx context.Context, l *load) (loss, error) {
	var out loss
	db, err := d.connect(ctx)
	if err != nil {
		return out, err
	}
	defer db.Close()
	time.Sleep(500 * time.Millisecond) // some orders after the backup, before the moment
	note := func(text string) error {
		_, err := db.Exec(ctx, "insert into note values ($1)", text)
		return err
	}
	l.quiet.Lock() // commit times of concurrent sessions may cross within microseconds (R19): not around this moment
	if d.opts.Sabotage != "wrong-row" {
		err = note("before")
	}
	if err == nil {
		time.Sleep(5 * time.Millisecond)
		out.target, err = dbcore.One[time.Time](ctx, db, "select clock_timestamp()")
		time.Sleep(5 * time.Millisecond)
	}
	if err == nil {
		type digest struct {
			Rows int64
			Sum  string
		}
		var got digest
		got, err = dbcore.One[digest](ctx, db, "select count(*) as rows, "+contentDigest+" as sum from orders")
		out.rows, out.sum = got.Rows, got.Sum
	}
	l.quiet.Unlock()
	if err != nil {
		return out, err
	}
	time.Sleep(beforeLoss)
	if err := note("after"); err != nil {
		return out, err
	}
	l.stop()
	moment := func() (time.Time, error) {
		at, err := dbcore.One[time.Time](ctx, db, "select clock_timestamp()")
		return at.UTC(), err
	}
	if out.wrong, err = moment(); err != nil {
		return out, err
	}
	time.Sleep(5 * time.Millisecond)
	if _, err := db.Exec(ctx, "drop table orders"); err != nil {
		return out, err
	}
	out.target = out.target.UTC()
	out.at, err = moment()
	return out, err
}

// contentDigest sums up a table's rows, whatever their order.
const contentDigest = "coalesce(sum(hashtextextended(orders::text, 0)::numeric), 0)::text"

// archived ends the present WAL segment and waits until the archiver has handed it over.
func (d *demo) archived(ctx context.Context) error {
	db, err := d.connect(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	segment, err := dbcore.One[string](ctx, db, "select pg_walfile_name(pg_switch_wal())")
	if err != nil {
		return err
	}
	for begin := time.Now(); ; {
		done, err := dbcore.One[bool](ctx, db, "select coalesce(last_archived_wal >= $1, false) from pg_stat_archiver", segment)
		if err != nil || done {
			return err
		}
		if time.Since(begin) > archiveWithin {
			return fmt.Errorf("WAL segment %s was not archived within %v\n%s", segment, archiveWithin, tail(filepath.Join(d.dir, "postgres.log")))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// writeChecks writes what must be true of the restored server, as an owner would.
func (d *demo) writeChecks(l loss) (string, error) {
	path := filepath.Join(d.dir, "checks.yaml")
	text := fmt.Sprintf(`checks:
- {name: the row before is there, sql: "select count(*) from note where text = 'before'", expect: "1"}
- {name: the row after is not, sql: "select count(*) from note where text = 'after'", expect: "0"}
- {name: orders has the rows that it had, sql: "select count(*) from orders", expect: "%d"}
- {name: and they are the same, sql: "select %s from orders", expect: "%s"}
`, l.rows, contentDigest, l.sum)
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chmod(path, 0o644)); err != nil {
		return "", fmt.Errorf("write the demo's checks: %w", err)
	}
	return path, nil
}

// removeWAL takes the newest WAL segment out of the repository.
func (d *demo) removeWAL() error {
	found, err := filepath.Glob(filepath.Join(d.dir, "repository/clusters/demo/wal/segments/*/????????????????????????"))
	if err != nil || len(found) == 0 {
		return fmt.Errorf("sabotage: no WAL found in the repository: %w", err)
	}
	for _, path := range found[len(found)-1:] {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("sabotage: %w", err)
		}
	}
	return nil
}

// drill rehearses the recovery through Temporal and judges it.
func (d *demo) drill(ctx context.Context, target, at time.Time, checks string) error {
	d.say("drill: restore to %s, from the repository alone", target.Format(time.RFC3339Nano))
	killed := make(chan error, 1)
	if d.opts.Kill {
		go func() { killed <- d.killWhileRestoring(ctx) }()
	} else {
		killed <- nil
	}
	var res contract.DrillResult
	err := d.lifeboat(ctx, &res, "drill", cluster, "--to", target.Format(time.RFC3339Nano),
		"--disaster-at", at.Format(time.RFC3339Nano), "--checks", checks)
	if res.Verdict == "" {
		return err
	}
	d.show(&res)
	if kerr := <-killed; kerr != nil {
		return kerr
	}
	if err != nil || res.Verdict != contract.Pass {
		return errors.Join(errNotPassed, err)
	}
	return nil
}

// killWhileRestoring kills the worker with -9 as soon as it lays files, and starts another.
func (d *demo) killWhileRestoring(ctx context.Context) error {
	first := d.processes[len(d.processes)-1]
	for begin := time.Now(); ; {
		found, _ := filepath.Glob(filepath.Join(d.dir, "work", "drill-*", "base", "*", "*"))
		if len(found) > 100 {
			break
		}
		if time.Since(begin) > verbTimeout || ctx.Err() != nil {
			return errors.New("the restore to be killed was never seen")
		}
		time.Sleep(2 * time.Millisecond)
	}
	done, _ := filepath.Glob(filepath.Join(d.dir, "work", "drill-*", "global", "pg_control"))
	first.kill()
	d.say("killed worker 1 with -9 while it laid files (finished: %v)", len(done) > 0)
	_, err := d.startWorker(ctx)
	return err
}

// lifeboat runs one verb as a person would, and decodes its JSON.
func (d *demo) lifeboat(ctx context.Context, result any, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, verbTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(d.dir, "bin", "lifeboat"), append(args, "--json")...)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = d.dir, d.environment(), d.owner.SysProcAttr()
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if jerr := json.Unmarshal(out.Bytes(), result); jerr != nil && err == nil {
		err = fmt.Errorf("its output is no JSON: %w", jerr)
	}
	if err != nil {
		return fmt.Errorf("lifeboat %s: %w\n%s%s", strings.Join(args[:2], " "), err, errs.String(), d.workerTail())
	}
	return nil
}

func (d *demo) workerTail() string {
	for i := len(d.processes) - 1; i >= 0; i-- {
		if strings.HasPrefix(d.processes[i].name, "worker") {
			return tail(d.processes[i].log)
		}
	}
	return ""
}

// show prints the report.
func (d *demo) show(r *contract.DrillResult) {
	w := d.opts.Out
	fmt.Fprintf(w, "\nDrill %s of cluster %s: %s, level %d\n", r.DrillID, r.Cluster, r.Verdict, r.Level)
	for _, c := range r.Checks {
		fmt.Fprintf(w, "  %-17s L%d  %-34s %s\n", c.Verdict, c.Level, c.ID, c.Observed)
	}
	s := r.RTO.Spans
	fmt.Fprintf(w, "RTO %.1f s of %.0f s (fetch %.1f, replay %.1f, start %.1f; checks took %.1f more)\n",
		r.RTO.Measured, r.RTO.Target, s.Fetch, s.Replay, s.Start, s.Check)
	if r.RPO.Measured != nil {
		fmt.Fprintf(w, "RPO %.3f s of %.0f s: from the newest restored commit to the loss\n", *r.RPO.Measured, r.RPO.Target)
	}
	fmt.Fprintf(w, "report %s, workflow %s\n\n%s\n\n", r.Report, r.WorkflowID, r.Verdict)
}
