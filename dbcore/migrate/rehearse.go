package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lifeboat/dbcore"
)

// RehearseOptions say where to rehearse.
type RehearseOptions struct {
	// Clone is the server to rehearse on: a restored backup. It is changed, and must not be the database of the Migrator.
	Clone dbcore.Config
	// To is that of PlanOptions.
	To *int64
	// PlanHash is the Plan to rehearse; a clone on which another would run is ErrPlanChanged. "" takes what there is.
	PlanHash string
	// SkipDown leaves out the way down and up again.
	SkipDown bool
}

// Rehearsal is what a plan did to a clone.
type Rehearsal struct {
	// Verdict is FAIL if a statement failed, or if going down did not bring the schema back.
	Verdict Verdict `json:"verdict"`
	// PlanHash is the plan that was rehearsed; Apply can be bound to it.
	PlanHash string `json:"planHash"`
	Plan     *Plan  `json:"plan"`
	// Statements are in the order in which they ran, without those of the way down and up again.
	Statements []RehearsedSQL `json:"statements"`
	Took       time.Duration  `json:"took"`
	WALBytes   int64          `json:"walBytes"`
	// Error is the statement that failed and why.
	Error string `json:"error,omitempty"`
	// Changes are the objects that the plan made, changed and removed.
	Changes []string `json:"changes,omitempty"`
	// Down is PASS if going down brought back the schema as it was before and going up again made the same as the first
	// time; SKIPPED with DownDetail if there is no way down.
	Down       Verdict `json:"down"`
	DownDetail string  `json:"downDetail"`
}

// RehearsedSQL is what one statement did.
type RehearsedSQL struct {
	Version int64         `json:"version"`
	File    string        `json:"file"`
	Number  int           `json:"number"`
	Line    int           `json:"line"`
	SQL     string        `json:"sql"`
	Took    time.Duration `json:"took"`
	// WALBytes is what the server wrote meanwhile, which includes its other work.
	WALBytes int64 `json:"walBytes"`
	// Locks are those that the statement took, beyond those its transaction had before; without a transaction those that
	// were seen, every 10 ms.
	Locks []TableLock `json:"locks,omitempty"`
	// Rewrites are the tables and indexes that got new files: each was written anew as a whole.
	Rewrites []string `json:"rewrites,omitempty"`
}

// TableLock is a lock on a table or index, as in pg_locks.
type TableLock struct {
	Relation string `json:"relation"`
	Mode     string `json:"mode"`
}

