package recovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

// live is the data directory of a stopped server that --delta restores into. Nil stands for an empty or missing place,
// where there is nothing to look at.
type live struct {
	dir     string
	control *pg.ControlData // nil: a restore that did not finish has removed it, and mark says of what cluster it is
	mark    *marker         // nil: no restore has worked here
	major   string          // PG_VERSION
	// places of tablespaces outside of dir, by OID: where the links in pg_tblspc lead, free of links.
	places map[uint32]string
	walDir string // where pg_wal leads, if it is a link
}

// inspect looks at a target directory and changes nothing. Without delta it must be empty, missing, or begun by a
// restore. With delta it may also be the data directory of a stopped server (R1), or what a killed restore left.
func inspect(dir string, delta bool) (*live, error) {
	if !delta {
		_, err := checkEmpty(dir, targetDirectory)
		return nil, err
	}
	info, err := lookAt(dir, targetDirectory)
	if err != nil || info == nil {
		return nil, err
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) == 0 {
		return nil, err
	}
	if err := refuseRunning(dir); err != nil {
		return nil, err
	}
	lv := &live{dir: dir}
	if lv.mark, err = readMarker(dir); err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			return nil, refuse("move the directory away and restore into an empty one", "%v", err)
		}
		lv.mark = nil
	}
	if lv.mark != nil && lv.mark.DrillID != "" {
		return nil, refuse("name another directory", "the target directory %s is that of drill %s", dir, lv.mark.DrillID)
	}
	if err := lv.readControl(); err != nil {
		return nil, err
	}
	return lv, lv.readLinks()
}

// refuseRunning refuses the directory of a running server, by its postmaster.pid and by the processes that work in it:
// backends whose postmaster has died still write.
func refuseRunning(dir string) error {
	running := func(pid int) error {
		return refuse("stop it first, with pg_ctl stop", "a server runs in %s (process %d)", dir, pid)
	}
	in, err := pginstance.Attach(dir, pginstance.AttachOptions{})
	switch {
	case err == nil:
		return running(in.PID())
	case !errors.Is(err, pginstance.ErrNotRunning):
		return fmt.Errorf("find out whether a server runs in %s: %w", dir, err)
	}
	list, err := pginstance.Running(dir)
	if err != nil {
		return fmt.Errorf("find out whether a server runs in %s: %w", dir, err)
	}
	if len(list) > 0 {
		return running(list[0].PID)
	}
	return nil
}

func (lv *live) readControl() error {
	const hint = "name the data directory of a stopped server of this cluster, or an empty directory"
	control, err := readControl(lv.dir)
	switch {
	case err == nil:
		lv.control = control
	case missing(err):
		if lv.mark == nil || lv.mark.State != stateLaying || lv.mark.SystemID == 0 {
			return refuse(hint, "the target directory %s is not empty, and is no data directory: it has no %s", lv.dir, controlFile)
		}
		return nil
	default:
		return refuse("move the directory away and restore into an empty one",
			"whose data directory %s is cannot be told: %v", lv.dir, err)
	}
	version, err := os.ReadFile(filepath.Join(lv.dir, "PG_VERSION"))
	if err != nil {
		return refuse(hint, "the target directory %s is no data directory: %v", lv.dir, err)
	}
	lv.major = strings.TrimSpace(string(version))
	return nil
}

// readControl reads the control file of a stopped server.
func readControl(dir string) (*pg.ControlData, error) {
	data, err := os.ReadFile(filepath.Join(dir, controlFile))
	if err != nil {
		return nil, err
	}
	return pg.ParseControlFile(data)
}

// readLinks finds the tablespaces that lie outside of the data directory, and its WAL if that does.
func (lv *live) readLinks() error {
	lv.places = map[uint32]string{}
	real, err := filepath.EvalSymlinks(lv.dir)
	if err != nil {
		return fmt.Errorf("look at the target directory: %w", err)
	}
	names, err := os.ReadDir(filepath.Join(lv.dir, "pg_tblspc"))
	if err != nil && !missing(err) {
		return fmt.Errorf("look at the target directory: %w", err)
	}
	for _, n := range names {
		oid, err := strconv.ParseUint(n.Name(), 10, 32)
		if err != nil || n.Type()&os.ModeSymlink == 0 {
			continue
		}
		to, err := filepath.EvalSymlinks(filepath.Join(lv.dir, "pg_tblspc", n.Name()))
		if err == nil && !within(real, to) {
			lv.places[uint32(oid)] = to
		}
	}
	if to, err := os.Readlink(filepath.Join(lv.dir, "pg_wal")); err == nil {
		lv.walDir = to
	}
	return nil
}

// has tells whether a path is where the server has its tablespace of that OID. A marker counts as well as the link,
// which a restore may have removed before it was killed.
func (lv *live) has(oid uint32, place string) bool {
	if lv == nil {
		return false
	}
	real, err := filepath.EvalSymlinks(place)
	if err != nil {
		return false
	}
	if lv.places[oid] == real {
		return true
	}
	m, err := readMarker(real)
	return err == nil && lv.mark != nil && m.Tablespace == strconv.FormatUint(uint64(oid), 10) && m.SystemID == lv.mark.SystemID && m.SystemID != 0
}

// holds tells whether the server has the tablespace outside of its data directory, with content of its own: only such a
// place is restored in place.
func (lv *live) holds(oid uint32, major int) bool {
	return lv != nil && lv.places[oid] != "" && isPlaceOf(lv.places[oid], major)
}

// isPlaceOf tells whether a directory holds a tablespace of that major version, or one that a restore has begun anew.
func isPlaceOf(dir string, major int) bool {
	names, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(names, func(n os.DirEntry) bool {
		return n.IsDir() && isVersionDir(n.Name(), major) || n.Name() == MarkerFile
	})
}

