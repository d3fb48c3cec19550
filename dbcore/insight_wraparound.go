package dbcore

import (
	"context"
	"fmt"
	"strings"
)

// WraparoundLevel is how near the end of the transaction ids is.
type WraparoundLevel int

// The levels.
const (
	// WraparoundFine: below the age at which the server begins to work against it by itself.
	WraparoundFine WraparoundLevel = iota
	// WraparoundForced: above autovacuum_freeze_max_age or autovacuum_multixact_freeze_max_age. The server vacuums even if
	// autovacuum is off; if the age goes on to grow, something keeps it from it.
	WraparoundForced
	// WraparoundFailsafe: above vacuum_failsafe_age or vacuum_multixact_failsafe_age. VACUUM leaves out all else.
	WraparoundFailsafe
	// WraparoundEmergency: fewer than 40 million ids are left; the server warns at each, and at 3 million it refuses
	// all writes.
	WraparoundEmergency
)

// String returns fine, forced, failsafe or emergency.
func (l WraparoundLevel) String() string {
	switch l {
	case WraparoundFine:
		return "fine"
	case WraparoundForced:
		return "forced"
	case WraparoundFailsafe:
		return "failsafe"
	case WraparoundEmergency:
		return "emergency"
	}
	return "unknown"
}

// WraparoundLimits are the server's settings, in transactions.
type WraparoundLimits struct {
	FreezeMaxAge, MultixactFreezeMaxAge int64
	FailsafeAge, MultixactFailsafeAge   int64
}

// WraparoundAge is one database or table.
type WraparoundAge struct {
	// Name is a database, or a table with its schema.
	Name string
	// XIDAge and MultixactAge are how many ids were given out since its oldest that is not frozen.
	XIDAge, MultixactAge int64
	// Left is how many more transactions there can be before the server refuses writes.
	Left   int64
	Level  WraparoundLevel
	Reason string
}

// XminHolder keeps VACUUM from freezing what is younger than its snapshot.
type XminHolder struct {
	// Kind is session, slot, standby or prepared transaction, and Name which one.
	Kind, Name string
	// Age is how many transactions ago its snapshot was taken.
	Age int64
	// Remedy is what ends it.
	Remedy string
}

// WraparoundReport is what Wraparound returns.
type WraparoundReport struct {
	Limits WraparoundLimits
	// Databases has all of them, oldest first. One that is not fine needs a VACUUM in that database.
	Databases []WraparoundAge
	// Tables has the 20 oldest of this database, TOAST tables included.
	Tables []WraparoundAge
	// Holders has what keeps VACUUM from its work, oldest first.
	Holders []XminHolder
}

// The end of the ids (SetTransactionIdLimit in src/backend/access/transam/varsup.c, SetMultiXactIdLimit in multixact.c).
const (
	wrapAfter  = 1<<31 - 1
	stopBefore = 3_000_000
	warnBefore = 40_000_000
)

type ageRow struct {
	Name                 string
	XIDAge, MultixactAge int64
}

