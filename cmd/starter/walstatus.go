package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"lifeboat/activities"
	"lifeboat/dbcore"
	"lifeboat/internal/contract"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
	"lifeboat/internal/wal/walrecord"
)

const (
	// serverPatience bounds how long a server is asked where it is.
	serverPatience = 10 * time.Second
	// lookBack bounds how many segments are searched for a commit, from the frontier down.
	lookBack = 256
)

func newWALStatusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "wal-status CLUSTER",
		Short: "Show the archived WAL: its frontier, its gaps, and how far the server is ahead",
		Args:  arguments("CLUSTER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, c, err := a.openRepository(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			v, err := lookAtWAL(cmd.Context(), r, c, args[0])
			if err != nil {
				return err
			}
			if v.unasked != nil {
				a.note("the server could not be asked where it is: %v", v.unasked)
			}
			return a.printWALStatus(v.status(args[0]))
		},
	}
}

// walView is the WAL of a cluster as seen from the repository and, if it can be reached, from the server.
type walView struct {
	inventory *wal.Inventory
	manifests []*repo.Manifest
	coverage  coverage
	// lastCommit is the newest commit that can be restored to; nil if none was found.
	lastCommit *time.Time
	// unasked tells why the server could not be asked; nil if it was.
	unasked error
}

// errNoServer says that there is only a repository to ask.
var errNoServer = errors.New("there is no configuration that tells where it is")

// lookAtWAL asks both sides.
func lookAtWAL(ctx context.Context, r *repo.Repository, c activities.Cluster, cluster string) (*walView, error) {
	inv, err := wal.List(ctx, r, cluster)
	if err != nil {
		return nil, err
	}
	v := &walView{inventory: inv, coverage: coverage{now: time.Now().UTC(), segment: inv.SegmentSize}}
	if v.manifests, err = r.Manifests(ctx, cluster); err != nil {
		return nil, err
	}
	if err := v.measure(ctx, r); err != nil {
		return nil, err
	}
	v.coverage.server, v.unasked = serverPosition(ctx, c, inv.Identity)
	return v, ctx.Err()
}

// measure finds the frontier of the branch that the cluster is on, and the newest that it covers.
func (v *walView) measure(ctx context.Context, r *repo.Repository) error {
	tli := v.inventory.Newest()
	if tli == 0 {
		return nil
	}
	h, err := v.inventory.History(tli)
	if err != nil {
		return err
	}
	from := pg.LSN(0)
	var newest *repo.Manifest
	for _, m := range v.manifests {
		if h.Contains(m.Timeline, m.StopLSN) {
			newest, from = m, m.StartLSN
		}
	}
	if newest == nil {
		for _, s := range h.Ancestors() {
			if t := v.inventory.Timeline(s.Timeline); t != nil && len(t.Runs) > 0 {
				from = max(s.Begin, pg.LSN(t.Runs[0].First*uint64(v.coverage.segment)))
				break
			}
		}
	}
	v.coverage.frontier = v.inventory.Frontier(h, from)
	if v.lastCommit, err = newestCommit(ctx, r, v.inventory, h, from, v.coverage.frontier); err != nil {
		return err
	}
	v.coverage.newest = v.lastCommit
	// All that was committed before a complete backup began is in it.
	if newest != nil && newest.StopLSN <= v.coverage.frontier && (v.lastCommit == nil || newest.StartedAt.After(*v.lastCommit)) {
		v.coverage.newest = &newest.StartedAt
	}
	return nil
}

// newestCommit is the time of the last commit or abort below the frontier, by the facts of the segments (R15); nil if
// none was found within lookBack segments.
func newestCommit(ctx context.Context, r *repo.Repository, inv *wal.Inventory, h pg.History, from, frontier pg.LSN) (*time.Time, error) {
	size := uint64(inv.SegmentSize)
	facts := func(n uint64) (*walrecord.Facts, error) {
		seg, ok := inv.File(h, n)
		if !ok || n < uint64(from)/size {
			return nil, nil
		}
		return wal.Facts(ctx, r, inv.Cluster, seg.Name(inv.SegmentSize))
	}
	if frontier <= from {
		return nil, nil
	}
	n := (uint64(frontier) - 1) / size
	f, err := facts(n)
	for range lookBack {
		if err != nil || f == nil {
			return nil, err
		}
		if f.Last != nil {
			at := f.Last.Time.Time()
			return &at, nil
		}
		if n == 0 {
			break
		}
		n--
		before, err := facts(n)
		if err != nil {
			return nil, err
		}
		if t := crossing(before, f); t != nil {
			at := t.Time.Time()
			return &at, nil
		}
		f = before
	}
	return nil, nil
}

