package migrate

import (
	"context"
	"fmt"
	"time"

	pgquery "github.com/pganalyze/pg_query_go/v6"

	"lifeboat/dbcore"
)

// runSteps runs a file statement by statement, because PostgreSQL refuses one of them in a transaction. Before each
// such statement its number is written down, and after it again: whoever comes after a crash knows which one is open.
func (s *session) runSteps(ctx context.Context, p *Plan, f *PlannedFile, done *DoneFile) error {
	id, err := s.openRecord(ctx, p, f)
	if err != nil {
		return err
	}
	for i, st := range f.script.stmts {
		if i+1 < f.Resume && !st.kind.session {
			continue
		}
		err := s.retry(ctx, f, done, func() error { return s.runStep(ctx, f, i, id) })
		if err != nil {
			return s.stopped(ctx, p, f, i, id, err)
		}
	}
	return s.conn.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		if err := ownRole(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "update "+s.t.history+" set state = 'done', error = null, finished_at = clock_timestamp() where id = $1", id); err != nil {
			return fmt.Errorf("write the history of %s: %w", f.Name, err)
		}
		if err := s.t.setVersion(ctx, tx, p.versionOf(f), false); err != nil {
			return err
		}
		return s.t.saveSnapshot(ctx, tx)
	})
}

func (s *session) runStep(ctx context.Context, f *PlannedFile, i int, id int64) error {
	switch st := f.script.stmts[i]; {
	case st.kind.session:
		if err := s.exec(ctx, s.conn, f, i); err != nil || i+1 < f.Resume {
			return err
		}
		return s.note(ctx, func(ctx context.Context, q dbcore.Querier) error { return s.confirm(ctx, q, f, i+1, id) })
	case f.script.alone(st):
		return s.runAlone(ctx, f, i, id)
	}
	return s.conn.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		if err := s.bound(ctx, tx); err != nil {
			return err
		}
		if err := s.exec(ctx, tx, f, i); err != nil {
			return err
		}
		if err := ownRole(ctx, tx); err != nil {
			return err
		}
		return s.confirm(ctx, tx, f, i+1, id)
	})
}

// alone says that a statement must not be in a transaction of ours. Procedures and DO blocks may commit by themselves,
// which nobody sees from outside: migrate:no-transaction says so.
func (s *script) alone(st *stmt) bool {
	return st.kind.noTransaction || (s.directives.noTransaction && (st.node.GetCallStmt() != nil || st.node.GetDoStmt() != nil))
}

// openRecord begins the file's line of history, or goes on with the one that is open, and marks the version dirty, so
// that golang-migrate keeps away meanwhile.
func (s *session) openRecord(ctx context.Context, p *Plan, f *PlannedFile) (id int64, err error) {
	err = s.conn.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		if err := s.t.setVersion(ctx, tx, f.Version, true); err != nil {
			return err
		}
		open, err := dbcore.Collect[int64](ctx, tx, "update "+s.t.history+` set state = 'running', error = null, checksum = $2, statements = $3, app_version = $4,
			plan_hash = $5 where version = $1 and state in ('running', 'failed') returning id`, f.Version, f.migration.up.checksum, len(f.Statements), s.m.opts.AppVersion, p.Hash)
		if err != nil || len(open) > 0 {
			if len(open) > 0 {
				id = open[0]
			}
			return err
		}
		id, err = dbcore.One[int64](ctx, tx, "insert into "+s.t.history+` (version, title, direction, state, checksum, transactional, statements, app_version,
			plan_hash) values ($1, $2, $3, 'running', $4, false, $5, $6, $7) returning id`,
			f.Version, f.Title, string(p.Direction), f.migration.up.checksum, len(f.Statements), s.m.opts.AppVersion, p.Hash)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("begin the history of %s: %w", f.Name, err)
	}
	return id, nil
}

// note writes into the history between two statements of a file.
func (s *session) note(ctx context.Context, write func(ctx context.Context, q dbcore.Querier) error) error {
	return s.conn.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		if err := ownRole(ctx, tx); err != nil {
			return err
		}
		return write(ctx, tx)
	})
}

