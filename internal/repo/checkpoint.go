package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lifeboat/internal/blob"
)

// Intent announces a backup before anything is stored for it (R12), so that a sweeper knows that packs without a
// manifest belong to somebody.
type Intent struct {
	BackupID   string    `json:"backupId"`
	Type       string    `json:"type"`
	ParentID   string    `json:"parentId,omitempty"`
	WorkflowID string    `json:"workflowId,omitempty"` // of the run that may take over what this attempt stored
	Host       string    `json:"host"`
	StartedAt  time.Time `json:"startedAt"`
	Epoch      int64     `json:"epoch"` // of the cluster's sweeper; 0 until one has run
	// Damage says that the object cannot be read; only BackupID is known then, by its key. Such a backup counts as one
	// that is being written (R12).
	Damage error `json:"-"`
}

// PutIntent announces a backup. It must be durable before the first pack. An intent of its name is an error: each
// attempt is a backup of its own (R6).
func (r *Repository) PutIntent(ctx context.Context, cluster string, in Intent) error {
	if err := errors.Join(CheckName(cluster), CheckBackupID(in.BackupID)); err != nil {
		return err
	}
	key := intentKey(cluster, in.BackupID)
	sealed, err := r.sealJSON(KindDocument, key, in)
	if err != nil {
		return err
	}
	if err := r.putSealed(ctx, key, sealed); err != nil {
		return fmt.Errorf("announce backup %s: %w", in.BackupID, err)
	}
	return nil
}

// Intents lists the backups that are being written, or whose writer died, oldest first. A damaged intent is in the list,
// with its Damage: packs that it announced must not be taken for nobody's.
func (r *Repository) Intents(ctx context.Context, cluster string) ([]Intent, error) {
	var out []Intent
	for info, err := range r.store.List(ctx, intentPrefix(cluster), "") {
		if err != nil {
			return nil, fmt.Errorf("list intents: %w", err)
		}
		if !strings.HasSuffix(info.Key, "/intent") {
			continue
		}
		var in Intent
		err := r.readJSON(ctx, KindDocument, info.Key, &in)
		if errors.Is(err, blob.ErrNotFound) {
			continue // dropped meanwhile
		}
		if IsDamage(err) {
			id := strings.TrimSuffix(strings.TrimPrefix(info.Key, intentPrefix(cluster)), "/intent")
			in, err = Intent{BackupID: id, Damage: err}, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, in)
	}
	return out, nil
}

// DropIntent removes a backup's intent and checkpoints, once its manifest is there or nobody will go on with it.
func (r *Repository) DropIntent(ctx context.Context, cluster, backupID string) error {
	var keys []string
	for info, err := range r.store.List(ctx, intentPrefix(cluster)+backupID+"/", "") {
		if err != nil {
			return fmt.Errorf("drop the intent of backup %s: %w", backupID, err)
		}
		keys = append(keys, info.Key)
	}
	slices.Reverse(keys) // checkpoints sort after the intent, which goes last
	for _, key := range keys {
		if err := r.store.Delete(ctx, key); err != nil {
			return fmt.Errorf("drop the intent of backup %s: %w", backupID, err)
		}
	}
	return nil
}

// checkpoints writes what is finished as runs, until done is closed. A failed checkpoint costs only work later.
func (w *Writer) checkpoints(done <-chan struct{}) {
	tick := time.NewTicker(w.opts.CheckpointEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-w.ctx.Done():
			return
		case <-tick.C:
			_ = w.checkpoint() // what it could not record stays for the next one
		}
	}
}

// checkpoint makes all finished files durable and records them: first the entries are taken, then all packs are
// flushed, then the run is written, so it never names what is not there.
func (w *Writer) checkpoint() error {
	w.mu.Lock()
	entries := slices.Clone(w.entries[w.inRuns:])
	w.mu.Unlock()
	if len(entries) == 0 {
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	sortEntries(entries)
	key := runKey(w.opts.Cluster, w.opts.BackupID, w.runs)
	comp, err := newCompressor(Zstd, frameSize)
	if err != nil {
		return err
	}
	var plain []byte
	err = encodePages(entries, func(_ string, page []byte) error {
		plain = appendString(plain, string(page))
		return nil
	})
	if err != nil {
		return err
	}
	sealed := w.repo.sealBytes(KindRun, key, plain, comp)
	if err := w.repo.store.Put(w.ctx, key, bytes.NewReader(sealed), int64(len(sealed))); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	w.runs++
	w.inRuns += len(entries)
	return nil
}