// crossing is the end of a transaction whose record lies in two segments; nil if it is none.
func crossing(before, after *walrecord.Facts) *walrecord.Transaction {
	if before == nil || before.Tail == nil || after.Head == nil {
		return nil
	}
	ev, err := walrecord.Join(before.Tail, after.Head)
	if err != nil {
		return nil
	}
	return ev.Transaction
}

// serverPosition asks the server where it writes.
func serverPosition(ctx context.Context, c activities.Cluster, want repo.Identity) (*pg.LSN, error) {
	if c.Server.DSN.IsZero() && c.Server.Host == "" {
		return nil, errNoServer
	}
	ctx, cancel := context.WithTimeout(ctx, serverPatience)
	defer cancel()
	conn, err := dbcore.Connect(ctx, c.Server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	at, err := dbcore.One[struct {
		LSN      string `db:"lsn"`
		SystemID string `db:"system_id"`
	}](ctx, conn, `select case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end::text as lsn,
		(select system_identifier::text from pg_control_system()) as system_id`)
	if err != nil {
		return nil, err
	}
	if at.SystemID != want.SystemID.String() {
		return nil, fmt.Errorf("the dsn leads to a server with system identifier %s, the repository has %s", at.SystemID, want.SystemID)
	}
	lsn, err := pg.ParseLSN(at.LSN)
	if err != nil {
		return nil, err
	}
	return &lsn, nil
}

// status is the view in the words of the contract.
func (v *walView) status(cluster string) contract.WALStatus {
	size := v.coverage.segment
	out := contract.WALStatus{
		Cluster: cluster, Timelines: []contract.TimelineStatus{},
		ExposureSeconds: v.coverage.exposure(), ArchiveLagBytes: v.coverage.lag(),
	}
	for i := range v.inventory.Timelines {
		t := &v.inventory.Timelines[i]
		s := contract.TimelineStatus{
			Timeline: uint32(t.Timeline), Gaps: []contract.Gap{},
			FrontierLSN: timelineFrontier(t, v.manifests, size).String(),
		}
		if n := len(t.Runs); n > 0 {
			s.FirstSegment = pg.Segment{Timeline: t.Timeline, Number: t.Runs[0].First}.Name(size)
			s.LastSegment = pg.Segment{Timeline: t.Timeline, Number: t.Runs[n-1].Last}.Name(size)
		} else {
			s.FirstSegment = pg.Segment{Timeline: t.Timeline, Number: t.Partial}.Name(size) + ".partial"
			s.LastSegment = s.FirstSegment
		}
		for _, g := range t.Gaps() {
			s.Gaps = append(s.Gaps, contract.Gap{From: g.From.Name(size), To: g.To.Name(size)})
		}
		out.Timelines = append(out.Timelines, s)
	}
	return out
}

func (a *app) printWALStatus(s contract.WALStatus) error {
	if a.json {
		return a.printJSON(s)
	}
	if err := a.table(func(p *printer) {
		p.line("TIMELINE\tFIRST SEGMENT\tLAST SEGMENT\tFRONTIER\tGAPS")
		for _, t := range s.Timelines {
			p.line("%d\t%s\t%s\t%s\t%d", t.Timeline, t.FirstSegment, t.LastSegment, t.FrontierLSN, len(t.Gaps))
		}
	}); err != nil {
		return err
	}
	return a.lines(func(p *printer) {
		for _, t := range s.Timelines {
			for _, g := range t.Gaps {
				p.line("missing on timeline %d: %s to %s", t.Timeline, g.From, g.To)
			}
		}
		p.line("exposure: %s", span(s.ExposureSeconds))
		if s.ArchiveLagBytes != nil {
			p.line("not archived yet: %s of WAL", size(*s.ArchiveLagBytes))
		}
	})
}
