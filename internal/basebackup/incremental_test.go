package basebackup_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/basebackup"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
)

// incremental are the options of an incremental backup.
func (b *bench) incremental(t testing.TB) basebackup.Options {
	opts := b.options(t)
	opts.Type, opts.WorkflowID = repo.Incremental, "w2"
	return opts
}

func (b *bench) mustTake(t testing.TB, opts basebackup.Options) *repo.Manifest {
	t.Helper()
	m, err := b.take(t, opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// rowHash tells the content of all tables of the schema public, row by row.
const rowHash = `select string_agg(format('%s:%s', relname, (xpath('/row/h/text()', query_to_xml(format(
	'select count(*) || md5(coalesce(string_agg(x::text, E''\n'' order by x::text), '''')) as h from %I x', relname), false, true, '')))[1]), ' ' order by relname)
	from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r'`

// restored recovers a backup until it is consistent, into a new place, and returns the rows that it then has.
func (b *bench) restored(t *testing.T, m *repo.Manifest) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	r, err := repo.Open(ctx, b.files) // nothing in its cache
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(pgtest.TempDir(t), "restored")
	plan, err := recovery.MakePlan(ctx, recovery.PlanOptions{
		Repo: r, Cluster: "c1", TargetDir: dir, Backup: m.BackupID, Target: recovery.Target{Kind: recovery.Immediate},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := recovery.Lay(ctx, plan, recovery.LayOptions{Repo: r, FetchCommand: []string{b.lifeboat, "--repository", "file://" + b.repoDir}}); err != nil {
		t.Fatal(err)
	}
	s, err := recovery.Start(ctx, plan, recovery.StartOptions{SocketOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Instance.Stop(context.Background(), pginstance.Immediate) }()
	cfg, err := dbcore.ParseDSN(s.Instance.ConnString("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dbcore.Connect(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	rows, err := dbcore.One[string](ctx, conn, rowHash)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// metadata is what an object store holds of a backup beside chunks: new tree packs, and its manifest.
func (b *bench) metadata(t *testing.T, m *repo.Manifest, before map[string]int64) (bytes int64) {
	t.Helper()
	for key, size := range b.stored(t) {
		if _, old := before[key]; !old && (strings.Contains(key, "/tree/") || strings.HasSuffix(key, "/backups/"+m.BackupID)) {
			bytes += size
		}
	}
	return bytes
}

// stored are the objects of the cluster with their sizes.
func (b *bench) stored(t *testing.T) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	for o, err := range b.repo.Objects(t.Context(), "c1") {
		if err != nil {
			t.Fatal(err)
		}
		out[o.Key] = o.Size
	}
	return out
}

// TestIncremental_StoresWhatChangedAndRestoresAlone takes a full and two incrementals with changes in between. Each restores
// from itself to the rows of its time (R6); what did not change is not stored again, and metadata keeps the bound of R10.
func TestIncremental_StoresWhatChangedAndRestoresAlone(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		if major == 16 || major > 17 && pgtest.Scale(t) == 1 {
			t.Skip("LIFEBOAT_TEST_SCALE=1 tests 15 and 17")
		}
		b := newBench(t, pgtest.Options{Major: major, Checksums: true, Settings: map[string]string{"autovacuum": "off"}})
		b.fill(t, 24)
		b.Exec(t, "create table big as select g as id, repeat(md5(g::text), 8) as t from generate_series(1, 60000) g")
		b.Exec(t, "create index on big (id)")
		b.Exec(t, "vacuum freeze") // later reads set no hint bits
		b.Exec(t, "checkpoint")

		var backups []*repo.Manifest
		var rows []string
		change := []func(){
			func() {},
			func() {
				b.Exec(t, "update big set t = 'changed' where id between 1000 and 1100")
				b.Exec(t, "insert into t3 select g, 'new' from generate_series(1, 2000) g")
				b.Exec(t, "drop table t5")
			},
			func() {
				b.Exec(t, "delete from big where id between 40000 and 40200")
				b.Exec(t, "create table t99 as select g, md5(g::text) from generate_series(1, 3000) g")
				b.Exec(t, "vacuum full t7") // in a new file
			},
		}
		for i, change := range change {
			change()
			before := b.stored(t)
			opts := b.incremental(t)
			if i == 0 {
				opts = b.options(t)
			}
			m := b.mustTake(t, opts)
			backups, rows = append(backups, m), append(rows, b.SQL(t, rowHash))
			meta, bound := b.metadata(t, m, before), max(m.ChangedBytes/20, 1<<20)
			t.Logf("%s: %d bytes read, %d changed, %d stored, metadata %d (bound %d), %d of %d chunks new, %.1f s",
				m.BackupID, m.SourceBytes, m.ChangedBytes, m.StoredBytes, meta, bound, m.NewChunks, m.Chunks, m.Seconds)
			if m.PageCheck == nil || m.PageCheck.Corrupt+m.PageCheck.Unsure != 0 || m.PageCheck.Checked < m.SourceBytes/8192*9/10 {
				t.Errorf("pages: %+v", m.PageCheck)
			}
			if i == 0 {
				continue
			}
			if m.Type != repo.Incremental || m.ParentID != backups[i-1].BackupID || !strings.Contains(m.BackupID, "-incremental-") {
				t.Errorf("backup %s is a %s to %q", m.BackupID, m.Type, m.ParentID)
			}
			if meta > bound {
				t.Errorf("metadata takes %d bytes, the bound is %d (R10)", meta, bound)
			}
			if m.ChangedBytes == 0 || m.ChangedBytes > m.SourceBytes/4 || m.StoredBytes > backups[0].StoredBytes/3 || m.NewChunks > m.Chunks/4 {
				t.Errorf("%s stored too much", m.BackupID)
			}
			b.checkStored(t, m, before)
		}
		for i, m := range backups {
			if i == 2 { // no chain: it needs no other manifest
				b.forget(t, backups[0])
				b.forget(t, backups[1])
			}
			if got := b.restored(t, m); got != rows[i] {
				t.Errorf("%s restores to\n%s\nwant\n%s", m.BackupID, got, rows[i])
			}
		}
	})
}

// checkStored holds storedBytes against the objects that came.
func (b *bench) checkStored(t *testing.T, m *repo.Manifest, before map[string]int64) {
	t.Helper()
	var packs int64
	for key, size := range b.stored(t) {
		if _, old := before[key]; !old && (strings.Contains(key, "/tree/") || strings.Contains(key, "/data/")) {
			packs += size
		}
	}
	if packs != m.StoredBytes {
		t.Errorf("%s says that it stored %d bytes; %d came", m.BackupID, m.StoredBytes, packs)
	}
}

// forget removes a manifest.
func (b *bench) forget(t *testing.T, m *repo.Manifest) {
	t.Helper()
	if err := b.files.Delete(t.Context(), repo.BackupKey("c1", m.BackupID)); err != nil {
		t.Fatal(err)
	}
}

// TestIncremental_ParentIsTheNewestThatCanBeUsed: without a backup an incremental is a full, and says so. A damaged backup is
// passed over; so are attempts that died, but for what they stored.
func TestIncremental_ParentIsTheNewestThatCanBeUsed(t *testing.T) {
	b := newBench(t, pgtest.Options{Settings: map[string]string{"autovacuum": "off"}})
	b.fill(t, 3)
	first := b.mustTake(t, b.incremental(t))
	if first.Type != repo.Full || first.ParentID != "" || !strings.Contains(first.BackupID, "-full-") {
		t.Errorf("without a backup: %s is a %s to %q", first.BackupID, first.Type, first.ParentID)
	}
	second := b.mustTake(t, b.incremental(t))
	if second.ParentID != first.BackupID || second.ChangedBytes > second.SourceBytes/10 {
		t.Errorf("the second is a %s to %q, and stored %d of %d bytes", second.Type, second.ParentID, second.ChangedBytes, second.SourceBytes)
	}
	path := filepath.Join(b.repoDir, repo.BackupKey("c1", second.BackupID))
	if err := errors.Join(os.Chmod(path, 0o666), os.Truncate(path, 200)); err != nil {
		t.Fatal(err)
	}
	third := b.mustTake(t, b.incremental(t))
	if third.Type != repo.Incremental || third.ParentID != first.BackupID || third.ChangedBytes > third.SourceBytes/10 {
		t.Errorf("over a damaged backup: a %s to %q, %d of %d bytes", third.Type, third.ParentID, third.ChangedBytes, third.SourceBytes)
	}
	// R11: a full shares with no backup.
	full := b.mustTake(t, b.options(t))
	if full.Type != repo.Full || full.ParentID != "" || full.ChangedBytes != full.SourceBytes || full.NewChunks < first.NewChunks*9/10 {
		t.Errorf("a full after them is a %s to %q, %d of %d bytes changed, %d of %d chunks new", full.Type, full.ParentID,
			full.ChangedBytes, full.SourceBytes, full.NewChunks, full.Chunks)
	}
}

// TestIncremental_LostPacksOfTheParent is R11: packs that the parent names and that are gone, or cut off, are stored anew.
// The incremental is whole, although its parent is not any more.
func TestIncremental_LostPacksOfTheParent(t *testing.T) {
	b := newBench(t, pgtest.Options{Settings: map[string]string{"autovacuum": "off"}})
	b.fill(t, 3)
	b.ballast(t, 1) // three packs of data or more
	rows := b.SQL(t, rowHash)
	b.mustTake(t, b.options(t))
	cut, gone := false, false
	for key, size := range b.stored(t) {
		path := filepath.Join(b.repoDir, key)
		switch {
		case !strings.Contains(key, "/data/"):
		case !gone:
			gone = true
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		case !cut:
			cut = true
			if err := errors.Join(os.Chmod(path, 0o666), os.Truncate(path, size/2)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !cut || !gone {
		t.Fatal("there are too few packs")
	}
	m := b.mustTake(t, b.incremental(t))
	if m.Type != repo.Incremental || m.NewChunks == 0 || m.NewChunks > m.Chunks*9/10 {
		t.Errorf("%s: %d of %d chunks are new", m.BackupID, m.NewChunks, m.Chunks)
	}
	if got := b.restored(t, m); got != rows {
		t.Errorf("restored\n%s\nwant\n%s", got, rows)
	}
}

// TestIncremental_PackGoesMeanwhile: a pack that is deleted while an incremental shares it ends it without a manifest, and
// the next attempt stores anew what was in it.
func TestIncremental_PackGoesMeanwhile(t *testing.T) {
	b := newBench(t, pgtest.Options{Settings: map[string]string{"autovacuum": "off"}})
	b.ballast(t, 1)
	b.mustTake(t, b.options(t))
	var lost string
	for key := range b.stored(t) {
		if strings.Contains(key, "/data/") {
			lost = max(lost, key)
		}
	}
	opts := b.incremental(t)
	opts.Progress = func(p basebackup.Progress) {
		if p.Phase == "publish" {
			_ = os.Remove(filepath.Join(b.repoDir, lost))
		}
	}
	_, err := b.take(t, opts)
	name := lost[strings.LastIndexByte(lost, '/')+1:]
	if err == nil || !strings.Contains(err.Error(), name[:16]) {
		t.Fatalf("without %s: %v", lost, err)
	}
	if manifests, _ := b.visible(t); len(manifests) != 1 {
		t.Errorf("there are %d backups, want the full", len(manifests))
	}
	m := b.mustTake(t, b.incremental(t))
	snap, err := b.repo.OpenBackup(t.Context(), "c1", m.BackupID)
	if err != nil {
		t.Fatal(err)
	}
	uses, err := snap.Packs(t.Context(), func(err error) error { return err })
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range uses {
		if err := b.repo.CheckSize(t.Context(), "c1", u); err != nil {
			t.Error(err)
		}
	}
}

// TestIncremental_KilledAttemptIsGoneOnWith cuts an incremental off behind a checkpoint. The next attempt stores neither what
// the parent has nor what the dead one stored, and a full shares with neither (R11).
func TestIncremental_KilledAttemptIsGoneOnWith(t *testing.T) {
	b := newBench(t, pgtest.Options{Settings: map[string]string{"autovacuum": "off"}})
	b.fill(t, 20)
	parent := b.mustTake(t, b.options(t))
	for i := range 10 {
		b.Exec(t, fmt.Sprintf("update t%d set filler = reverse(filler)", i))
	}
	b.Exec(t, "checkpoint")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.store.Add(
		fault.Rule{Op: fault.PutIfAbsent, Key: fault.Contains("/data/"), Count: fault.Forever, Do: fault.Delay(100 * time.Millisecond)},
		fault.Rule{Op: fault.Put, Key: fault.Contains("/run-"), Count: fault.Forever, Do: fault.After(func(ctx context.Context, _ fault.Call) error {
			if b.checkpointed(ctx, t) > 12<<20 {
				cancel()
			}
			return nil
		})},
	)
	opts := b.incremental(t)
	opts.CheckpointEvery = 30 * time.Millisecond
	if _, err := basebackup.Take(ctx, opts); !errors.Is(err, context.Canceled) {
		t.Fatalf("the cancelled attempt ended with %v", err)
	}
	_, intents := b.visible(t)
	if len(intents) != 1 || intents[0].Type != string(repo.Incremental) || intents[0].ParentID != parent.BackupID {
		t.Fatalf("intents: %+v", intents)
	}
	dead := b.packs(t, "run-") // keeps the test honest: something was recorded
	other := b.options(t)
	other.WorkflowID = "full"
	full := b.mustTake(t, other)
	if full.ChangedBytes != full.SourceBytes {
		t.Errorf("a full shares with a dead incremental: %d of %d bytes changed", full.ChangedBytes, full.SourceBytes)
	}
	b.forget(t, full) // so that it is nobody's parent
	m := b.mustTake(t, b.incremental(t))
	t.Logf("%d checkpoints of the dead attempt; %d of %d bytes changed for the next one", dead, m.ChangedBytes, m.SourceBytes)
	if dead == 0 || m.ParentID != parent.BackupID || m.ChangedBytes > m.SourceBytes/3 {
		t.Errorf("the next attempt: to %q, %d of %d bytes changed", m.ParentID, m.ChangedBytes, m.SourceBytes)
	}
	if _, intents := b.visible(t); len(intents) != 0 {
		t.Errorf("%d intents are left", len(intents))
	}
	if got, want := b.restored(t, m), b.SQL(t, rowHash); got != want {
		t.Errorf("restored\n%s\nwant\n%s", got, want)
	}
}

// packs counts the objects whose key contains part.
func (b *bench) packs(t *testing.T, part string) (n int) {
	t.Helper()
	for key := range b.stored(t) {
		if strings.Contains(key, part) {
			n++
		}
	}
	return n
}