// begins writes down that a statement is started, and which indexes there were before it; number 0 takes that back.
func (s *session) begins(ctx context.Context, id int64, number int, indexes []int64) error {
	return s.note(ctx, func(ctx context.Context, q dbcore.Querier) error {
		if _, err := q.Exec(ctx, "update "+s.t.history+" set statement_started = $2, indexes_before = $3 where id = $1", id, number, indexes); err != nil {
			return fmt.Errorf("write down that statement %d begins: %w", number, err)
		}
		return nil
	})
}

// confirm writes down that the first n statements are done.
func (s *session) confirm(ctx context.Context, q dbcore.Querier, f *PlannedFile, n int, id int64) error {
	_, err := q.Exec(ctx, "update "+s.t.history+" set statements_done = $2, done_checksum = $3, statement_started = 0, indexes_before = null where id = $1",
		id, n, f.script.doneChecksum(n))
	if err != nil {
		return fmt.Errorf("write down that statement %d of %s is done: %w", n, f.Name, err)
	}
	return nil
}

// runAlone runs a statement outside of any transaction.
func (s *session) runAlone(ctx context.Context, f *PlannedFile, i int, id int64) error {
	st := f.script.stmts[i]
	before, err := indexesOf(ctx, s.conn, st)
	if err != nil {
		return err
	}
	if in, err := inspect(ctx, s.conn, st, before.oids()); err != nil {
		return err
	} else if in.outcome == leftover && st.node.GetIndexStmt() != nil {
		return fmt.Errorf("%w: %s; run repair", ErrInvalidIndex, in.evidence)
	}
	if err := s.sessionTimeouts(ctx, f, st); err != nil {
		return err
	}
	if err := s.begins(ctx, id, i+1, before.oids()); err != nil {
		return err
	}
	if err := s.exec(ctx, s.conn, f, i); err != nil {
		return s.settle(ctx, st, before.oids(), id, err)
	}
	if v := st.node.GetIndexStmt(); v != nil { // IF NOT EXISTS is content with an INVALID one
		if in, err := inspect(ctx, s.conn, st, nil); err != nil {
			return err
		} else if in.outcome == leftover {
			return &openError{fmt.Errorf("%w: %s; run repair", ErrInvalidIndex, in.evidence)}
		}
	}
	return s.note(ctx, func(ctx context.Context, q dbcore.Querier) error { return s.confirm(ctx, q, f, i+1, id) })
}

// sessionTimeouts sets the bounds for a statement without a transaction, unless the file has set its own. A concurrent
// index build waits for old transactions, which blocks nobody: there lock_timeout is long, and elsewhere short.
func (s *session) sessionTimeouts(ctx context.Context, f *PlannedFile, st *stmt) error {
	for _, other := range f.script.stmts {
		if v := other.node.GetVariableSetStmt(); v != nil && v.Name == "lock_timeout" {
			return nil
		}
	}
	wait := s.m.opts.LockTimeout
	if st.kind.noTransaction {
		wait = s.m.opts.ConcurrentLockTimeout
	}
	return setTimeouts(ctx, s.conn, wait, s.m.opts.StatementTimeout, false)
}

// settle looks what a statement has left behind that the server has refused, and takes away an INVALID index that the
// statement has made. What it cannot take away stays for Repair, and makes an *openError of the error.
func (s *session) settle(ctx context.Context, st *stmt, before []int64, id int64, cause error) error {
	if s.conn.Closed() {
		return &openError{cause}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.m.opts.ConcurrentLockTimeout+time.Minute)
	defer cancel()
	in, err := inspect(ctx, s.conn, st, before)
	if err != nil {
		return &openError{fmt.Errorf("%w (and then: %w)", cause, err)}
	}
	if in.outcome == leftover && in.after == notRun {
		for _, sql := range in.sql {
			if _, err := s.conn.Exec(ctx, sql); err != nil {
				return &openError{fmt.Errorf("%w (and then %s: %w)", cause, sql, err)}
			}
		}
		in.outcome = notRun
	}
	if in.outcome != notRun {
		return &openError{cause}
	}
	if err := s.begins(ctx, id, 0, nil); err != nil {
		return &openError{fmt.Errorf("%w (and then: %w)", cause, err)}
	}
	return cause
}

