package migrate

import (
	"context"
	"errors"
	"fmt"

	"lifeboat/dbcore"
)

// repairStep is an item, and what executing it means; do is nil if there is nothing that may be done.
type repairStep struct {
	RepairItem
	do func(ctx context.Context, s *session) error
}

func (m *Migrator) proposeRepair(ctx context.Context, opts RepairOptions) (*RepairReport, error) {
	report := &RepairReport{}
	err := m.readOnly(ctx, func(ctx context.Context, q *dbcore.Tx) error {
		t, err := m.tables(ctx, q)
		if err != nil {
			return err
		}
		steps, err := m.repairSteps(ctx, q, t, opts)
		for _, step := range steps {
			report.Items = append(report.Items, step.RepairItem)
		}
		return err
	})
	return report, err
}

func (m *Migrator) executeRepair(ctx context.Context, opts RepairOptions) (report *RepairReport, err error) {
	s, err := m.openSession(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	if err := s.begin(ctx, false); err != nil {
		return nil, err
	}
	var steps []repairStep
	err = s.conn.RunTx(ctx, dbcore.TxOptions{ReadOnly: true}, func(ctx context.Context, tx *dbcore.Tx) (err error) {
		steps, err = m.repairSteps(ctx, tx, s.t, opts)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := setTimeouts(ctx, s.conn, m.opts.ConcurrentLockTimeout, m.opts.StatementTimeout, false); err != nil {
		return nil, err
	}
	report = &RepairReport{}
	var failed error
	for _, step := range steps {
		if failed == nil && step.do != nil {
			if err := step.do(ctx, s); err != nil {
				failed = fmt.Errorf("repair version %d: %w", step.Version, err)
			} else {
				step.Executed = true
			}
		}
		report.Items = append(report.Items, step.RepairItem)
	}
	return report, failed
}

func (m *Migrator) repairSteps(ctx context.Context, q *dbcore.Tx, t tables, opts RepairOptions) ([]repairStep, error) {
	st, err := t.readState(ctx, q)
	if err != nil {
		return nil, err
	}
	var steps []repairStep
	switch {
	case st.open != nil:
		step, err := m.repairOpen(ctx, q, st, opts)
		if err != nil {
			return nil, err
		}
		if step != nil {
			steps = append(steps, *step)
		}
	case st.dirty:
		step, err := m.repairDirty(ctx, q, st, opts)
		if err != nil {
			return nil, err
		}
		steps = append(steps, step)
	case !st.adopt && st.version != st.current():
		steps = append(steps, m.repairVersions(st, opts))
	}
	steps = append(steps, m.repairEdited(st, opts)...)
	drift, err := repairDrift(ctx, q, t, st, opts)
	if err != nil {
		return nil, err
	}
	steps = append(steps, drift...)
	more, err := m.repairIndexes(ctx, q, st, steps)
	return append(steps, more...), err
}

func (m *Migrator) fileOf(version int64) *file {
	for _, f := range m.files {
		if f.version == version {
			return f
		}
	}
	return nil
}

// repairOpen looks at the statement that was started and whose end nobody has written down.
func (m *Migrator) repairOpen(ctx context.Context, q dbcore.Querier, st *state, opts RepairOptions) (*repairStep, error) {
	r := st.open
	if r.StatementStarted <= r.StatementsDone {
		return nil, nil // apply goes on there by itself
	}
	step := &repairStep{RepairItem: RepairItem{Kind: "statement", Version: r.Version, Statement: r.StatementStarted, Outcome: string(unknown), Evidence: openText(r)}}
	in := inspection{outcome: unknown, evidence: "its file is missing or was changed"}
	f := m.fileOf(r.Version)
	sc := scriptOf(f, Direction(r.Direction))
	if sc != nil && len(sc.stmts) >= r.StatementStarted && sc.doneChecksum(r.StatementsDone) == r.DoneChecksum {
		step.File = sc.name
		var err error
		if in, err = inspectIn(ctx, q, sc, r.StatementStarted, r.IndexesBefore); err != nil {
			return nil, err
		}
	}
	step.Outcome, step.SQL = string(in.outcome), in.sql
	step.Evidence += "; " + in.evidence
	verdict := in.outcome
	if verdict == unknown {
		verdict = decided(opts.Resolve)
	}
	if verdict == leftover {
		verdict = in.after
	}
	switch verdict {
	case finished:
		step.Proposal = "write down that it is done; apply goes on after it"
	case notRun:
		step.Proposal = "write down that it was not run; apply runs it"
	case underway:
		step.Proposal = "wait until it ends, then look again"
		return step, nil
	default:
		step.Proposal, step.NeedsDecision = "look yourself, and say whether it is done or was not run", true
		return step, nil
	}
	if len(in.sql) > 0 {
		step.Proposal = fmt.Sprintf("run %v, then %s", in.sql, step.Proposal)
	}
	step.do = func(ctx context.Context, s *session) error {
		return s.closeOpen(ctx, st, sc, in.sql, verdict == finished)
	}
	return step, nil
}

// inspectIn is inspect of a script's statement, under the search_path that the statements before it have set.
func inspectIn(ctx context.Context, q dbcore.Querier, sc *script, number int, before []int64) (in inspection, err error) {
	path, err := dbcore.One[string](ctx, q, "select current_setting('search_path')")
	if err != nil {
		return in, err
	}
	for _, st := range sc.stmts[:number-1] {
		if v := st.node.GetVariableSetStmt(); v != nil && v.Name == "search_path" {
			if _, err := q.Exec(ctx, st.text); err != nil {
				return in, fmt.Errorf("%s: %w", st.text, err)
			}
		}
	}
	if in, err = inspect(ctx, q, sc.stmts[number-1], before); err != nil {
		return in, err
	}
	_, err = q.Exec(ctx, "select set_config('search_path', $1, false)", path)
	return in, err
}

func scriptOf(f *file, d Direction) *script {
	switch {
	case f == nil:
		return nil
	case d == Down:
		return f.down
	}
	return f.up
}

func decided(r Resolution) outcome {
	switch r {
	case ResolveDone:
		return finished
	case ResolveNotRun:
		return notRun
	}
	return unknown
}

// closeOpen writes down what became of the open statement.
func (s *session) closeOpen(ctx context.Context, st *state, sc *script, sqls []string, done bool) error {
	for _, sql := range sqls {
		if _, err := s.conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	r := st.open
	return s.conn.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		if done {
			sum := ""
			if sc != nil {
				sum = sc.doneChecksum(r.StatementStarted)
			}
			_, err := tx.Exec(ctx, "update "+s.t.history+` set state = 'failed', statements_done = statement_started, done_checksum = $2, statement_started = 0,
				indexes_before = null, error = coalesce(error, 'interrupted') || ' (repaired: the statement is done)' where id = $1`, r.ID, sum)
			return err
		}
		state, finishedAt := "failed", "null"
		if sc == nil || !sc.effective(r.StatementsDone) {
			state, finishedAt = "abandoned", "clock_timestamp()"
		}
		if _, err := tx.Exec(ctx, "update "+s.t.history+" set state = $2, finished_at = "+finishedAt+`, statement_started = 0, indexes_before = null,
			error = coalesce(error, 'interrupted') || ' (repaired: the statement was not run)' where id = $1`, r.ID, state); err != nil {
			return err
		}
		if state == "abandoned" {
			return s.t.setVersion(ctx, tx, st.current(), false)
		}
		return nil
	})
}

// repairDirty is for golang-migrate's mark without a history: it sends a file as one request, which is one transaction
// unless its only statement refuses one.
func (m *Migrator) repairDirty(ctx context.Context, q dbcore.Querier, st *state, opts RepairOptions) (repairStep, error) {
	step := repairStep{RepairItem: RepairItem{Kind: "file", Version: st.version, Outcome: string(unknown), Evidence: "golang-migrate marked the version dirty"}}
	in := inspection{outcome: unknown, evidence: "there is no such file"}
	if f := m.fileOf(st.version); f != nil {
		step.File = f.up.name
		in.evidence = "it ran as one transaction: either all of it is there or nothing, most likely nothing"
		if len(f.up.stmts) == 1 && f.up.stmts[0].kind.noTransaction {
			var err error
			if in, err = inspect(ctx, q, f.up.stmts[0], nil); err != nil {
				return step, err
			}
		}
	}
	step.Outcome, step.SQL = string(in.outcome), in.sql
	step.Evidence += "; " + in.evidence
	verdict := in.outcome
	if verdict == unknown {
		verdict = decided(opts.Resolve)
	} else if verdict == leftover {
		verdict = in.after
	}
	before := m.versionBelow(st)
	switch verdict {
	case finished:
		step.Proposal = fmt.Sprintf("take version %d as applied", st.version)
	case notRun:
		step.Proposal = fmt.Sprintf("go back to version %s; apply runs the file", versionText(before))
	case underway:
		step.Proposal = "wait until it ends, then look again"
		return step, nil
	default:
		step.Proposal, step.NeedsDecision = "look yourself, and say whether it is done or was not run", true
		return step, nil
	}
	if len(in.sql) > 0 {
		step.Proposal = fmt.Sprintf("run %v, then %s", in.sql, step.Proposal)
	}
	step.do = func(ctx context.Context, s *session) error {
		for _, sql := range in.sql {
			if _, err := s.conn.Exec(ctx, sql); err != nil {
				return fmt.Errorf("%s: %w", sql, err)
			}
		}
		version := before
		if verdict == finished {
			version = st.version
		}
		return s.trustVersion(ctx, st, version)
	}
	return step, nil
}

// versionBelow is the version of a database whose newest file was not applied after all.
func (m *Migrator) versionBelow(st *state) int64 {
	if !st.adopt {
		return st.current()
	}
	below := int64(noVersion)
	for _, f := range m.files {
		if f.version < st.version {
			below = f.version
		}
	}
	return below
}

// trustVersion sets golang-migrate's table, and lets the history follow it if there is one.
func (s *session) trustVersion(ctx context.Context, st *state, version int64) error {
	return s.conn.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		if err := s.t.setVersion(ctx, tx, version, false); err != nil || st.adopt {
			return err
		}
		for _, f := range s.m.files {
			var err error
			switch applied := st.isApplied(f.version); {
			case applied && f.version > version:
				err = s.t.note(ctx, tx, f, "down", s.m.opts.AppVersion)
			case !applied && f.version <= version && f.version > st.current():
				err = s.t.note(ctx, tx, f, "adopted", s.m.opts.AppVersion)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
