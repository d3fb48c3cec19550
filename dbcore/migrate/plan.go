package migrate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"lifeboat/dbcore"
)

// Plan is what Apply or Down would do. It is a value: it can be printed, compared by its Hash, and stored as JSON.
type Plan struct {
	Direction Direction `json:"direction"`
	// From and To are versions of the database before and after; -1 is a database without migrations.
	From int64 `json:"from"`
	To   int64 `json:"to"`
	// Major is the server's version that the findings are for.
	Major int `json:"major"`
	// Adopt says that the database comes from golang-migrate and that its versions get a history first.
	Adopt bool `json:"adopt,omitempty"`
	// Files are in the order in which they run. None: there is nothing to do.
	Files []PlannedFile `json:"files"`
	// Hash names what would be run: direction, versions, and each statement. Findings and Major are not in it.
	Hash string `json:"hash"`
}

// PlannedFile is one file of a Plan.
type PlannedFile struct {
	Version  int64  `json:"version"`
	Title    string `json:"title"`
	Name     string `json:"name"`
	Checksum string `json:"checksum"`
	// Transactional says that all statements, the version and the history are one transaction; Why says why not.
	Transactional bool   `json:"transactional"`
	Why           string `json:"why,omitempty"`
	// Resume is the number of the first statement that is run, from 1; above 1 the file stopped there before.
	Resume     int          `json:"resume"`
	Statements []PlannedSQL `json:"statements"`
	Findings   []Finding    `json:"findings,omitempty"`
	Ignored    []Finding    `json:"ignored,omitempty"` // accepted by a directive, with its reason
	Destroys   []string     `json:"destroys,omitempty"`
	script     *script      // nil after JSON
	migration  *file        // likewise
}

// PlannedSQL is one statement of a file.
type PlannedSQL struct {
	// Number is from 1, Line where it begins in the file.
	Number int    `json:"number"`
	Line   int    `json:"line"`
	Kind   string `json:"kind"`
	SQL    string `json:"sql"`
	// Transactional is false for a statement that PostgreSQL refuses in a transaction.
	Transactional bool     `json:"transactional"`
	Tables        []string `json:"tables,omitempty"`
}

// PlanOptions say which way to go, and how far. The zero value is up to the newest file.
type PlanOptions struct {
	// Direction is Up or Down; "" is Up.
	Direction Direction
	// To is the version to end at; nil is the newest for Up. For Down, nil is one version down, and -1 all the way.
	To *int64
}

// Plan says what Apply or Down would do now. It reads the database's version and history in a read-only transaction and
// touches nothing.
//
// Errors: *StateError if files and database do not fit, ErrNoVersion, ErrIrreversible for a way down that is not there.
// Unsafe statements are no error here: see Plan.Unsafe.
func (m *Migrator) Plan(ctx context.Context, opts PlanOptions) (*Plan, error) {
	var plan *Plan
	err := m.readOnly(ctx, func(ctx context.Context, q *dbcore.Tx) error {
		t, err := m.tables(ctx, q)
		if err != nil {
			return err
		}
		s, err := t.readState(ctx, q)
		if err != nil {
			return err
		}
		major, err := majorOf(ctx, q)
		if err != nil {
			return err
		}
		plan, err = m.plan(s, opts, major)
		return err
	})
	return plan, err
}

// readOnly runs fn in one read-only transaction on a session of its own.
func (m *Migrator) readOnly(ctx context.Context, fn func(ctx context.Context, q *dbcore.Tx) error) error {
	conn, err := dbcore.Connect(ctx, m.opts.Config)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.RunTx(ctx, dbcore.TxOptions{ReadOnly: true, Isolation: dbcore.RepeatableRead}, func(ctx context.Context, tx *dbcore.Tx) error {
		return fn(ctx, tx)
	})
}

