package migrate

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"lifeboat/dbcore"
)

// Verdict is the outcome of a check. Only Pass is green.
type Verdict string

// The verdicts.
const (
	Pass           Verdict = "PASS"
	Fail           Verdict = "FAIL"
	CouldNotVerify Verdict = "COULD_NOT_VERIFY"
	Skipped        Verdict = "SKIPPED" // with its reason; no opinion
)

// CheckOptions say what to check for. The zero value checks whether everything pending could be applied now.
type CheckOptions struct {
	PlanOptions
	// PlanHash is that of the Plan that was looked at; "" takes what there is.
	PlanHash string
	// AtVersion asserts that the database is at this version now, as a gate after Apply or at a program's start.
	AtVersion *int64
	// AllowUnsafe and AllowDestructive are those of ApplyOptions.
	AllowUnsafe, AllowDestructive bool
}

// CheckReport is the answer of Check.
type CheckReport struct {
	// Verdict is the worst of the items'.
	Verdict Verdict     `json:"verdict"`
	Items   []CheckItem `json:"items"`
	// Plan is what was checked; nil if there is none because files and database do not fit.
	Plan *Plan `json:"plan,omitempty"`
}

// CheckItem is one thing that was looked at.
type CheckItem struct {
	// Name is server, lock, files, version, plan, lint, destructive, drift, privileges, blockers or size.
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail"`
	Remedy  string  `json:"remedy,omitempty"`
}

func (r *CheckReport) add(name string, v Verdict, detail, remedy string) {
	r.Items = append(r.Items, CheckItem{Name: name, Verdict: v, Detail: detail, Remedy: remedy})
}

// verify adds an item that passes if there is nothing to complain about.
func (r *CheckReport) verify(name string, complaints []string, good, remedy string) {
	if len(complaints) == 0 {
		r.add(name, Pass, good, "")
		return
	}
	r.add(name, Fail, strings.Join(complaints, "; "), remedy)
}

func (r *CheckReport) judge() {
	r.Verdict = Pass
	for _, i := range r.Items {
		switch {
		case i.Verdict == Fail:
			r.Verdict = Fail
			return
		case i.Verdict == CouldNotVerify:
			r.Verdict = CouldNotVerify
		}
	}
}

// Check asks the database, in one read-only transaction, whether a plan could be applied now: server, lock, files,
// versions, lint, drift of the schema since the last migration, privileges, and who would be in the way. It takes no lock
// on anything that it asks about.
//
// The error is for a server that could not be asked at all; what is wrong is in the report.
func (m *Migrator) Check(ctx context.Context, opts CheckOptions) (*CheckReport, error) {
	conn, err := dbcore.Connect(ctx, m.opts.Config)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	report := &CheckReport{}
	s := &session{m: m, conn: conn}
	if err := s.direct(ctx); errors.Is(err, dbcore.ErrPooler) {
		report.add("server", Fail, err.Error(), "set the address of the server itself")
	} else if err != nil {
		return nil, err
	}
	err = conn.RunTx(ctx, dbcore.TxOptions{ReadOnly: true, Isolation: dbcore.RepeatableRead}, func(ctx context.Context, tx *dbcore.Tx) error {
		c := checker{m: m, q: tx, opts: opts, report: report}
		return c.run(ctx)
	})
	report.judge()
	return report, err
}

type checker struct {
	m      *Migrator
	q      *dbcore.Tx
	opts   CheckOptions
	report *CheckReport
	t      tables
	state  *state
}

func (c *checker) run(ctx context.Context) (err error) {
	if c.t, err = c.m.tables(ctx, c.q); err != nil {
		return err
	}
	if c.state, err = c.t.readState(ctx, c.q); err != nil {
		return err
	}
	major, err := majorOf(ctx, c.q)
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{c.server, c.lock, c.version, c.drift} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if !c.plan(major) || len(c.report.Plan.Files) == 0 {
		return nil
	}
	for _, step := range []func(context.Context) error{c.privileges, c.blockers, c.size} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) server(ctx context.Context) error {
	standby, err := dbcore.One[bool](ctx, c.q, "select pg_is_in_recovery()")
	if err != nil {
		return err
	}
	if standby {
		c.report.add("server", Fail, "the server is a standby", "connect to the primary")
		return nil
	}
	c.report.add("server", Pass, "a primary, reached directly", "")
	return nil
}

func (c *checker) lock(ctx context.Context) error {
	holders, err := c.m.running(ctx, c.q, c.t)
	if err != nil {
		return err
	}
	c.report.verify("lock", texts(holders), "no migrator is at work", "wait until it has ended")
	return nil
}

func (c *checker) version(context.Context) error {
	if c.opts.AtVersion == nil {
		return nil
	}
	at := c.state.current()
	if c.state.open != nil || c.state.dirty {
		c.report.add("version", Fail, fmt.Sprintf("at %s, and a file stopped half-way", versionText(at)), "run status")
	} else if at != *c.opts.AtVersion {
		c.report.add("version", Fail, fmt.Sprintf("at %s, expected %s", versionText(at), versionText(*c.opts.AtVersion)), "apply what is pending, or deploy what fits")
	} else {
		c.report.add("version", Pass, "at "+versionText(at), "")
	}
	return nil
}