// stopped writes down how far the file came. If nothing of it took effect, the database is as before the file.
func (s *session) stopped(ctx context.Context, p *Plan, f *PlannedFile, i int, id int64, cause error) error {
	open := asOpen(cause)
	if s.conn.Closed() {
		return statementError(f, i, cause, fmt.Sprintf("the session ended: %d of %d statements are done, of this one it is not known; run status and repair", i, len(f.Statements)))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	left := fmt.Sprintf("%d of %d statements are done and stay; the next apply goes on at this one", i, len(f.Statements))
	err := s.conn.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		if err := ownRole(ctx, tx); err != nil {
			return err
		}
		switch {
		case open:
			left = fmt.Sprintf("%d of %d statements are done, this one may have left something behind: run repair", i, len(f.Statements))
			return s.t.fail(ctx, tx, id, "running", cause)
		case f.script.effective(i):
			return s.t.fail(ctx, tx, id, "failed", cause)
		}
		left = "nothing of the file remains"
		if err := s.t.fail(ctx, tx, id, "abandoned", cause); err != nil {
			return err
		}
		return s.t.setVersion(ctx, tx, p.versionBefore(f), false)
	})
	if err != nil {
		cause = fmt.Errorf("%w (and then: %w)", cause, err)
	}
	return statementError(f, i, cause, left)
}

func (t tables) fail(ctx context.Context, q dbcore.Querier, id int64, state string, cause error) error {
	finished := "null"
	if state == "abandoned" {
		finished = "clock_timestamp()"
	}
	if _, err := q.Exec(ctx, "update "+t.history+" set state = $2, error = $3, finished_at = "+finished+" where id = $1", id, state, cause.Error()); err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	return nil
}

// effective says whether the first n statements changed anything beyond their session.
func (s *script) effective(n int) bool {
	for _, st := range s.stmts[:min(n, len(s.stmts))] {
		if !st.kind.session {
			return true
		}
	}
	return false
}

// versionBefore is what golang-migrate's table says before a file.
func (p *Plan) versionBefore(f *PlannedFile) int64 {
	before := p.From
	for i := range p.Files {
		if p.Files[i].Version == f.Version {
			break
		}
		before = p.versionAfter(i)
	}
	return before
}

// index is what the catalogs say of one index.
type index struct {
	OID   int64
	Name  string // quoted, with its schema
	Plain string // as in pg_class
	Valid bool
}

type indexList []index

func (l indexList) oids() []int64 {
	list := make([]int64, len(l))
	for i, x := range l {
		list[i] = x.OID
	}
	return list
}

// indexesOf returns the indexes that a statement may make or unmake: those of its table, or of the table of the index that
// it names, or all if it names none (REINDEX DATABASE).
func indexesOf(ctx context.Context, q dbcore.Querier, st *stmt) (indexList, error) {
	if st.node.GetIndexStmt() == nil && st.node.GetReindexStmt() == nil {
		return nil, nil
	}
	name := ""
	if len(st.kind.tables) > 0 {
		name = quoted(st.kind.tables[0])
	}
	list, err := dbcore.Collect[index](ctx, q, `select i.indexrelid::bigint as oid, format('%I.%I', n.nspname, c.relname) as name, c.relname::text as plain,
			i.indisvalid as valid
		from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
		where $1 = '' or i.indrelid = to_regclass($1) or i.indrelid = (select x.indrelid from pg_index x where x.indexrelid = to_regclass($1))
		order by 1`, name)
	if err != nil {
		return nil, fmt.Errorf("read the indexes of %s: %w", name, err)
	}
	return list, nil
}

func quoted(r relation) string {
	if r.schema == "" {
		return quoteIdent(r.name)
	}
	return quoteIdent(r.schema) + "." + quoteIdent(r.name)
}

func quotedVar(v *pgquery.RangeVar) string { return quoted(relationOf(v)) }
