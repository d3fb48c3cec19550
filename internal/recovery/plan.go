package recovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
	"lifeboat/internal/wal/walrecord"
)

// Plan says what a restore will do, and what the server will then have reached. It is made once, may be printed, and
// its hash names it: approvals and resumed attempts are bound to the hash.
type Plan struct {
	Format     int    `json:"format"` // 1
	Hash       string `json:"hash"`   // SHA-256 of all else but Frontier, in hexadecimal
	Cluster    string `json:"cluster"`
	Repository string `json:"repository"` // URL without secrets, for people
	TargetDir  string `json:"targetDir"`

	BackupID         string      `json:"backupId"`
	BackupFinishedAt time.Time   `json:"backupFinishedAt"`
	SystemID         pg.SystemID `json:"systemIdentifier"`
	PostgresMajor    int         `json:"postgresMajor"`
	Superuser        string      `json:"superuser"`
	StartLSN         pg.LSN      `json:"startLsn"`
	StopLSN          pg.LSN      `json:"stopLsn"` // of the backup: consistent from here on

	Target Target `json:"target"`
	// Timeline is written as a number, so that recovery can follow no other (R2).
	Timeline pg.Timeline `json:"timeline"`
	Action   Action      `json:"action"`
	Stop     Stop        `json:"stop"`

	// Need lists the WAL files that replay cannot do without; WALSegments and WALBytes count them.
	Need        string `json:"need"`
	WALSegments int64  `json:"walSegments"`
	WALBytes    int64  `json:"walBytes"`
	// Frontier is the end of the gap-free WAL when the plan was made, for people.
	Frontier pg.LSN `json:"frontier"`

	// Gap is the first missing segment, if the archive has later ones behind it.
	Gap string `json:"gap,omitempty"`

	Files int64 `json:"files"` // entries of the backup
	Bytes int64 `json:"bytes"` // of plain content to lay

	// Settings that the server needs at least as high as the source had them (R4).
	Settings map[string]int32 `json:"settings"`
	// Tablespaces that are not laid below the target directory, by OID.
	Tablespaces []Tablespace `json:"tablespaces,omitempty"`
	// InPlaceTablespaces: the WAL creates tablespaces within the data directory (allow_in_place_tablespaces).
	InPlaceTablespaces bool `json:"inPlaceTablespaces,omitempty"`
	// Delta restores into the data directory of a stopped server of the same system identifier (R1, R3), and DiscardWAL
	// gives up what its pg_wal has and the repository has not (R20).
	Delta      bool `json:"delta,omitempty"`
	DiscardWAL bool `json:"discardWal,omitempty"`
	// Overtaken are commits that a time target loses although they had committed by then, because a later one stands
	// before them in WAL (R19).
	Overtaken []Transaction `json:"overtaken,omitempty"`
	// Warnings are for the person who reads the plan.
	Warnings []string `json:"warnings,omitempty"`
}

// PlanOptions say what is wanted.
type PlanOptions struct {
	Repo      *repo.Repository
	Cluster   string
	TargetDir string
	// Backup restores from this one only; "" is the newest from which the target can be reached.
	Backup string
	Target Target
	// Timeline is the branch to follow; 0 is the one that the protected cluster is on.
	Timeline pg.Timeline
	Action   Action
	// Tablespaces to lay elsewhere than below the target directory.
	Tablespaces []TablespaceMap
	// Delta and DiscardWAL are those of Plan.
	Delta, DiscardWAL bool
}

const seeHelp = "`lifeboat restore --help` shows what can be asked for"

// MakePlan plans a restore. It reads the repository and looks at the target directory, and changes nothing. A target
// that cannot be reached, or a place that may not be written, is *RefusedError.
func MakePlan(ctx context.Context, opts PlanOptions) (*Plan, error) {
	g, err := opts.Target.parse()
	if err != nil {
		return nil, refuse(seeHelp, "%v", err)
	}
	if opts.Action, err = opts.Action.check(); err != nil {
		return nil, refuse(seeHelp, "%v", err)
	}
	if opts.TargetDir != "" {
		opts.TargetDir = filepath.Clean(opts.TargetDir)
	}
	lv, err := inspect(opts.TargetDir, opts.Delta)
	if err != nil {
		return nil, err
	}
	manifests, damage, err := candidates(ctx, opts)
	if err != nil {
		return nil, err
	}
	inv, err := wal.List(ctx, opts.Repo, opts.Cluster)
	if err != nil {
		return nil, err
	}
	tli := opts.Timeline
	if tli == 0 {
		tli = max(inv.Newest(), manifests[len(manifests)-1].Timeline)
	}
	history, err := inv.History(tli)
	if err != nil {
		return nil, refuse("`lifeboat wal-status` lists the timelines", "%v", err)
	}
	if err := refuseAmbiguous(ctx, opts, manifests, inv, history, g); err != nil {
		return nil, err
	}
	m, path, stop, err := choose(ctx, opts.Repo, manifests, inv, history, g)
	if err != nil {
		return nil, err
	}
	p, err := fill(ctx, opts, g, m, path, stop, lv)
	if err != nil {
		return nil, err
	}
	if err := lv.refuseLoss(ctx, opts.Repo, p); err != nil {
		return nil, err
	}
	p.warn(damage)
	p.Hash = p.hash()
	return p, nil
}

