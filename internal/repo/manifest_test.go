package repo_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

func someManifest(id string) *repo.Manifest {
	return &repo.Manifest{
		Cluster: "c1", BackupID: id, Type: repo.Incremental, ParentID: "p", WorkflowID: "w", Program: "lifeboat 1", Epoch: 3,
		SystemID: 7_434_567_890_123_456_789, PostgresMajor: 15, PostgresText: "15.18 (Debian)", WALSegmentSize: pg.DefaultSegmentSize,
		DataChecksums: true, Superuser: "postgres", Timeline: 2, StartLSN: 0x1_2300_0028, StopLSN: 0x1_2400_0000,
		StartedAt: time.Now(), FinishedAt: time.Now().In(time.FixedZone("x", 3600)), MaxConnections: 100,
		Tablespaces: []repo.Tablespace{{OID: 16385, Location: "/srv/a"}}, SourceBytes: 1, Seconds: 1.5, Table: repo.Table{Files: 0},
	}
}

const manifestID = "20261123T074501Z-full-1f3a9c"

func TestManifest_RoundTrip(t *testing.T) {
	r, _ := newRepo(t)
	want := someManifest(manifestID)
	if err := r.PutManifest(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	got, err := r.Manifest(t.Context(), "c1", manifestID)
	if err != nil {
		t.Fatal(err)
	}
	if !got.StartedAt.Equal(want.StartedAt) || !got.FinishedAt.Equal(want.FinishedAt) {
		t.Errorf("times %v, %v", got.StartedAt, got.FinishedAt)
	}
	got.StartedAt, got.FinishedAt = want.StartedAt, want.FinishedAt
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) || got.Format != repo.Format {
		t.Errorf("manifest %+v\nwant %+v", got, want)
	}
}

// TestPutManifest_OnceOnly stores a manifest twice, after a lost reply, and against another one (R14).
func TestPutManifest_OnceOnly(t *testing.T) {
	inner := mem.New()
	newSmall(t, inner)
	store := fault.New(inner, fault.Rule{Op: fault.PutIfAbsent, Do: fault.FailAfter(nil)})
	r, err := repo.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	m := someManifest(manifestID)
	for what, m := range map[string]*repo.Manifest{"a lost reply": m, "the same again": m} {
		if err := r.PutManifest(t.Context(), m); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if unused := store.Unused(); len(unused) > 0 {
		t.Errorf("faults that did not happen: %v", unused)
	}
	for name, change := range map[string]func(m *repo.Manifest){
		"another workflow": func(m *repo.Manifest) { m.WorkflowID = "other" },
		"another table":    func(m *repo.Manifest) { m.Table.Files = 1 },
		"another start":    func(m *repo.Manifest) { m.StartLSN++ },
	} {
		other := *m
		change(&other)
		if err := r.PutManifest(t.Context(), &other); !errors.Is(err, blob.ErrExists) || !strings.Contains(err.Error(), manifestID) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := r.Manifest(t.Context(), "c1", manifestID); err != nil || got.WorkflowID != "w" || got.Table.Files != 0 || got.StartLSN != m.StartLSN {
		t.Errorf("the first manifest was changed: %+v, %v", got, err)
	}
}

func TestPutManifest_Unclear(t *testing.T) {
	for _, do := range []fault.Action{fault.Fail(nil), fault.FailAfter(nil)} {
		inner := mem.New()
		newSmall(t, inner)
		// The store goes away: neither the write nor the question about it is answered.
		store := fault.New(inner, fault.Rule{Op: fault.PutIfAbsent, Count: fault.Forever, Do: do},
			fault.Rule{Op: fault.Get, Key: fault.Contains("/backups/"), Count: fault.Forever, Do: fault.Fail(nil)})
		r, err := repo.Open(t.Context(), store)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.PutManifest(t.Context(), someManifest(manifestID)); !errors.Is(err, fault.ErrInjected) {
			t.Errorf("PutManifest: %v", err)
		}
	}
}

func TestPutManifest_Race(t *testing.T) {
	r, _ := newRepo(t)
	errs := make([]error, 16)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			m := someManifest(manifestID)
			m.WorkflowID = fmt.Sprint(i)
			errs[i] = r.PutManifest(t.Context(), m)
		})
	}
	wg.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			t.Errorf("%d and %d both won", won, i)
		case err == nil:
			won = i
		case !errors.Is(err, blob.ErrExists):
			t.Error(err)
		}
	}
	if m, err := r.Manifest(t.Context(), "c1", manifestID); err != nil || m.WorkflowID != fmt.Sprint(won) {
		t.Errorf("number %d won, the manifest is of %+v, %v", won, m, err)
	}
}

