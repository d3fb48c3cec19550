package dbcore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The reports of this file and its neighbours say what a person may want to change, and why. They change nothing
// themselves: each runs in a READ ONLY transaction (given a Tx, inside that one), works on a standby as well, and costs
// a few catalog queries. They are safe to repeat.

// ErrInsightUnavailable says that the server does not keep what a report needs. The error is an
// *InsightUnavailableError, which names the remedy.
var ErrInsightUnavailable = errors.New("the server does not keep these statistics")

// InsightUnavailableError is ErrInsightUnavailable with its reason.
type InsightUnavailableError struct {
	// What is the extension or setting that is missing.
	What string
	// Reason says what is wrong with it.
	Reason string
	// Remedy is what a person can do.
	Remedy string

	err error
}

// Error has the reason and the remedy.
func (e *InsightUnavailableError) Error() string {
	return fmt.Sprintf("%s: %s (hint: %s)", e.What, e.Reason, e.Remedy)
}

// Is says that it is ErrInsightUnavailable.
func (e *InsightUnavailableError) Is(target error) bool { return target == ErrInsightUnavailable }

// Unwrap returns the server's error, if there was one.
func (e *InsightUnavailableError) Unwrap() error { return e.err }

// readOnly runs f in a READ ONLY transaction of q's, or in q if that is a transaction already.
func readOnly(ctx context.Context, q Querier, what string, f func(context.Context, Querier) error) error {
	var err error
	if b, ok := q.(interface {
		RunTx(ctx context.Context, opts TxOptions, fn func(context.Context, *Tx) error) error
	}); ok {
		// One snapshot for the catalog; the statistics are kept for the transaction by the server.
		err = b.RunTx(ctx, TxOptions{Isolation: RepeatableRead, ReadOnly: true}, func(ctx context.Context, tx *Tx) error { return f(ctx, tx) })
	} else {
		err = f(ctx, q)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// statsSince is since when the counters of this database run, the number of standbys that are connected, and whether this
// server is one itself.
type statsSince struct {
	Since      *time.Time
	Now        time.Time
	Standbys   int
	InRecovery bool
}

const statsSinceSQL = `select (select stats_reset from pg_stat_database where datname = current_database()) as since,
	clock_timestamp() as now, pg_is_in_recovery() as in_recovery,
	(select count(*)::int from pg_stat_replication) as standbys`

// age says in words for how long the counters run; 0 is not known.
func (s statsSince) age() (time.Duration, string) {
	if s.Since == nil {
		return 0, "since they were last lost, by a crash for instance; when that was is not known"
	}
	d := s.Now.Sub(*s.Since)
	return d, fmt.Sprintf("for %s", d.Round(time.Second))
}

// elsewhere says whose counters are missing here.
func (s statsSince) elsewhere() string {
	switch {
	case s.InRecovery:
		return "this server is a standby: the counters of its primary are not in it"
	case s.Standbys > 0:
		return fmt.Sprintf("%d standbys are connected, whose counters are not in it: ask each", s.Standbys)
	}
	return "if there are standbys, their counters are not in it"
}

func bytesText(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