// candidates are the backups to consider, oldest first; there is at least one.
func candidates(ctx context.Context, opts PlanOptions) (all []*repo.Manifest, damage, err error) {
	if opts.Backup != "" {
		m, err := opts.Repo.Manifest(ctx, opts.Cluster, opts.Backup)
		if errors.Is(err, repo.ErrNoBackup) {
			return nil, nil, refuse("`lifeboat backups "+opts.Cluster+"` lists them", "%v: %s of cluster %s", repo.ErrNoBackup, opts.Backup, opts.Cluster)
		}
		if err != nil {
			return nil, nil, err
		}
		return []*repo.Manifest{m}, nil, nil
	}
	all, damage, err = usable(ctx, opts)
	if err != nil {
		return nil, nil, err
	}
	if len(all) == 0 {
		return nil, nil, refuse("take one with `lifeboat backup "+opts.Cluster+"`", "cluster %s has no backup in %s", opts.Cluster, opts.Repo)
	}
	return all, damage, nil
}

// choose takes the newest backup from which the target can be reached, and tells why none can.
func choose(ctx context.Context, r *repo.Repository, manifests []*repo.Manifest, inv *wal.Inventory, h pg.History, g goal,
) (*repo.Manifest, *walPath, *Stop, error) {
	var reasons []string
	cache := map[string]*walrecord.Facts{}
	for i := len(manifests) - 1; i >= 0; i-- {
		m := manifests[i]
		why := ""
		path := newWALPath(r, inv, h, m.StartLSN, cache)
		if err := path.measure(ctx); err != nil {
			return nil, nil, nil, err
		}
		switch {
		case !h.Contains(m.Timeline, m.StopLSN):
			why = fmt.Sprintf("it is on timeline %d at %v, which is not on the way to timeline %d", m.Timeline, m.StopLSN, h.Timeline)
		case path.frontier < m.StopLSN:
			why = fmt.Sprintf("its WAL is not complete: it needs WAL to %v, the gap-free WAL ends at %v", m.StopLSN, path.frontier)
		default:
			stop, reason, err := try(ctx, path, g, m)
			if err != nil {
				return nil, nil, nil, err
			}
			if reason == "" {
				return m, path, stop, nil
			}
			why = reason
		}
		reasons = append(reasons, "backup "+m.BackupID+": "+why)
		const most = 5
		if len(reasons) == most && i > 0 {
			reasons = append(reasons, fmt.Sprintf("and %d older ones likewise or worse", i))
			// Older backups are looked at all the same; only the message is kept short.
		}
	}
	if len(reasons) > 6 {
		reasons = reasons[:6]
	}
	return nil, nil, nil, refuse("`lifeboat backups` and `lifeboat wal-status` show what can be restored",
		"target %s on timeline %d cannot be reached: %s", g.Target, h.Timeline, strings.Join(reasons, "; "))
}

// try looks whether a backup reaches a goal, and tells why it does not.
func try(ctx context.Context, path *walPath, g goal, m *repo.Manifest) (stop *Stop, why string, err error) {
	if g.Kind == Time {
		until, err := path.containedUntil(ctx, m.StopLSN)
		if err != nil {
			return nil, "", err
		}
		if g.later(&Transaction{Time: until}) {
			return nil, fmt.Sprintf("the target lies before it was begun: it contains what was done until %v", until), nil
		}
	}
	stop, err = path.find(ctx, g, m.StopLSN)
	if err != nil {
		return nil, "", err
	}
	if stop != nil && stop.ReplayedTo >= m.StopLSN {
		return stop, "", nil
	}
	why, err = explain(ctx, path, g, m, stop)
	return nil, why, err
}

// explain says why a path does not reach a goal.
func explain(ctx context.Context, p *walPath, g goal, m *repo.Manifest, stop *Stop) (string, error) {
	switch {
	case stop != nil:
		return fmt.Sprintf("the target lies before it was consistent (replay would stop at %v, it is consistent from %v)",
			stop.ReplayedTo, m.StopLSN), nil
	case g.Kind == LSN && g.lsn < m.StopLSN:
		return fmt.Sprintf("the target lies before it was consistent (from %v)", m.StopLSN), nil
	}
	newest := "none"
	err := p.each(ctx, func(s stretch) (bool, error) {
		for _, t := range []*walrecord.Transaction{crossing(s.crossing), s.facts.Last} {
			if t != nil {
				newest = t.Time.String()
			}
		}
		return false, nil
	})
	if err != nil {
		return "", err
	}
	end := fmt.Sprintf("the gap-free WAL ends at %v", p.frontier)
	gap := p.gap()
	if gap {
		end += fmt.Sprintf(" (segment %s is missing, though later ones are there)", p.missing())
	}
	switch {
	case g.Kind != Time:
		return fmt.Sprintf("%s, and what there is (newest transaction: %s) does not hold the target", end, newest), nil
	case gap:
		return fmt.Sprintf("%s and holds no transaction later than the target; its newest ended at %s", end, newest), nil
	}
	return fmt.Sprintf("%s and holds no transaction later than the target, so PostgreSQL could not know that "+
		"it was reached; its newest transaction ended at %s: restore to latest, or wait until later WAL is archived", end, newest), nil
}

