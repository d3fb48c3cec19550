package repo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"lifeboat/internal/blob"
)

// cleanUpTime bounds the removal of a probe after the check itself was stopped.
const cleanUpTime = 10 * time.Second

// probeAge is how old a probe must be before another removes it: it is of a program that was killed meanwhile.
const probeAge = time.Hour

// PromiseError says that a store does not keep a promise that backups and WAL depend on.
type PromiseError struct {
	Store, Problem, remedy string
}

// Error is the problem.
func (e *PromiseError) Error() string { return e.Store + " " + e.Problem }

// Remedy is what a person can do about it.
func (e *PromiseError) Remedy() string { return e.remedy }

// Probe makes sure that the repository's store can be written to, and keeps the promises that backups and WAL depend on
// (R12, R14). It removes what it writes, and what killed ones left. It may be repeated, also at the same time.
func (r *Repository) Probe(ctx context.Context) error {
	if err := ProbeStore(ctx, r.store); err != nil {
		return err
	}
	for info, err := range r.store.List(ctx, probePrefix, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", r.store, err)
		}
		if time.Since(info.ModTime) < probeAge {
			continue
		}
		if err := r.store.Delete(ctx, info.Key); err != nil {
			return fmt.Errorf("delete from %s: %w", r.store, err)
		}
	}
	return nil
}

// probePrefix begins the keys of probes.
const probePrefix = "probe-"

// ProbeStore writes an object by create-if-absent, tries to create it again, reads, lists and deletes it. The key is one
// segment: a folder would stay behind. The object goes also when ctx ends meanwhile.
func ProbeStore(ctx context.Context, store blob.Store) (err error) {
	var random [8]byte
	_, _ = rand.Read(random[:])
	key, want := probePrefix+hex.EncodeToString(random[:]), random[:]
	defer func() {
		if err == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
		defer cancel()
		if left := store.Delete(ctx, key); left != nil {
			err = errors.Join(err, fmt.Errorf("delete %s from %s: %w", key, store, left))
		}
	}()
	if err := blob.PutBytesIfAbsent(ctx, store, key, want); err != nil {
		return fmt.Errorf("write to %s: %w", store, err)
	}
	if err := blob.PutBytesIfAbsent(ctx, store, key, want); !errors.Is(err, blob.ErrExists) {
		return &PromiseError{
			store.String(), fmt.Sprintf("lets one object be created twice, so that backups and WAL would not be safe there: %v", orSuccess(err)),
			"use a store that creates an object only if there is none",
		}
	}
	have, err := blob.ReadAll(ctx, store, key, 64)
	if err != nil {
		return fmt.Errorf("read from %s what was just written: %w", store, err)
	}
	if string(have) != string(want) {
		return fmt.Errorf("%s gives %x for what was written as %x", store, have, want)
	}
	if err := isListed(ctx, store, key, true); err != nil {
		return err
	}
	if err := store.Delete(ctx, key); err != nil {
		return fmt.Errorf("delete from %s: %w", store, err)
	}
	return isListed(ctx, store, key, false)
}

// isListed makes sure that a listing has key, or has it no longer.
func isListed(ctx context.Context, store blob.Store, key string, want bool) error {
	have := false
	for info, err := range store.List(ctx, key, "") {
		if err != nil {
			return fmt.Errorf("list %s: %w", store, err)
		}
		have = have || info.Key == key
	}
	if have == want {
		return nil
	}
	text := "lists what was just deleted"
	if want {
		text = "does not list what was just written"
	}
	return &PromiseError{store.String(), text + ", so that backups could be missed or removed wrongly", "use a store whose listings are consistent"}
}

// orSuccess puts into words that a call succeeded which should not have.
func orSuccess(err error) error {
	if err == nil {
		return errors.New("it succeeded")
	}
	return err
}
