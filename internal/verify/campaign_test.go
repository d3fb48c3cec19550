package verify_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/blob/fs"
	"lifeboat/internal/pg"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
)

// victim is one object of a kind that the campaign spoils.
type victim struct {
	kind, key string
	sound     []byte
	other     []byte   // another sound object of its kind, of the same repository
	foreign   []byte   // an object with its key, of another repository
	older     []byte   // an older version of itself; nil for what is written once
	restore   []string // what became of restores, for the table
	tried     int
}

// campaign is a repository with objects of every kind that the code knows, in two backups on both sides of a fail-over.
type campaign struct {
	*bench
	backups []*repo.Manifest
	victims []*victim
	rows    string   // what a restored server must answer
	fetch   []string // begins the restore_command
}

// TestCampaign spoils an object of every kind, at head, middle and end, by flips, cuts, zeros, exchange and deletion
// (invariant 10): each time the object and the place are named, no restore uses it, and all others succeed.
func TestCampaign(t *testing.T) {
	c := newCampaign(t)
	if reports := c.all(t, 2); outcome(reports) != verify.Passed || len(reports) != 2 {
		t.Fatalf("the sound repository: %s", text(reports...))
	}
	for name, group := range c.groups(t) {
		t.Run(name, func(t *testing.T) { c.spoilAll(t, group) })
	}
	t.Run("restores", c.testRestores)
	t.Log("\n" + c.table())
}

// groups are the victims that are spoiled at the same time: each by itself, or, to save time, all together but for those
// that others are read by.
func (c *campaign) groups(t *testing.T) map[string][]*victim {
	out := map[string][]*victim{}
	for _, v := range c.victims {
		name := v.kind
		switch {
		case pgtest.Scale(t) > 1 || v.kind == "header":
		case v.kind == "identity" || v.kind == "manifest":
			name = "what the others are read by"
		default:
			name = "the others"
		}
		out[name] = append(out[name], v)
	}
	return out
}

