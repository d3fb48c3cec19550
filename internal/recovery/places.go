package recovery

import (
	"context"
	"errors"
	"fmt"
	"os"

	"lifeboat/internal/pginstance"
)

// places are the held places of tablespaces that lie outside of the target directory, by OID. Each has a marker with a
// lock of its own (R21): a place belongs to one restore, whatever becomes of the target directory.
type places map[string]*openPlace

// openPlace is a place and the file by which its file system is synced.
type openPlace struct {
	*place
	top *os.File // opened before anything was written: see syncTree
}

// takePlaces takes all places of a plan, or none. The target directory must be held already.
func takePlaces(ctx context.Context, p *Plan, owner pginstance.Owner) (places, error) {
	held := places{}
	for i := range p.Tablespaces {
		t := &p.Tablespaces[i]
		pl, err := takePlace(ctx, p, t, owner)
		if err != nil {
			held.release()
			return nil, fmt.Errorf("take %s for tablespace %d: %w", t.Place, t.OID, err)
		}
		held[t.oid()] = pl
	}
	return held, nil
}

func takePlace(ctx context.Context, p *Plan, t *Tablespace, owner pginstance.Owner) (*openPlace, error) {
	if err := os.Mkdir(t.Place, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	pl, err := lockPlace(ctx, t.Place, os.O_CREATE)
	if err != nil {
		return nil, err
	}
	err = pl.claimTablespace(p, t, owner)
	if err == nil {
		var top *os.File
		if top, err = pl.root.Open("."); err == nil {
			return &openPlace{pl, top}, nil
		}
	}
	pl.release()
	return nil, err
}

// claimTablespace makes a locked place the plan's, or finds that it is.
func (pl *place) claimTablespace(p *Plan, t *Tablespace, owner pginstance.Owner) error {
	what := fmt.Sprintf("place of tablespace %d", t.OID)
	m := p.newMarker("")
	m.Tablespace = t.oid()
	have, err := readMarker(t.Place)
	switch {
	case err == nil && have.PlanHash == p.Hash && have.Tablespace == t.oid():
		pl.mark, pl.resumed = *have, true
	case t.InPlace: // the plan was checked against the server that has it, which is disarmed or about to be
		pl.mark, pl.resumed = m, true
		if err := errors.Join(pl.write(), give(pl.lock, owner), syncIn(pl.root, ".")); err != nil {
			return err
		}
	case err == nil && have.PlanHash != "":
		return refuse("name another directory, or remove this one", "the %s, %s, holds another restore: of %s, backup %s, plan %.12s",
			what, t.Place, have.Cluster, have.BackupID, have.PlanHash)
	default:
		if err := pl.begin(m, what, owner); err != nil {
			return err
		}
	}
	return pl.prepare(what, owner)
}

// resumed tells whether any of the places holds what was there before.
func (ps places) resumed() bool {
	for _, pl := range ps {
		if pl.place.resumed {
			return true
		}
	}
	return false
}

// sync makes everything in the places durable.
func (ps places) sync() error {
	for _, pl := range ps {
		if err := syncTree(pl.root, pl.top); err != nil {
			return err
		}
	}
	return nil
}

// finish notes in each place that it is laid.
func (ps places) finish() error {
	for _, pl := range ps {
		pl.mark.State = stateLaid
		if err := pl.write(); err != nil {
			return err
		}
	}
	return nil
}

func (ps places) release() {
	for _, pl := range ps {
		_ = pl.top.Close()
		pl.place.release()
	}
}
