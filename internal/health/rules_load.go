package health

import (
	"fmt"
	"slices"
	"strings"
)

var replicationRules = []Rule{
	{
		ID: "slot_inactive", Area: AreaReplication, Severities: []Severity{Warning}, Open: openDoubt, Close: closeDoubt,
		When:   "a replication slot that nobody reads keeps more than 1 GiB of WAL",
		Remedy: "start what reads the slot, or drop it: select pg_drop_replication_slot('NAME'); set max_slot_wal_keep_size to bound what slots keep",
		judge: func(s *Snapshot, l Limits) []sight {
			var out []sight
			for _, t := range s.Slots {
				if !t.Active && t.Retained > l.SlotRetained && t.Status != "lost" {
					out = append(out, sight{t.Name, Warning, fmt.Sprintf("nobody reads %s slot %s, which keeps %s of WAL on the server", t.Kind, t.Name, size(t.Retained)), ""})
				}
			}
			return out
		},
	},
	{
		ID: "slot_wal_status", Area: AreaReplication, Severities: []Severity{Critical, Warning}, Open: openSure, Close: closeSure,
		When:   "a slot's WAL is `lost` (critical), or `unreserved` and goes with the next checkpoint",
		Remedy: "lost: build anew what reads the slot, and drop the slot; unreserved: let the reader catch up at once, and raise max_slot_wal_keep_size",
		judge: func(s *Snapshot, _ Limits) []sight {
			var out []sight
			for _, t := range s.Slots {
				switch t.Status {
				case "lost":
					out = append(out, sight{t.Name, Critical, fmt.Sprintf("%s slot %s has lost WAL that its reader needs", t.Kind, t.Name), ""})
				case "unreserved":
					out = append(out, sight{t.Name, Warning, fmt.Sprintf("WAL of %s slot %s goes with the next checkpoint", t.Kind, t.Name), ""})
				}
			}
			return out
		},
	},
	{
		ID: "standby_behind", Area: AreaStandbys, Severities: []Severity{Warning}, Open: openDoubt, Close: closeDoubt,
		When:   "a standby is more than 1 GiB behind",
		Remedy: "see the standby's log, its disks and the network; a query there may hold replay back (max_standby_streaming_delay)",
		judge: func(s *Snapshot, l Limits) []sight {
			var out []sight
			for _, t := range s.Standbys {
				if t.Behind > l.StandbyBehind {
					out = append(out, sight{t.Name, Warning, fmt.Sprintf("standby %s (%s) has %s of WAL not replayed yet", t.Name, t.State, size(t.Behind)), ""})
				}
			}
			return out
		},
	},
	{
		ID: "sync_standby_missing", Area: AreaStandbys, Severities: []Severity{Critical}, Open: openDoubt, Close: closeSure,
		When:   "`synchronous_standby_names` is set, and no synchronous standby is connected: commits wait for ever",
		Remedy: "start the standby that synchronous_standby_names names, or take it off that list and reload the configuration",
		judge: func(s *Snapshot, _ Limits) []sight {
			sync := func(t Standby) bool { return t.Sync == "sync" || t.Sync == "quorum" }
			if strings.TrimSpace(s.SyncNames) == "" || slices.ContainsFunc(s.Standbys, sync) {
				return nil
			}
			return one(Critical, "", "synchronous_standby_names is %q, and none of them is connected: commits wait", s.SyncNames)
		},
	},
}

var wraparoundRules = []Rule{
	wraparound("xid_age", "transaction ids", "autovacuum_freeze_max_age", func(d Database) (int64, int64) { return d.XIDAge, d.FreezeMax }),
	wraparound("multixact_age", "multixact ids", "autovacuum_multixact_freeze_max_age", func(d Database) (int64, int64) { return d.MultiAge, d.MultiFreeze }),
}

// wraparound is the rule on one kind of ids, of which there are 2^31 before the server refuses to write.
func wraparound(id, what, setting string, age func(Database) (age, freezeMax int64)) Rule {
	return Rule{
		ID: id, Area: AreaWraparound, Severities: []Severity{Critical, Warning}, Open: openSure, Close: closeSure,
		When: fmt.Sprintf("the oldest %s of a database have aged beyond twice `%s`, or beyond 1.0 billion (critical: 1.6 billion, of 2.1 at which the server refuses to write)", what, setting),
		Remedy: "end what holds vacuum back (long_transaction, prepared_transaction, slots with an old xmin), and then VACUUM (FREEZE) the tables with the oldest relfrozenxid or relminmxid; " +
			"give autovacuum more workers and a higher cost limit",
		judge: func(s *Snapshot, l Limits) []sight {
			var out []sight
			for _, d := range s.Databases {
				n, freezeMax := age(d)
				severity := Warning
				if n >= l.AgeCritical {
					severity = Critical
				}
				if n >= min(l.AgeWarning, l.FreezeMultiple*freezeMax) {
					out = append(out, sight{d.Name, severity, fmt.Sprintf("the oldest %s of database %s are %d old; vacuum should freeze them at %d", what, d.Name, n, freezeMax), ""})
				}
			}
			return out
		},
	}
}

var transactionRules = []Rule{
	{
		ID: "long_transaction", Area: AreaTransactions, Severities: []Severity{Critical, Warning}, Open: openSure, Close: closeSure,
		When:   "a transaction has been open for more than an hour (critical: 12 hours): vacuum removes nothing that it may still see",
		Remedy: "end it where it was begun, or by select pg_terminate_backend(PID); set idle_in_transaction_session_timeout (and, from PostgreSQL 17, transaction_timeout)",
		judge: func(s *Snapshot, l Limits) []sight {
			var out []sight
			for _, t := range s.Long {
				if severity, ok := overdue(t, l.Transaction.Seconds(), l.TransactionCritical.Seconds()); ok {
					out = append(out, sight{t.Name, severity, fmt.Sprintf("process %s of %s in database %s (%s, %s) has had a transaction open for %s",
						t.Name, t.User, t.Database, t.Application, t.State, ago(seconds(t.Age))), ""})
				}
			}
			return out
		},
	},
	{
		ID: "prepared_transaction", Area: AreaTransactions, Severities: []Severity{Critical, Warning}, Open: openSure, Close: closeSure,
		When:   "a prepared transaction is older than 10 minutes (critical: 12 hours): it holds its locks, and vacuum back, over restarts",
		Remedy: "COMMIT PREPARED 'ID' or ROLLBACK PREPARED 'ID', in its database, as its transaction manager says",
		judge: func(s *Snapshot, l Limits) []sight {
			var out []sight
			for _, t := range s.Prepared {
				if severity, ok := overdue(t, l.Prepared.Seconds(), l.PreparedCritical.Seconds()); ok {
					out = append(out, sight{t.Name, severity, fmt.Sprintf("transaction %q of %s in database %s was prepared %s ago", t.Name, t.User, t.Database, ago(seconds(t.Age))), ""})
				}
			}
			return out
		},
	},
}

func overdue(t Transaction, warning, critical float64) (s Severity, ok bool) {
	switch {
	case t.Age > critical:
		return Critical, true
	case t.Age > warning:
		return Warning, true
	}
	return "", false
}