const (
	limitsSQL = `select current_setting('autovacuum_freeze_max_age')::int8 as freeze_max_age,
	current_setting('autovacuum_multixact_freeze_max_age')::int8 as multixact_freeze_max_age,
	current_setting('vacuum_failsafe_age')::int8 as failsafe_age, current_setting('vacuum_multixact_failsafe_age')::int8 as multixact_failsafe_age`
	databaseAgesSQL = `select datname as name, age(datfrozenxid)::int8 as xid_age, mxid_age(datminmxid)::int8 as multixact_age
from pg_database order by greatest(age(datfrozenxid), mxid_age(datminmxid)) desc, datname`
	tableAgesSQL = `select n.nspname || '.' || c.relname || coalesce(' (TOAST of ' || t.oid::regclass || ')', '') as name,
	age(c.relfrozenxid)::int8 as xid_age, mxid_age(c.relminmxid)::int8 as multixact_age
from pg_class c join pg_namespace n on n.oid = c.relnamespace left join pg_class t on t.reltoastrelid = c.oid
where c.relkind in ('r', 'm', 't') and c.relfrozenxid <> '0' order by greatest(age(c.relfrozenxid), mxid_age(c.relminmxid)) desc, c.oid limit 20`
	holdersSQL = `select * from (
	select case when backend_type = 'walsender' then 'standby' else 'session' end as kind,
		'pid ' || pid || coalesce(' (' || nullif(application_name, '') || ')', '') || coalesce(', transaction since ' || xact_start::timestamptz(0), '') as name,
		greatest(age(backend_xmin), age(backend_xid))::int8 as age,
		case when backend_type = 'walsender' then 'end long queries on the standby, or set hot_standby_feedback=off there' else 'end it: select pg_terminate_backend(' || pid || ')' end as remedy
	from pg_stat_activity where (backend_xmin is not null or backend_xid is not null) and pid <> pg_backend_pid()
	union all
	select 'slot', slot_name, greatest(age(xmin), age(catalog_xmin))::int8,
		'if its consumer is gone for good: select pg_drop_replication_slot(' || quote_literal(slot_name) || ')'
	from pg_replication_slots where xmin is not null or catalog_xmin is not null
	union all
	select 'prepared transaction', gid, age(transaction)::int8, 'COMMIT PREPARED or ROLLBACK PREPARED ' || quote_literal(gid) from pg_prepared_xacts
) h order by age desc nulls last, kind, name`
)

// Wraparound returns how old the oldest transaction ids are that are not frozen, and what keeps them so.
func Wraparound(ctx context.Context, q Querier) (*WraparoundReport, error) {
	var report *WraparoundReport
	err := readOnly(ctx, q, "wraparound", func(ctx context.Context, q Querier) (err error) {
		report = &WraparoundReport{}
		if report.Limits, err = One[WraparoundLimits](ctx, q, limitsSQL); err != nil {
			return err
		}
		if report.Databases, err = report.Limits.ages(ctx, q, databaseAgesSQL); err != nil {
			return err
		}
		if report.Tables, err = report.Limits.ages(ctx, q, tableAgesSQL); err != nil {
			return err
		}
		report.Holders, err = Collect[XminHolder](ctx, q, holdersSQL)
		return err
	})
	return report, err
}

func (l WraparoundLimits) ages(ctx context.Context, q Querier, sql string) ([]WraparoundAge, error) {
	rows, err := Collect[ageRow](ctx, q, sql)
	if err != nil {
		return nil, err
	}
	var list []WraparoundAge
	for _, r := range rows {
		list = append(list, l.judge(r))
	}
	return list, nil
}

func (l WraparoundLimits) judge(r ageRow) WraparoundAge {
	a := WraparoundAge{Name: r.Name, XIDAge: r.XIDAge, MultixactAge: r.MultixactAge}
	oldest := max(r.XIDAge, r.MultixactAge)
	a.Left = max(0, wrapAfter-stopBefore-oldest)
	var why []string
	note := func(level WraparoundLevel, what string, age, limit int64, setting string) {
		if age <= limit {
			return
		}
		a.Level = max(a.Level, level)
		why = append(why, fmt.Sprintf("%s %d is above %s (%d)", what, age, setting, limit))
	}
	note(WraparoundForced, "xid age", r.XIDAge, l.FreezeMaxAge, "autovacuum_freeze_max_age")
	note(WraparoundForced, "multixact age", r.MultixactAge, l.MultixactFreezeMaxAge, "autovacuum_multixact_freeze_max_age")
	note(WraparoundFailsafe, "xid age", r.XIDAge, l.FailsafeAge, "vacuum_failsafe_age")
	note(WraparoundFailsafe, "multixact age", r.MultixactAge, l.MultixactFailsafeAge, "vacuum_multixact_failsafe_age")
	if oldest > wrapAfter-warnBefore {
		a.Level = WraparoundEmergency
	}
	if a.Level == WraparoundFine {
		a.Reason = fmt.Sprintf("xid age %d of %d, multixact age %d of %d", r.XIDAge, l.FreezeMaxAge, r.MultixactAge, l.MultixactFreezeMaxAge)
		return a
	}
	a.Reason = strings.Join(why, "; ") + fmt.Sprintf("; %d more transactions until the server refuses writes; run VACUUM, and look at what holds it back", a.Left)
	return a
}