// plan says whether there is one.
func (c *checker) plan(major int) bool {
	problems := c.m.problems(c.state)
	var list []string
	for _, p := range problems {
		list = append(list, p.String())
	}
	c.report.verify("files", list, "files and database fit", "see each")
	if len(problems) > 0 {
		return false
	}
	p, err := c.m.plan(c.state, c.opts.PlanOptions, major)
	if err != nil {
		c.report.add("plan", Fail, err.Error(), "")
		return false
	}
	c.report.Plan = p
	if c.opts.PlanHash != "" && c.opts.PlanHash != p.Hash {
		c.report.add("plan", Fail, fmt.Sprintf("expected %.12s, now it is %.12s", c.opts.PlanHash, p.Hash), "look at the new plan")
	} else {
		c.report.add("plan", Pass, fmt.Sprintf("%d files, %s -> %s", len(p.Files), versionText(p.From), versionText(p.To)), "")
	}
	list = nil
	for _, f := range p.Unsafe() {
		list = append(list, f.String())
	}
	if c.opts.AllowUnsafe && len(list) > 0 {
		c.report.add("lint", Pass, "allowed in spite of: "+strings.Join(list, "; "), "")
	} else {
		c.report.verify("lint", list, "no unsafe statement", "mend them, or accept each by a comment with a reason")
	}
	if p.Direction == Down && !c.opts.AllowDestructive {
		c.report.verify("destructive", p.Destroys(), "destroys nothing", "take a backup and allow it")
	}
	return true
}

// drift compares the schema with what the last migration left.
func (c *checker) drift(ctx context.Context) error {
	saved, err := c.t.savedSnapshot(ctx, c.q)
	if err != nil {
		return err
	}
	if saved == nil {
		c.report.add("drift", Skipped, "no migration has left a picture of the schema yet", "")
		return nil
	}
	if c.state.open != nil {
		c.report.add("drift", Skipped, "a file stopped half-way", "")
		return nil
	}
	now, err := c.t.trySnapshot(ctx, c.q)
	if err != nil {
		return err
	}
	if now == nil {
		c.report.add("drift", CouldNotVerify, "a view could not be read in time, because a table below it is locked", "check again")
		return nil
	}
	list := differences(saved, sums(now))
	const show = 20
	if len(list) > show {
		list = append(list[:show], fmt.Sprintf("and %d more", len(list)-show))
	}
	c.report.verify("drift", list, "the schema is as the last migration left it", "write a migration for it, take it back, or accept it by repair")
	return nil
}

// touched are the tables of the plan that exist, quoted, in the order of the plan.
func (c *checker) touched(ctx context.Context) ([]int64, error) {
	var names []string
	for _, f := range c.report.Plan.Files {
		for _, st := range f.script.stmts {
			for _, r := range st.kind.tables {
				names = append(names, quoted(r))
			}
		}
	}
	// An index stands for its table.
	oids, err := dbcore.Collect[int64](ctx, c.q, `select distinct coalesce(i.indrelid, r.oid)::bigint from unnest($1::text[]) n
		cross join lateral (select to_regclass(n)::oid as oid) r left join pg_index i on i.indexrelid = r.oid where r.oid is not null`, names)
	if err != nil {
		return nil, fmt.Errorf("look for the plan's tables: %w", err)
	}
	return oids, nil
}

func (c *checker) privileges(ctx context.Context) error {
	oids, err := c.touched(ctx)
	if err != nil {
		return err
	}
	list, err := dbcore.Collect[string](ctx, c.q, `select format('%s belongs to %s', oid::regclass, relowner::regrole) from pg_class
		where oid = any($1::bigint[]) and not pg_has_role(relowner, 'USAGE')
		union all select format('may not create in schema %I', $2::text) where not has_schema_privilege($2::text, 'CREATE') and to_regclass($3) is null`,
		oids, c.t.schema, c.t.history)
	if err != nil {
		return fmt.Errorf("ask for privileges: %w", err)
	}
	c.report.verify("privileges", list, "the role owns what the plan changes", "run it as their owner, or as a member of that role")
	return nil
}

// blockers are transactions that are open for longer than a statement would wait and hold a lock on a table of the plan.
func (c *checker) blockers(ctx context.Context) error {
	oids, err := c.touched(ctx)
	if err != nil {
		return err
	}
	list, err := dbcore.Collect[string](ctx, c.q, `select distinct format('process %s (%s, %s, %s s): %s', a.pid, a.usename, a.state, extract(epoch from clock_timestamp() - a.xact_start)::int, left(a.query, 80))
		from pg_locks l join pg_stat_activity a using (pid) where l.granted and l.relation::bigint = any($1::bigint[]) and l.database = (select oid from pg_database where datname = current_database())
		and a.pid <> pg_backend_pid() and a.xact_start < clock_timestamp() - make_interval(secs => $2)
		union all select format('prepared transaction %L of %s', x.gid, x.owner) from pg_prepared_xacts x
		join pg_locks own on own.locktype = 'transactionid' and own.transactionid = x.transaction and own.pid is null
		join pg_locks l on l.virtualtransaction = own.virtualtransaction and l.pid is null where l.relation::bigint = any($1::bigint[]) and x.database = current_database()`, oids, c.m.opts.LockTimeout.Seconds())
	if err != nil {
		return fmt.Errorf("ask who would be in the way: %w", err)
	}
	c.report.verify("blockers", list, "no old transaction holds a lock on the plan's tables", "end them, or wait")
	return nil
}

func (c *checker) size(ctx context.Context) error {
	oids, err := c.touched(ctx)
	if err != nil {
		return err
	}
	// By the catalogs: pg_relation_size would wait for whoever has locked the table.
	list, err := dbcore.Collect[string](ctx, c.q, `select case when reltuples < 0 then format('%s of unknown size (never analyzed)', oid::regclass)
			else format('%s about %s', oid::regclass, pg_size_pretty(relpages::bigint * current_setting('block_size')::bigint)) end from pg_class
		where oid = any($1::bigint[]) order by relpages desc`, oids)
	if err != nil {
		return fmt.Errorf("ask for sizes: %w", err)
	}
	c.report.add("size", Pass, "touches "+strings.Join(list, ", "), "")
	return nil
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}
