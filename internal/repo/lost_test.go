package repo_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/repo"
)

// A repository that lost its header is no place for a new one: with other keys nothing that is there could ever be read.
func TestOpen_LostHeaderIsNeverReplaced(t *testing.T) {
	store := mem.New()
	r, err := repo.OpenOrCreate(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.PutDocument(t.Context(), "c1", "reports/r", 1); err != nil {
		t.Fatal(err)
	}
	header := objects(t, store, "lifeboat.json")["lifeboat.json"]
	if err := store.Delete(t.Context(), "lifeboat.json"); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(context.Context, blob.Store) (*repo.Repository, error){"Open": repo.Open, "OpenOrCreate": repo.OpenOrCreate} {
		if _, err := open(t.Context(), store); !repo.IsDamage(err) || errors.Is(err, repo.ErrNoRepository) || !strings.Contains(err.Error(), "lifeboat.json is damaged: it is missing") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(objects(t, store, "lifeboat.json")) > 0 {
		t.Error("a new header was written")
	}
	// One that comes back between two looks, as when somebody creates the repository just now, is taken.
	if err := blob.PutBytes(t.Context(), store, "lifeboat.json", header); err != nil {
		t.Fatal(err)
	}
	late := fault.New(store, fault.Rule{Op: fault.Get, Key: fault.Exactly("lifeboat.json"), Do: fault.Fail(blob.ErrNotFound)})
	if _, err := repo.Open(t.Context(), late); err != nil || len(late.Unused()) > 0 {
		t.Errorf("Open: %v", err)
	}
	down := fault.New(store, fault.Rule{Op: fault.Get, Key: fault.Exactly("lifeboat.json"), Do: fault.Fail(blob.ErrNotFound)},
		fault.Rule{Op: fault.List, Do: fault.Fail(nil)})
	if _, err := repo.OpenOrCreate(t.Context(), down); !errors.Is(err, fault.ErrInjected) {
		t.Errorf("a store that cannot list: %v", err)
	}
}

// A format number that rotted is not taken for a newer version; a newer version is.
func TestOpen_RottenFormatNumber(t *testing.T) {
	store := mem.New()
	if _, err := repo.OpenOrCreate(t.Context(), store); err != nil {
		t.Fatal(err)
	}
	sound := string(objects(t, store, "lifeboat.json")["lifeboat.json"])
	replace := func(old, new string) string { return strings.Replace(sound, old, new, 1) }
	newer := strings.Replace(replace(`"format": 1`, `"format": 2`), `"check": "`, `"check": "2`, 1) // over other fields than ours
	for body, damaged := range map[string]bool{
		replace(`"format": 1`, `"format": 3`): true, replace(`"format": 1`, `"format": 0`): true, replace(`"format"`, `"fxrmat"`): true, newer: false,
	} {
		if err := blob.PutBytes(t.Context(), store, "lifeboat.json", []byte(body)); err != nil {
			t.Fatal(err)
		}
		_, err := repo.Open(t.Context(), store)
		if err == nil || repo.IsDamage(err) != damaged {
			t.Errorf("%s\n%v", body, err)
		}
	}
}
