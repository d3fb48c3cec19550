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
)

const (
	// serverPatience bounds how long a server is asked where it is.
	serverPatience = 10 * time.Second
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
	wal.View
	// unasked tells why the server could not be asked; nil if it was.
	unasked error
}

// errNoServer says that there is only a repository to ask.
var errNoServer = errors.New("there is no configuration that tells where it is")

// lookAtWAL asks both sides.
func lookAtWAL(ctx context.Context, r *repo.Repository, c activities.Cluster, cluster string) (*walView, error) {
	seen, err := wal.Look(ctx, r, cluster)
	if err != nil {
		return nil, err
	}
	v := &walView{View: *seen}
	v.Coverage.Server, v.unasked = serverPosition(ctx, c, v.Inventory.Identity)
	return v, ctx.Err()
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
	size := v.Coverage.Segment
	out := contract.WALStatus{
		Cluster: cluster, Timelines: []contract.TimelineStatus{},
		ExposureSeconds: v.Coverage.Exposure(), ArchiveLagBytes: v.Coverage.Lag(),
	}
	for i := range v.Inventory.Timelines {
		t := &v.Inventory.Timelines[i]
		s := contract.TimelineStatus{
			Timeline: uint32(t.Timeline), Gaps: []contract.Gap{},
			FrontierLSN: wal.TimelineFrontier(t, v.Manifests, size).String(),
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
