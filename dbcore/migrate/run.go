package migrate

import (
	"context"
	"fmt"
	"time"

	"lifeboat/dbcore"
)

func (s *session) runFile(ctx context.Context, p *Plan, f *PlannedFile) (DoneFile, error) {
	done := DoneFile{Version: f.Version, Name: f.Name}
	start := time.Now()
	var err error
	if f.Transactional {
		err = s.retry(ctx, f, &done, func() error { return s.runTransaction(ctx, p, f) })
	} else {
		err = s.runSteps(ctx, p, f, &done)
	}
	done.Took = time.Since(start)
	return done, err
}

// runTransaction runs a whole file: its statements, the version and the history are one transaction, so that there is
// no state in which one of them is there without the others.
func (s *session) runTransaction(ctx context.Context, p *Plan, f *PlannedFile) error {
	return s.conn.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		if err := s.bound(ctx, tx); err != nil {
			return err
		}
		for i := range f.script.stmts {
			if err := s.exec(ctx, tx, f, i); err != nil {
				return statementError(f, i, err, "rolled back, nothing of the file remains")
			}
		}
		if err := ownRole(ctx, tx); err != nil {
			return err
		}
		if err := s.t.setVersion(ctx, tx, p.versionOf(f), false); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "insert into "+s.t.history+` (version, title, direction, state, checksum, transactional, statements, statements_done,
			done_checksum, app_version, plan_hash, started_at, finished_at) values ($1, $2, $3, 'done', $4, true, $5, $5, $6, $7, $8, now(), clock_timestamp())`,
			f.Version, f.Title, string(p.Direction), f.migration.up.checksum, len(f.Statements), f.script.doneChecksum(len(f.Statements)), s.m.opts.AppVersion, p.Hash)
		if err != nil {
			return fmt.Errorf("write the history of %s: %w", f.Name, err)
		}
		return s.t.saveSnapshot(ctx, tx)
	})
}

// versionOf is versionAfter by file.
func (p *Plan) versionOf(f *PlannedFile) int64 {
	for i := range p.Files {
		if p.Files[i].Version == f.Version {
			return p.versionAfter(i)
		}
	}
	return p.From
}

// bound sets the limits of a transaction. A file may set its own after it.
func (s *session) bound(ctx context.Context, q dbcore.Querier) error {
	return setTimeouts(ctx, q, s.m.opts.LockTimeout, s.m.opts.StatementTimeout, true)
}

func setTimeouts(ctx context.Context, q dbcore.Querier, lock, statement time.Duration, local bool) error {
	_, err := q.Exec(ctx, "select set_config('lock_timeout', $1, $3), set_config('statement_timeout', $2, $3)",
		fmt.Sprint(max(lock.Milliseconds(), 1)), fmt.Sprint(statement.Milliseconds()), local)
	if err != nil {
		return fmt.Errorf("set lock_timeout and statement_timeout: %w", err)
	}
	return nil
}

// ownRole makes what is left of a transaction run as the role that connected: a file's SET ROLE might not be allowed to
// write the history. It ends with the transaction, so that the next statement of the file has its role again.
func ownRole(ctx context.Context, q dbcore.Querier) error {
	for _, sql := range []string{"set local session authorization default", "set local role to default"} {
		if _, err := q.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// exec runs one statement while the watcher looks who is in its way.
func (s *session) exec(ctx context.Context, q dbcore.Querier, f *PlannedFile, i int) error {
	event := Event{Kind: "statement", Version: f.Version, File: f.Name, Statement: i + 1, Statements: len(f.Statements)}
	s.m.opts.Progress(event)
	start := time.Now()
	stop := s.watcher.watch(func(blockers []Blocker) {
		event.Kind, event.Blockers, event.Elapsed = "blocked", blockers, time.Since(start)
		s.m.opts.Progress(event)
	})
	defer stop()
	run := func() error {
		_, err := q.Exec(ctx, f.script.stmts[i].text)
		return err
	}
	if s.observer != nil {
		return s.observer.exec(ctx, q, f, i, run)
	}
	return run()
}

func statementError(f *PlannedFile, i int, err error, left string) error {
	st := f.script.stmts[i]
	return &StatementError{Version: f.Version, File: f.Name, Statement: i + 1, Line: st.line, SQL: st.text, Left: left, Err: err}
}