func majorOf(ctx context.Context, q dbcore.Querier) (int, error) {
	n, err := dbcore.One[int](ctx, q, "select current_setting('server_version_num')::int")
	if err != nil {
		return 0, fmt.Errorf("ask for the server's version: %w", err)
	}
	if n < 150000 {
		return 0, fmt.Errorf("%w: %d, migrations need 15 or later", dbcore.ErrUnsupportedServer, n/10000)
	}
	return n / 10000, nil
}

// plan is pure: files and state in, plan out.
func (m *Migrator) plan(s *state, opts PlanOptions, major int) (*Plan, error) {
	if err := problemsOf(m.problems(s)); err != nil {
		return nil, err
	}
	p := &Plan{Direction: Up, From: s.current(), Major: major, Adopt: s.adopt}
	var err error
	if opts.Direction == Down {
		p.Direction = Down
		err = m.planDown(p, s, opts.To)
	} else {
		err = m.planUp(p, s, opts.To)
	}
	if err != nil {
		return nil, err
	}
	p.Hash = p.hash()
	return p, nil
}

func (m *Migrator) planUp(p *Plan, s *state, to *int64) error {
	if err := m.known(to); err != nil {
		return err
	}
	if s.open != nil && s.open.Direction == "down" {
		return problemsOf([]Problem{problem(ErrDirty, s.open.Version, openText(s.open), "finish it by down, or run repair")})
	}
	p.To = p.From
	for _, f := range m.files {
		if s.isApplied(f.version) || (to != nil && f.version > *to) {
			continue
		}
		pf, err := m.planFile(f, f.up, s, p.Major)
		if err != nil {
			return err
		}
		p.Files = append(p.Files, pf)
		p.To = max(p.To, f.version)
	}
	if s.open != nil && (len(p.Files) == 0 || p.Files[0].Version != s.open.Version) {
		return problemsOf([]Problem{problem(ErrDirty, s.open.Version, openText(s.open), "it must be finished first: plan up to it or beyond")})
	}
	return nil
}

func (m *Migrator) planDown(p *Plan, s *state, to *int64) error {
	if to != nil && *to != noVersion {
		if err := m.known(to); err != nil {
			return err
		}
	}
	if s.open != nil && s.open.Direction == "up" {
		return problemsOf([]Problem{problem(ErrDirty, s.open.Version, openText(s.open), "finish it by apply, or run repair")})
	}
	p.To = noVersion
	for i := len(m.files) - 1; i >= 0; i-- {
		f := m.files[i]
		if !s.isApplied(f.version) {
			continue
		}
		if (to == nil && len(p.Files) == 1) || (to != nil && f.version <= *to) {
			p.To = f.version
			break
		}
		if f.down == nil {
			return fmt.Errorf("%w: version %d (%s) has no down file; restore to a point before it instead, or write a new migration", ErrIrreversible, f.version, f.title)
		}
		if f.down.irreversible != "" {
			return fmt.Errorf("%w: %s says so: %s; restore to a point before it instead, or write a new migration", ErrIrreversible, f.down.name, f.down.irreversible)
		}
		pf, err := m.planFile(f, f.down, s, p.Major)
		if err != nil {
			return err
		}
		p.Files = append(p.Files, pf)
	}
	return nil
}

func (m *Migrator) known(to *int64) error {
	if to == nil {
		return nil
	}
	for _, f := range m.files {
		if f.version == *to {
			return nil
		}
	}
	return fmt.Errorf("%w: %d is none of the %d files", ErrNoVersion, *to, len(m.files))
}