// check compares the directory with the plan: the same cluster and the same major version.
func (lv *live) check(p *Plan) error {
	switch {
	case lv == nil:
		return nil
	case lv.control == nil && lv.mark.SystemID != p.SystemID:
		return refuse("name another directory", "the target directory %s holds a half-done restore of the cluster with system identifier %s, "+
			"the backup is of %s", lv.dir, lv.mark.SystemID, p.SystemID)
	case lv.control == nil:
		return nil
	case lv.control.SystemID != p.SystemID:
		return refuse("name the data directory of this cluster, or an empty one", "the target directory %s is that of the server with "+
			"system identifier %s, the backup is of %s", lv.dir, lv.control.SystemID, p.SystemID)
	case lv.major != strconv.Itoa(p.PostgresMajor):
		return refuse("restore into an empty directory", "the target directory %s is of PostgreSQL %s, the backup is of %d",
			lv.dir, lv.major, p.PostgresMajor)
	}
	return nil
}

// checkOwner refuses to give a server's files to another user.
func (lv *live) checkOwner(p *Plan, owner pginstance.Owner) error {
	if lv == nil {
		return nil
	}
	info, err := os.Stat(lv.dir)
	if err != nil {
		return fmt.Errorf("look at the target directory: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == owner.UID {
		return nil
	}
	name := strconv.FormatUint(uint64(st.Uid), 10)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return refuse(fmt.Sprintf("restore as root with --owner %s, or as that user", name),
		"the data directory %s belongs to user %s, and the files would become those of %s", p.TargetDir, name, owner.Name)
}

// warnings tell what of the server's stays outside of the data directory.
func (lv *live) warnings(p *Plan) []string {
	if lv == nil {
		return nil
	}
	var out []string
	for _, oid := range slices.Sorted(maps.Keys(lv.places)) {
		at := lv.places[oid]
		if !slices.ContainsFunc(p.Tablespaces, func(t Tablespace) bool { return t.OID == oid && t.InPlace }) {
			out = append(out, fmt.Sprintf("the server has tablespace %d at %s, where nothing is restored: its files stay there", oid, at))
		}
	}
	if lv.walDir != "" {
		out = append(out, fmt.Sprintf("pg_wal is a link to %s: the restored server has its WAL in the data directory, and those files stay there", lv.walDir))
	}
	return out
}

// refuseLoss refuses to delete WAL that the repository does not have (R20). A directory that a restore has begun to
// change was asked about then, and one that it has laid has no WAL of its own until a server has run there.
func (lv *live) refuseLoss(ctx context.Context, r *repo.Repository, p *Plan) error {
	if lv == nil || lv.control == nil || p.DiscardWAL || lv.mark != nil && !WasStarted(p) {
		return nil
	}
	inv, err := wal.List(ctx, r, p.Cluster)
	if err != nil {
		return err
	}
	local, err := readLocalWAL(ctx, lv.dir, lv.control, inv)
	if err != nil {
		return refuse("look at pg_wal, or give it up with --discard-wal", "what WAL the server in %s has cannot be told: %v", lv.dir, err)
	}
	lost, err := local.pending(ctx, r, inv)
	if err != nil {
		return err
	}
	if len(lost) == 0 {
		return nil
	}
	return refuse(fmt.Sprintf("run `lifeboat wal-rescue %s --data-directory %s` first, or give them up with --discard-wal", p.Cluster, lv.dir),
		"pg_wal of %s holds WAL that the repository does not have (R20): %s", lv.dir, nameThem(lost))
}

// claimLive makes a stopped server's directory the plan's. Nothing but the marker is written yet: until pg_control is
// removed the server is as it was.
func (pl *place) claimLive(p *Plan) error {
	lv, err := inspect(p.TargetDir, true) // again, now that no other attempt can be at work
	if err == nil {
		err = lv.check(p)
	}
	if err != nil || lv == nil {
		return errors.Join(err, pl.withdraw())
	}
	pl.resumed = true
	if m := lv.mark; m != nil && m.PlanHash == p.Hash && (m.State == stateLaying || !WasStarted(p)) {
		pl.mark = *m
		return nil
	}
	pl.mark = p.newMarker("")
	return errors.Join(pl.write(), pl.giveLike(), syncIn(pl.root, "."))
}

// withdraw removes a marker that lockPlace made for a directory that turned out not to be ours.
func (pl *place) withdraw() error {
	info, err := pl.lock.Stat()
	if err != nil || info.Size() > 0 {
		return err
	}
	return pl.root.Remove(MarkerFile)
}

// giveLike gives the marker to the owner of the directory.
func (pl *place) giveLike() error {
	owner, err := ownerOf(pl.root)
	if err != nil {
		return err
	}
	return give(pl.lock, owner)
}

// asideFile is pg_control between the moment when no server can start any more and the one when it is known that none
// has.
const asideFile = controlFile + ".lifeboat-aside"

// disarmLive takes pg_control away from a stopped server. A server that starts meanwhile has either read it before it was
// moved aside, and is seen then, so that the file is put back and nothing has happened; or it does not find it.
func (l *layer) disarmLive() error {
	switch err := l.root.Rename(controlFile, asideFile); {
	case err == nil:
		if err := refuseRunning(l.plan.TargetDir); err != nil {
			return errors.Join(err, l.root.Rename(asideFile, controlFile), syncIn(l.root, path.Dir(controlFile)))
		}
	case !missing(err):
		return err
	}
	if err := l.root.Remove(asideFile); err != nil && !missing(err) {
		return err
	}
	if _, err := l.root.Lstat(path.Dir(controlFile)); missing(err) {
		return nil // killed before anything was laid
	}
	return syncIn(l.root, path.Dir(controlFile))
}
