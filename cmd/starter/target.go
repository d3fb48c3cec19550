package main

import (
	"time"

	"github.com/spf13/cobra"

	"lifeboat/internal/contract"
	"lifeboat/internal/pg"
)

// targetFlags say where a recovery ends.
type targetFlags struct {
	time, lsn, xid, name string
	immediate, exclusive bool
}

func (t *targetFlags) register(cmd *cobra.Command, otherwise string) {
	f := cmd.Flags()
	f.StringVar(&t.time, "to", "", `target time: RFC 3339 with a zone, or "5 minutes ago" (default target: `+otherwise+")")
	f.StringVar(&t.lsn, "to-lsn", "", "target position in the WAL, as 0/3000028")
	f.StringVar(&t.xid, "to-xid", "", "target transaction: not available in this version")
	f.StringVar(&t.name, "to-name", "", "target restore point, as pg_create_restore_point made it")
	f.BoolVar(&t.immediate, "to-immediate", false, "end as soon as the backup is consistent")
	f.BoolVar(&t.exclusive, "exclusive", false, "stop just before the target (time and LSN)")
}

// target is what the flags say; the zero Target if they say nothing. A relative time becomes an absolute one now.
func (t *targetFlags) target(now time.Time) (contract.Target, error) {
	var found []contract.Target
	add := func(kind, value string) {
		found = append(found, contract.Target{Kind: kind, Value: value, Exclusive: t.exclusive})
	}
	if t.xid != "" {
		return contract.Target{}, usagef("--to-xid is not available in this version: use --to, --to-lsn or --to-name")
	}
	if t.time != "" {
		at, err := contract.ParseTime(t.time, now)
		if err != nil {
			return contract.Target{}, usagef("--to: %w", err)
		}
		add("time", at.Format(time.RFC3339Nano))
	}
	if t.lsn != "" {
		lsn, err := pg.ParseLSN(t.lsn)
		if err != nil {
			return contract.Target{}, usagef("--to-lsn: %w", err)
		}
		add("lsn", lsn.String())
	}
	if t.name != "" {
		add("name", t.name)
	}
	if t.immediate {
		add("immediate", "")
	}
	switch {
	case len(found) > 1:
		return contract.Target{}, usagef("several targets: give one of --to, --to-lsn, --to-name and --to-immediate")
	case t.exclusive && t.time == "" && t.lsn == "":
		return contract.Target{}, usagef("--exclusive needs --to or --to-lsn: other targets have no record to stop before")
	case len(found) == 0:
		return contract.Target{}, nil
	}
	return found[0], nil
}