// Rehearse runs a plan on a clone, and reports what each statement took: time, locks, rewrites, WAL. If all its files
// have a way down, it goes down and up again, and compares the schema. Findings of the lint do not stop it, as the
// clone is there to be tried.
//
// Errors: a clone that is the Migrator's own database (dbcore.ErrInvalidConfig), that cannot be reached, or on which
// there is no such plan. A statement that fails is no error but the rehearsal's verdict.
func (m *Migrator) Rehearse(ctx context.Context, opts RehearseOptions) (r *Rehearsal, err error) {
	clone := *m
	clone.opts.Config = opts.Clone
	setDefault(&clone.opts.Config.ApplicationName, "migrate rehearsal")
	if err := m.notThis(ctx, opts.Clone); err != nil {
		return nil, err
	}
	s, err := clone.openSession(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	plan, err := s.plan(ctx, PlanOptions{Direction: Up, To: opts.To})
	if err != nil {
		return nil, err
	}
	if opts.PlanHash != "" && plan.Hash != opts.PlanHash {
		return nil, fmt.Errorf("%w: on the clone it is %.12s (%s -> %s), not %.12s; clone a newer backup", ErrPlanChanged, plan.Hash, versionText(plan.From), versionText(plan.To), opts.PlanHash)
	}
	if err := s.begin(ctx, true); err != nil {
		return nil, err
	}
	r = &Rehearsal{Verdict: Pass, PlanHash: plan.Hash, Plan: plan, Down: Skipped}
	return r, s.rehearse(ctx, r, opts)
}

// notThis refuses to rehearse on the database that is to be spared. A clone has the same system identifier; what it
// cannot share is the moment when its server started.
func (m *Migrator) notThis(ctx context.Context, clone dbcore.Config) error {
	ask := func(cfg dbcore.Config) (string, error) {
		conn, err := dbcore.Connect(ctx, cfg)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return dbcore.One[string](ctx, conn, "select current_database() || ' ' || extract(epoch from pg_postmaster_start_time())::text || ' ' || system_identifier from pg_control_system()")
	}
	own, err := ask(m.opts.Config)
	if err != nil {
		return fmt.Errorf("make sure that the clone is another server: %w", err)
	}
	other, err := ask(clone)
	if err != nil {
		return err
	}
	if own == other {
		return fmt.Errorf("%w: the clone is the database itself", dbcore.ErrInvalidConfig)
	}
	return nil
}

func (s *session) rehearse(ctx context.Context, r *Rehearsal, opts RehearseOptions) error {
	before, err := s.t.snapshotOf(ctx, s.conn)
	if err != nil {
		return err
	}
	s.observer = &observer{s: s, report: r}
	start := time.Now()
	err = s.runAll(ctx, r.Plan, &Result{})
	r.Took = time.Since(start)
	s.observer = nil
	if failed, err := r.failed(err); failed || err != nil {
		return err
	}
	after, err := s.t.snapshotOf(ctx, s.conn)
	if err != nil {
		return err
	}
	r.Changes = differences(before, after)
	if opts.SkipDown || len(r.Plan.Files) == 0 {
		r.DownDetail = "not asked for"
		return nil
	}
	return s.rehearseDown(ctx, r, before, after)
}

// failed puts a statement's failure into the report. Anything else is no answer to the question.
func (r *Rehearsal) failed(err error) (bool, error) {
	var st *StatementError
	if err == nil || !errors.As(err, &st) {
		return false, err
	}
	r.Verdict, r.Error = Fail, err.Error()
	return true, nil
}

func (s *session) rehearseDown(ctx context.Context, r *Rehearsal, before, after map[string]string) error {
	plan, err := s.plan(ctx, PlanOptions{Direction: Down, To: &r.Plan.From})
	if errors.Is(err, ErrIrreversible) {
		r.DownDetail = err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	round := func(plan *Plan, want map[string]string, way string) (bool, error) {
		if err := s.runAll(ctx, plan, &Result{}); err != nil {
			failed, err := r.failed(err)
			r.Down, r.DownDetail = Fail, way+": "+r.Error
			return !failed && err == nil, err
		}
		got, err := s.t.snapshotOf(ctx, s.conn)
		if err != nil {
			return false, err
		}
		if list := differences(want, got); len(list) > 0 {
			r.Verdict, r.Down, r.DownDetail = Fail, Fail, fmt.Sprintf("%s left the schema different: %v", way, list)
			return false, nil
		}
		return true, nil
	}
	if ok, err := round(plan, before, "going down"); !ok {
		return err
	}
	if plan, err = s.plan(ctx, PlanOptions{Direction: Up, To: &r.Plan.To}); err != nil {
		return err
	}
	if ok, err := round(plan, after, "going up again"); !ok {
		return err
	}
	r.Down, r.DownDetail = Pass, "going down brought the schema back, going up again made the same"
	return nil
}

// observer measures each statement.
type observer struct {
	s      *session
	report *Rehearsal
}

// picture is what is compared before and after a statement.
type picture struct {
	lsn   dbcore.LSN
	files map[string]int64
	locks []TableLock
}

func (o *observer) look(ctx context.Context, q dbcore.Querier) (picture, error) {
	var p picture
	var err error
	if p.lsn, err = dbcore.One[dbcore.LSN](ctx, q, "select pg_current_wal_insert_lsn()"); err != nil {
		return p, err
	}
	type row struct {
		Name string
		Node int64
	}
	rows, err := dbcore.Collect[row](ctx, q, `select format('%I.%I', n.nspname, c.relname) as name, pg_relation_filenode(c.oid)::bigint as node from pg_class c join pg_namespace n on n.oid = c.relnamespace
		where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and pg_relation_filenode(c.oid) is not null and c.relkind in ('r', 'm', 'i')`)
	if err != nil {
		return p, err
	}
	p.files = make(map[string]int64, len(rows))
	for _, r := range rows {
		p.files[r.Name] = r.Node
	}
	p.locks, err = locksOf(ctx, q, o.s.pid)
	return p, err
}

// locksOf leaves out catalogs, which all statements lock, and the lightest locks, which any SELECT takes.
func locksOf(ctx context.Context, q dbcore.Querier, pid uint32) ([]TableLock, error) {
	return dbcore.Collect[TableLock](ctx, q, `select distinct format('%I.%I', n.nspname, c.relname) as relation, l.mode from pg_locks l join pg_class c on c.oid = l.relation
		join pg_namespace n on n.oid = c.relnamespace where l.pid = $1 and l.granted and l.locktype = 'relation' and n.nspname !~ '^pg_' and l.mode <> 'AccessShareLock'
		order by 1, 2`, int32(pid))
}

// exec runs a statement between two looks.
func (o *observer) exec(ctx context.Context, q dbcore.Querier, f *PlannedFile, i int, run func() error) error {
	before, err := o.look(ctx, q)
	if err != nil {
		return fmt.Errorf("measure: %w", err)
	}
	seen := map[TableLock]bool{}
	stop := o.s.watcher.sample(func(locks []TableLock) {
		for _, l := range locks {
			seen[l] = true
		}
	})
	start := time.Now()
	err = run()
	took := time.Since(start)
	stop()
	if err != nil {
		return err
	}
	after, err := o.look(ctx, q)
	if err != nil {
		return fmt.Errorf("measure: %w", err)
	}
	st := f.script.stmts[i]
	sql := RehearsedSQL{Version: f.Version, File: f.Name, Number: i + 1, Line: st.line, SQL: st.text, Took: took, WALBytes: int64(after.lsn - before.lsn)}
	for _, l := range after.locks {
		seen[l] = true
	}
	for l := range seen {
		if !slices.Contains(before.locks, l) {
			sql.Locks = append(sql.Locks, l)
		}
	}
	slices.SortFunc(sql.Locks, func(a, b TableLock) int { return strings.Compare(a.Relation+a.Mode, b.Relation+b.Mode) })
	for name, node := range after.files {
		if old, ok := before.files[name]; ok && old != node {
			sql.Rewrites = append(sql.Rewrites, name)
		}
	}
	slices.Sort(sql.Rewrites)
	o.report.Statements = append(o.report.Statements, sql)
	o.report.WALBytes += sql.WALBytes
	return nil
}