func (m *Migrator) planFile(f *file, sc *script, s *state, major int) (PlannedFile, error) {
	tx, why := sc.transactional()
	pf := PlannedFile{Version: f.version, Title: f.title, Name: sc.name, Checksum: sc.checksum, Transactional: tx, Why: why, Resume: 1, script: sc, migration: f}
	if s.open != nil && s.open.Version == f.version {
		if err := sc.continues(s.open); err != nil {
			return pf, err
		}
		pf.Resume = s.open.StatementsDone + 1
	}
	for i, st := range sc.stmts {
		planned := PlannedSQL{Number: i + 1, Line: st.line, Kind: st.kind.name, SQL: st.text, Transactional: !st.kind.noTransaction}
		for _, r := range st.kind.tables {
			planned.Tables = append(planned.Tables, r.String())
		}
		if st.kind.destroys != "" {
			pf.Destroys = append(pf.Destroys, st.kind.destroys)
		}
		pf.Statements = append(pf.Statements, planned)
	}
	pf.Findings, pf.Ignored = lintScript(sc, lintContext{major: major, direction: scriptDirection(f, sc)})
	return pf, nil
}

func scriptDirection(f *file, sc *script) Direction {
	if sc == f.down {
		return Down
	}
	return Up
}

// continues says whether a stopped file can go on: what was done of it must still be its beginning.
func (s *script) continues(r *record) error {
	if len(s.stmts) >= r.StatementsDone && s.doneChecksum(r.StatementsDone) == r.DoneChecksum {
		return nil
	}
	return problemsOf([]Problem{problem(ErrEdited, r.Version, fmt.Sprintf("%s stopped after %d statements, and those were changed since", s.name, r.StatementsDone),
		"restore its first statements; those from the failed one on may change")})
}

// doneChecksum names the first n statements.
func (s *script) doneChecksum(n int) string {
	if n == 0 {
		return ""
	}
	h := sha256.New()
	for _, st := range s.stmts[:n] {
		fmt.Fprintf(h, "%d:%s;", len(st.text), st.text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (p *Plan) hash() string {
	h := sha256.New()
	fmt.Fprintf(h, "migrate plan 1\n%s %d %d\n", p.Direction, p.From, p.To)
	for _, f := range p.Files {
		fmt.Fprintf(h, "%d %s %s %t %d\n", f.Version, f.Name, f.Checksum, f.Transactional, f.Resume)
		for _, s := range f.Statements {
			fmt.Fprintf(h, "%d:%s\n", len(s.SQL), s.SQL)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Unsafe returns the findings that Apply refuses.
func (p *Plan) Unsafe() []Finding {
	var list []Finding
	for _, f := range p.Files {
		for _, finding := range f.Findings {
			if finding.Severity == SeverityError {
				list = append(list, finding)
			}
		}
	}
	return list
}

// Destroys says what data the plan destroys.
func (p *Plan) Destroys() []string {
	var list []string
	for _, f := range p.Files {
		list = append(list, f.Destroys...)
	}
	return list
}

// String prints the plan for a person.
func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s -> %s, PostgreSQL %d, plan %.12s\n", p.Direction, versionText(p.From), versionText(p.To), p.Major, p.Hash)
	if p.Adopt {
		fmt.Fprintf(&b, "versions up to %d come from golang-migrate and get a history first\n", p.From)
	}
	if len(p.Files) == 0 {
		b.WriteString("nothing to do\n")
	}
	for _, f := range p.Files {
		mode := "one transaction"
		if !f.Transactional {
			mode = "statement by statement: " + f.Why
		}
		fmt.Fprintf(&b, "\n%s  %.12s  %s\n", f.Name, f.Checksum, mode)
		if f.Resume > 1 {
			fmt.Fprintf(&b, "  goes on at statement %d, where it stopped\n", f.Resume)
		}
		for _, s := range f.Statements {
			fmt.Fprintf(&b, "  %3d  line %-4d %s\n", s.Number, s.Line, shorten(s.SQL, 110))
		}
		for _, d := range f.Destroys {
			fmt.Fprintf(&b, "  destroys %s\n", d)
		}
		for _, x := range f.Findings {
			fmt.Fprintf(&b, "  %s\n", x)
		}
		for _, x := range f.Ignored {
			fmt.Fprintf(&b, "  accepted: %s: %s\n", x.Rule, x.Reason)
		}
	}
	return b.String()
}
