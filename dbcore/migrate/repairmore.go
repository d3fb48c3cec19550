package migrate

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"lifeboat/dbcore"
)

// repairVersions is for a database that another tool has migrated since.
func (m *Migrator) repairVersions(st *state, opts RepairOptions) repairStep {
	step := repairStep{RepairItem: RepairItem{
		Kind: "versions", Version: st.version, Outcome: string(unknown),
		Evidence: fmt.Sprintf("the version table says %s, the history ends at %s", versionText(st.version), versionText(st.current())),
		Proposal: "say which of them is right: version-table if another tool has migrated, history if somebody has only changed the table", NeedsDecision: true,
	}}
	version := st.version
	switch opts.Resolve {
	case ResolveVersionTable:
		step.Proposal = "let the history follow the version table"
	case ResolveHistory:
		version = st.current()
		step.Proposal = "let the version table follow the history"
	default:
		return step
	}
	step.NeedsDecision = false
	step.do = func(ctx context.Context, s *session) error { return s.trustVersion(ctx, st, version) }
	return step
}

func (m *Migrator) repairEdited(st *state, opts RepairOptions) []repairStep {
	var steps []repairStep
	for _, v := range st.appliedVersions() {
		f := m.fileOf(v)
		if f == nil || f.up.checksum == st.applied[v].Checksum {
			continue
		}
		step := repairStep{RepairItem: RepairItem{
			Kind: "edited", Version: v, File: f.up.name, Evidence: fmt.Sprintf("checksum %.12s, applied was %.12s", f.up.checksum, st.applied[v].Checksum),
			Proposal: "restore the file, or accept the edit", NeedsDecision: true,
		}}
		if slices.Contains(opts.AcceptEdited, v) {
			step.Proposal, step.NeedsDecision = "accept the file as it is", false
			step.do = func(ctx context.Context, s *session) error {
				return s.t.note(ctx, s.conn, f, "adopted", s.m.opts.AppVersion)
			}
		}
		steps = append(steps, step)
	}
	return steps
}

// repairIndexes looks for INVALID indexes: those that pending files are to make are in the way and can be dropped;
// others are somebody else's.
func (m *Migrator) repairIndexes(ctx context.Context, q dbcore.Querier, st *state, before []repairStep) ([]repairStep, error) {
	type row struct{ Name, Table string }
	rows, err := dbcore.Collect[row](ctx, q, `select format('%I.%I', n.nspname, c.relname) as name, i.indrelid::regclass::text as table
		from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
		where not i.indisvalid and c.relkind = 'i' and n.nspname !~ '^pg_toast' order by 1`)
	if err != nil {
		return nil, fmt.Errorf("look for INVALID indexes: %w", err)
	}
	dropped := map[string]bool{}
	for _, step := range before {
		for _, sql := range step.SQL {
			dropped[sql] = true
		}
	}
	var steps []repairStep
	pending, err := m.pendingIndexes(ctx, q, st)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		sql := "drop index concurrently if exists " + r.Name
		if dropped[sql] {
			continue
		}
		step := repairStep{RepairItem: RepairItem{
			Kind: "other-index", Evidence: "INVALID index " + r.Name + " on " + r.Table, SQL: []string{sql}, NeedsDecision: true,
			Proposal: "no migration is to make it: drop it yourself, unless somebody is building it",
		}}
		if f := pending[r.Name]; f != nil {
			step.Kind, step.Version, step.File, step.Outcome, step.NeedsDecision = "index", f.version, f.up.name, string(leftover), false
			step.Proposal = "drop it: " + f.up.name + " makes it anew"
			step.do = func(ctx context.Context, s *session) error {
				_, err := s.conn.Exec(ctx, sql)
				return err
			}
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// pendingIndexes are the INVALID indexes that files which are not applied will make, by name.
func (m *Migrator) pendingIndexes(ctx context.Context, q dbcore.Querier, st *state) (map[string]*file, error) {
	found := map[string]*file{}
	for _, f := range m.files {
		if st.isApplied(f.version) {
			continue
		}
		for _, stmt := range f.up.stmts {
			v := stmt.node.GetIndexStmt()
			if v == nil || !v.Concurrent || v.Idxname == "" {
				continue
			}
			if in, busy, err := inspectBusy(ctx, q, stmt); err != nil {
				return nil, err
			} else if busy || in.outcome == underway {
				continue
			}
			list, err := indexesOf(ctx, q, stmt)
			if err != nil {
				return nil, err
			}
			for _, x := range list {
				if x.Plain == v.Idxname && !x.Valid {
					found[x.Name] = f
				}
			}
		}
	}
	return found, nil
}

func repairDrift(ctx context.Context, q *dbcore.Tx, t tables, st *state, opts RepairOptions) ([]repairStep, error) {
	saved, err := t.savedSnapshot(ctx, q)
	if err != nil || saved == nil || st.open != nil {
		return nil, err
	}
	now, err := t.trySnapshot(ctx, q)
	if err != nil || now == nil {
		return nil, err
	}
	list := differences(saved, sums(now))
	if len(list) == 0 {
		return nil, nil
	}
	step := repairStep{RepairItem: RepairItem{
		Kind: "drift", Version: st.current(), Evidence: strings.Join(list, "; "), Proposal: "write a migration for it, take it back, or accept it", NeedsDecision: true,
	}}
	if opts.AcceptDrift {
		step.Proposal, step.NeedsDecision = "take the schema as it is", false
		step.do = func(ctx context.Context, s *session) error {
			return s.conn.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error { return s.t.saveSnapshot(ctx, tx) })
		}
	}
	return []repairStep{step}, nil
}