func TestPutManifest_Refuses(t *testing.T) {
	r, store := newRepo(t)
	good := repo.Ref{Stored: 17, Raw: 1}
	for name, change := range map[string]func(m *repo.Manifest){
		"no cluster":      func(m *repo.Manifest) { m.Cluster = "" },
		"bad id":          func(m *repo.Manifest) { m.BackupID = "x" },
		"impossible page": func(m *repo.Manifest) { m.Table.Pages = []repo.PageRef{{First: "a"}} },
		"pages unordered": func(m *repo.Manifest) {
			m.Table.Pages = []repo.PageRef{{First: "b", Ref: good}, {First: "a", Ref: good}}
		},
	} {
		m := someManifest(manifestID)
		change(m)
		if err := r.PutManifest(t.Context(), m); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if n := len(objects(t, store, "clusters/")); n != 0 {
		t.Errorf("%d objects were stored", n)
	}
}

func TestManifests(t *testing.T) {
	inner := mem.New()
	r := newSmall(t, inner)
	var ids []string
	for i := range 4 {
		id := repo.NewBackupID(time.Unix(int64(1_700_000_000+i*86_400), 0), repo.Incremental)
		ids = append(ids, id)
		if err := r.PutManifest(t.Context(), someManifest(id)); err != nil {
			t.Fatal(err)
		}
	}
	list := func(r *repo.Repository) (got []string, err error) {
		all, err := r.Manifests(t.Context(), "c1")
		for _, m := range all {
			got = append(got, m.BackupID)
		}
		return got, err
	}
	if got, err := list(r); err != nil || fmt.Sprint(got) != fmt.Sprint(ids) {
		t.Errorf("Manifests: %v, %v; want %v", got, err, ids)
	}
	if _, err := r.Manifest(t.Context(), "c1", "20200101T000000Z-full-000000"); !errors.Is(err, repo.ErrNoBackup) {
		t.Errorf("Manifest of none: %v", err)
	}
	if _, err := r.OpenBackup(t.Context(), "c2", ids[0]); !errors.Is(err, repo.ErrNoBackup) {
		t.Errorf("OpenBackup of another cluster: %v", err)
	}
	// One that is removed between the listing and the reading is passed over, one that cannot be read is not.
	removing := fault.New(inner, fault.Rule{Op: fault.Get, Key: fault.Contains(ids[1]), Do: fault.Fail(blob.ErrNotFound)},
		fault.Rule{Op: fault.Get, Key: fault.Contains(ids[2]), Nth: 2, Do: fault.Fail(nil)})
	r, err := repo.Open(t.Context(), removing)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := list(r); err != nil || len(got) != 3 {
		t.Errorf("with one removed meanwhile: %v, %v", got, err)
	}
	if got, err := list(r); !errors.Is(err, fault.ErrInjected) {
		t.Errorf("with one that cannot be read: %v, %v", got, err)
	}
}

func TestBackupID(t *testing.T) {
	a := repo.NewBackupID(time.Unix(1_700_000_000, 0), repo.Full)
	if err := repo.CheckBackupID(a); err != nil || !strings.HasPrefix(a, "20231114T221320Z-full-") {
		t.Errorf("%s: %v", a, err)
	}
	for _, id := range []string{
		"", "x", "20231114T221320Z-full-", "20231114T221320Z-full-12345", "20231314T221320Z-full-123456", "20231114T221320Z-fu/l-123456",
		"20231114T221320Z-full-12345G", "20231114T221320Z--123456", "20231114T221320.5Z-full-123456", "../20231114T221320Z-full-123456",
		"20231114T221320Z-FULL-123456", a + "/", a + "-x",
	} {
		if err := repo.CheckBackupID(id); err == nil {
			t.Errorf("%q was accepted", id)
		}
	}
}

// TestClaimIdentity_Race lets servers race for one name: exactly one wins, and those that are it agree.
func TestClaimIdentity_Race(t *testing.T) {
	r, _ := newRepo(t)
	errs := make([]error, 16)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			errs[i] = r.ClaimIdentity(t.Context(), "c1", repo.Identity{SystemID: pg.SystemID(1 + i%4), WALSegmentSize: pg.DefaultSegmentSize})
		})
	}
	wg.Wait()
	have, err := r.Identity(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	for i, err := range errs {
		var wrong *repo.IdentityError
		mine := have.SystemID == pg.SystemID(1+i%4)
		if mine != (err == nil) || err != nil && (!errors.As(err, &wrong) || wrong.Want != have) {
			t.Errorf("system %d where %d won: %v", 1+i%4, have.SystemID, err)
		}
	}
}

func TestClaimIdentity(t *testing.T) {
	inner := mem.New()
	newSmall(t, inner)
	store := fault.New(inner, fault.Rule{Op: fault.PutIfAbsent, Do: fault.FailAfter(nil)})
	r, err := repo.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	mine := repo.Identity{SystemID: 5, WALSegmentSize: 1 << 20}
	for _, bad := range []repo.Identity{{}, {SystemID: 5}, {WALSegmentSize: 1 << 20}, {SystemID: 5, WALSegmentSize: 3}} {
		if err := r.ClaimIdentity(t.Context(), "c1", bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	if _, err := r.Identity(t.Context(), "c1"); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("Identity of nobody: %v", err)
	}
	for range 2 { // the first reply is lost
		if err := r.ClaimIdentity(t.Context(), "c1", mine); err != nil {
			t.Error(err)
		}
	}
	for _, other := range []repo.Identity{{SystemID: 6, WALSegmentSize: 1 << 20}, {SystemID: 5, WALSegmentSize: 2 << 20}} {
		var wrong *repo.IdentityError
		if err := r.ClaimIdentity(t.Context(), "c1", other); !errors.As(err, &wrong) || wrong.Want != mine || wrong.Have != other {
			t.Errorf("%+v: %v", other, err)
		}
	}
	if unused := store.Unused(); len(unused) > 0 {
		t.Errorf("faults that did not happen: %v", unused)
	}
}
