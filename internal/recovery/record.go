package recovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"lifeboat/internal/pginstance"
)

// Notes are small results that a run keeps in the plan's directory, so that the next attempt of a run that died finds
// them (R21). They name the plan.
const (
	startedNote = "started" // what a start for a person achieved: Record
	reachedNote = "reached" // the asserted target, kept just before the promotion, which cannot be repeated
	// ProofNote is a drill's: what was found of a server before it was promoted.
	ProofNote = "proof"
)

func noteFile(name string) string { return "lifeboat." + name + ".json" }

type note struct {
	PlanHash string          `json:"planHash"`
	Result   json.RawMessage `json:"result"`
}

// Note keeps a result durably in the plan's directory. name is one of the constants.
func Note(p *Plan, name string, result any) error {
	fail := func(err error) error { return fmt.Errorf("keep %s: %w", noteFile(name), err) }
	raw, err := json.Marshal(result)
	if err != nil {
		return fail(err)
	}
	data, err := json.Marshal(note{PlanHash: p.Hash, Result: raw})
	if err != nil {
		return fail(err)
	}
	root, err := os.OpenRoot(p.TargetDir)
	if err != nil {
		return fail(err)
	}
	defer root.Close()
	owner, err := ownerOf(root)
	if err != nil {
		return fail(err)
	}
	if err := writeDurably(root, noteFile(name), data, owner); err != nil {
		return fail(err)
	}
	return nil
}

// Noted reads what Note kept for this very plan. It wraps fs.ErrNotExist if there is nothing.
func Noted(p *Plan, name string, result any) error {
	data, err := os.ReadFile(filepath.Join(p.TargetDir, noteFile(name)))
	if err != nil {
		return fmt.Errorf("read a note: %w", err)
	}
	var n note
	if err := json.Unmarshal(data, &n); err != nil {
		return fmt.Errorf("read %s: %w", noteFile(name), err)
	}
	if n.PlanHash != p.Hash {
		return fmt.Errorf("read %s: it is of another plan", noteFile(name))
	}
	return json.Unmarshal(n.Result, result)
}

// Record keeps the result of a finished start durably in the plan's directory.
func Record(p *Plan, result any) error { return Note(p, startedNote, result) }

// Recorded reads what Record kept for this very plan.
func Recorded(p *Plan, result any) error { return Noted(p, startedNote, result) }

// ownerOf is the user that owns the directory: a file that the server cannot read would break its base backups.
func ownerOf(root *os.Root) (pginstance.Owner, error) {
	info, err := root.Stat(".")
	if err != nil {
		return pginstance.Owner{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return pginstance.Owner{}, errors.New("the system does not say whose the directory is")
	}
	return pginstance.Owner{UID: int(st.Uid), GID: int(st.Gid)}, nil
}

// WasStarted tells whether a server has run on the plan's files since they were laid: they are then no longer those of
// the backup.
func WasStarted(p *Plan) bool {
	_, err := os.Lstat(filepath.Join(p.TargetDir, "postmaster.opts"))
	return err == nil
}

// wasPromoted tells whether that server has left recovery: PostgreSQL removes recovery.signal then.
func wasPromoted(p *Plan) bool {
	_, err := os.Lstat(filepath.Join(p.TargetDir, "recovery.signal"))
	return WasStarted(p) && errors.Is(err, os.ErrNotExist)
}

// ChangedFiles is ChangedFiles for a plan that has places of its own for tablespaces: in each stands a marker.
func (p *Plan) ChangedFiles() []string {
	names := ChangedFiles()
	for i := range p.Tablespaces {
		names = append(names, "pg_tblspc/"+p.Tablespaces[i].oid()+"/"+MarkerFile)
	}
	return names
}

// ChangedFiles names the files and directories of a laid directory that are not as in the backup: what pg_verifybackup
// must ignore. Tablespaces are verified all the same, through the links in pg_tblspc.
func ChangedFiles() []string {
	names := append(ownFiles(), replaced...)
	return append(names, "recovery.signal", tablespaceDir, sourceConfigDir)
}