func newCampaign(t *testing.T) *campaign {
	t.Helper()
	b, backups := prepared(t, pgtest.Options{WALSegSizeMB: 1})
	c := &campaign{bench: b, backups: backups, rows: b.SQL(t, rowHash)}
	// As the program itself, but for the half minute in which it hopes that damage goes away.
	hasty := filepath.Join(pgtest.TempDir(t), "hasty")
	if err := os.WriteFile(hasty, []byte("#!/bin/sh\nexec "+b.lifeboat+` "$@" --patience 1s`+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.fetch = []string{hasty, "--repository", "file://" + b.dir}
	b.repo = b.reopen(t)
	folders := documentFolders(t)
	older := addKinds(t, b.repo, cluster, folders)
	copyWAL(t, b.repo)
	addKinds(t, b.repo, "c2", folders)

	strangerDir := filepath.Join(pgtest.TempDir(t), "stranger")
	store, err := fs.Open(strangerDir, fs.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := repo.OpenOrCreate(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	addKinds(t, stranger, cluster, folders)

	c.victims = []*victim{{kind: "header", key: repo.HeaderKey}}
	c.victims[0].foreign, _ = os.ReadFile(filepath.Join(strangerDir, repo.HeaderKey))
	c.chooseVictims(t, folders)
	for _, v := range c.victims {
		if v.sound, err = os.ReadFile(filepath.Join(b.dir, v.key)); err != nil {
			t.Fatal(err)
		}
		v.older = older[v.key]
		if v.foreign == nil {
			v.foreign = anyBelow(t, strangerDir, v.key)
		}
	}
	return c
}

// rowHash sums up the rows of the test's table.
const rowHash = "select count(*) || ' ' || md5(string_agg(id || t, ',' order by id, t)) from ledger"

// addKinds stores what a cluster has beside backups and WAL: what died and live runs leave, and a document in every
// folder that the code stores to. It returns older versions of what is rewritten.
func addKinds(t *testing.T, r *repo.Repository, cluster string, folders []string) (older map[string][]byte) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	if _, err := r.Identity(ctx, cluster); errors.Is(err, repo.ErrNotFound) {
		must(r.ClaimIdentity(ctx, cluster, repo.Identity{SystemID: 7, WALSegmentSize: pg.DefaultSegmentSize}))
	}
	lease, err := r.AcquireLease(ctx, cluster, "campaign", "owner", "h", time.Hour)
	must(err)
	older = map[string][]byte{}
	dir := strings.TrimPrefix(r.String(), "file://")
	key := fmt.Sprintf("clusters/%s/leases/campaign/%012d", cluster, lease.Token())
	older[key], err = os.ReadFile(filepath.Join(dir, key))
	must(err)
	must(lease.Release(ctx))
	id := repo.NewBackupID(time.Now().Add(-time.Hour), repo.Full)
	must(r.PutIntent(ctx, cluster, repo.Intent{BackupID: id, Host: "gone"}))
	w, err := r.NewWriter(ctx, repo.WriterOptions{Cluster: cluster, BackupID: id, CheckpointEvery: time.Millisecond})
	must(err)
	defer w.Close()
	f, err := w.File(ctx, repo.Entry{Path: "one", Mode: 0o600})
	must(err)
	_, err = f.ReadFrom(strings.NewReader(strings.Repeat(cluster, 1000)))
	must(errors.Join(err, f.Close()))
	pgtest.Eventually(t, "a checkpoint is there", func() bool {
		for o, err := range r.Objects(context.Background(), cluster) {
			if err == nil && strings.Contains(o.Key, id+"/run-") {
				return true
			}
		}
		return false
	})
	for _, folder := range folders {
		must(r.PutDocument(ctx, cluster, folder+"/20260101T000000Z-full-123456/campaign", map[string]string{"of": cluster + folder, "pad": strings.Repeat(id, 30)}))
	}
	return older
}

// copyWAL gives the second cluster the WAL of the first.
func copyWAL(t *testing.T, r *repo.Repository) {
	t.Helper()
	var names []string
	for name, err := range r.WALNames(t.Context(), cluster, 0, "") {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	histories, err := r.Histories(t.Context(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, histories...) {
		w, err := r.OpenWAL(t.Context(), cluster, name)
		if err != nil {
			t.Fatal(err)
		}
		var content strings.Builder
		_, err = w.WriteTo(&content)
		_ = w.Close()
		if err == nil {
			_, err = r.PutWAL(t.Context(), "c2", w.Header, []byte(content.String()), repo.Zstd)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// kindOf names what a key of the first cluster is; "" for what no kind matches.
func kindOf(key string, folders []string) string {
	below := strings.TrimPrefix(key, "clusters/"+cluster+"/")
	for _, p := range repo.Places() {
		if ok, _ := path.Match(p.Pattern, below); !ok {
			continue
		}
		if p.Kind != repo.KindWAL {
			return p.Name
		}
		if f, err := pg.ParseWALFileName(path.Base(key)); err == nil {
			return f.Kind.String()
		}
	}
	if first, _, _ := strings.Cut(below, "/"); slices.Contains(folders, first) {
		return "document " + first
	}
	return ""
}

// chooseVictims takes one object of each kind, and fails if the code knows a kind of which the repository has none, or
// the repository one that the code does not name.
func (c *campaign) chooseVictims(t *testing.T, folders []string) {
	t.Helper()
	var want []string
	for _, p := range repo.Places() {
		if p.Kind != repo.KindWAL {
			want = append(want, p.Name)
		}
	}
	for kind := pg.WALSegment; kind.String() != pg.WALFileKind(0).String(); kind++ {
		want = append(want, kind.String())
	}
	for _, folder := range folders {
		want = append(want, "document "+folder)
	}
	byKind := map[string][]string{}
	for o, err := range c.repo.Objects(t.Context(), cluster) {
		if err != nil {
			t.Fatal(err)
		}
		kind := kindOf(o.Key, folders)
		if !slices.Contains(want, kind) {
			t.Errorf("%s is of no kind that the campaign knows", o.Key)
		}
		byKind[kind] = append(byKind[kind], o.Key)
	}
	for _, kind := range want {
		keys := byKind[kind]
		if len(keys) == 0 {
			t.Errorf("the repository has no %s: the campaign must make one", kind)
			continue
		}
		key := c.prefer(t, kind, keys)
		c.victims = append(c.victims, &victim{kind: kind, key: key, other: c.another(t, key, keys)})
	}
	if t.Failed() {
		t.FailNow()
	}
}

// prefer chooses an object that one backup needs and the other does not, where there is such a one.
func (c *campaign) prefer(t *testing.T, kind string, keys []string) string {
	t.Helper()
	switch kind {
	case "manifest":
		return repo.BackupKey(cluster, c.backups[1].BackupID)
	case "data pack", "tree pack":
		mine, theirs := c.packs(t, c.backups[1]), c.packs(t, c.backups[0])
		for _, key := range keys {
			if mine[key] && !theirs[key] {
				return key
			}
		}
		t.Errorf("no %s is of the second backup alone", kind)
	case pg.WALSegment.String():
		start := c.backups[0].StartLSN
		for _, key := range keys { // whole, behind the start of the first backup and before that of the second
			f, err := pg.ParseWALFileName(path.Base(key))
			if err != nil {
				t.Fatal(err)
			}
			seg, err := f.Segment(c.backups[0].WALSegmentSize)
			if err == nil && seg.Start(c.backups[0].WALSegmentSize) > start {
				return key
			}
		}
	}
	for _, key := range keys {
		if strings.Contains(key, "/campaign") {
			return key
		}
	}
	return keys[len(keys)-1]
}

func (c *campaign) packs(t *testing.T, m *repo.Manifest) map[string]bool {
	t.Helper()
	snap, err := c.repo.OpenBackup(t.Context(), cluster, m.BackupID)
	if err != nil {
		t.Fatal(err)
	}
	list, err := snap.Packs(t.Context(), func(err error) error { return err })
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, u := range list {
		out[u.Key(cluster)] = true
	}
	return out
}

// another reads an object of the same kind: another one of the cluster, or the one of the second cluster.
func (c *campaign) another(t *testing.T, key string, keys []string) []byte {
	t.Helper()
	for _, k := range keys {
		if k != key {
			data, err := os.ReadFile(filepath.Join(c.dir, k))
			if err != nil {
				t.Fatal(err)
			}
			return data
		}
	}
	twin := strings.Replace(key, "clusters/"+cluster, "clusters/c2", 1)
	data, err := os.ReadFile(filepath.Join(c.dir, twin))
	if errors.Is(err, os.ErrNotExist) {
		return anyBelow(t, c.dir, twin)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// anyBelow reads an object in the same place of another repository or cluster, whose names differ; nil if there is none.
func anyBelow(t *testing.T, dir, key string) []byte {
	t.Helper()
	parts := strings.Split(key, "/")
	for i := 3; i < len(parts); i++ {
		parts[i] = "*"
	}
	if len(parts) > 4 && parts[2] == "intents" {
		parts[4] = path.Base(key)
	}
	found, err := filepath.Glob(filepath.Join(dir, filepath.Join(parts...)))
	if err != nil || len(found) == 0 {
		return nil
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return data
}