// fill completes a plan: what is needed, what to lay, what to refuse.
func fill(ctx context.Context, opts PlanOptions, g goal, m *repo.Manifest, path *walPath, stop *Stop, lv *live) (*Plan, error) {
	p := &Plan{
		Format: 1, Cluster: opts.Cluster, Repository: opts.Repo.String(), TargetDir: opts.TargetDir,
		BackupID: m.BackupID, BackupFinishedAt: m.FinishedAt, SystemID: m.SystemID, PostgresMajor: m.PostgresMajor,
		Superuser: m.Superuser, StartLSN: m.StartLSN, StopLSN: m.StopLSN, Target: g.Target, Timeline: path.history.Timeline,
		Action: opts.Action, Delta: opts.Delta, DiscardWAL: opts.DiscardWAL, Stop: *stop, Frontier: path.frontier, Files: m.Table.Files, Bytes: m.SourceBytes,
		Settings: map[string]int32{
			"max_connections": m.MaxConnections, "max_worker_processes": m.MaxWorkerProcesses, "max_wal_senders": m.MaxWALSenders,
			"max_prepared_transactions": m.MaxPreparedXacts, "max_locks_per_transaction": m.MaxLocksPerXact,
		},
	}
	if t := path.history.TimelineAt(stop.ReplayedTo - 1); t != p.Timeline {
		p.Stop.Timeline = t
	}
	fitWALSize(p.Settings, m.WALSegmentSize)
	p.considerSource(m)
	if path.gap() {
		p.Gap = path.missing()
		p.Warnings = append(p.Warnings, fmt.Sprintf("WAL segment %s is missing from the archive, though later ones are there: "+
			"from this backup nothing behind it can be restored", p.Gap))
	}
	if err := lv.check(p); err != nil {
		return nil, err
	}
	mp, err := p.mapTablespaces(m, opts.Tablespaces, lv)
	if err != nil {
		return nil, err
	}
	if err := p.walkNeeded(ctx, path, mp); err != nil {
		return nil, err
	}
	if err := mp.finish(); err != nil {
		return nil, err
	}
	if err := p.checkPlaces(); err != nil {
		return nil, err
	}
	p.Warnings = append(p.Warnings, lv.warnings(p)...)
	if err := p.warnOrder(ctx, path, g); err != nil {
		return nil, err
	}
	return p, nil
}

// hash is SHA-256 over the plan's JSON without its hash; encoding/json sorts map keys, so equal plans hash equally. The
// frontier is left out: it moves with every archived segment, and changes nothing that the plan does.
func (p *Plan) hash() string {
	c := *p
	c.Hash, c.Frontier = "", 0
	data, err := json.Marshal(&c)
	if err != nil {
		return "" // cannot happen: the type holds nothing that does not encode
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Check tells whether the plan is one that this program made and nobody changed.
func (p *Plan) Check() error {
	if p.Format != 1 {
		return fmt.Errorf("plan has format %d, this program knows format 1", p.Format)
	}
	if p.Hash == "" || p.Hash != p.hash() {
		return errors.New("the plan's hash does not match its content: it was changed after it was made")
	}
	return nil
}

// Summary is the plan in a few lines, for people.
func (p *Plan) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "restore %s to %s, from backup %s (finished %s)\n", p.Cluster, p.Target, p.BackupID, p.BackupFinishedAt.Format(time.RFC3339))
	fmt.Fprintf(&b, "into %s: %d entries, %d bytes\n", p.TargetDir, p.Files, p.Bytes)
	if p.Delta {
		b.WriteString("in place: what is there and right is kept, everything else in it is replaced or deleted\n")
	}
	for _, t := range p.Tablespaces {
		how := ""
		switch {
		case t.InPlace:
			how = ", in place"
		case t.Replayed:
			how = ", created by replay"
		}
		fmt.Fprintf(&b, "tablespace %d, of %s, into %s%s\n", t.OID, t.Source, t.Place, how)
	}
	fmt.Fprintf(&b, "replay %d WAL segments (%d bytes) on timeline %d, from %v to %v, then %s\n",
		p.WALSegments, p.WALBytes, p.Timeline, p.StartLSN, p.Stop.ReplayedTo, p.Action)
	if t := p.Stop.LastCommit; t != nil {
		fmt.Fprintf(&b, "last transaction kept: xid %d, committed %s\n", t.XID, t.Time)
	}
	if t := p.Stop.FirstLost; t != nil {
		fmt.Fprintf(&b, "first transaction lost: xid %d, committed %s\n", t.XID, t.Time)
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	fmt.Fprintf(&b, "plan hash %s\n", p.Hash)
	return b.String()
}
