package verify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/recovery"
	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
	"lifeboat/internal/wal/walrecord"
)

// promote takes the server to timeline 2, as a fail-over does: the repository gets a history and a partial segment.
func (b *bench) promote(t *testing.T) {
	t.Helper()
	b.Stop(t)
	signal := filepath.Join(b.DataDir, "recovery.signal") // to the end of the WAL, and on from there
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := pgtest.Owner(t).Chown(signal); err != nil {
		t.Fatal(err)
	}
	b.Start(t)
	pgtest.Eventually(t, "the history is archived", func() bool {
		list, err := b.repo.Histories(context.Background(), cluster)
		return err == nil && len(list) == 1
	})
}

// prepared is a bench with two backups that share packs, on both sides of a fail-over, and one report.
func prepared(t *testing.T) (*bench, []*repo.Manifest) {
	t.Helper()
	b := newBench(t, pgtest.Options{Checksums: true, Settings: map[string]string{"restore_command": "false"}})
	b.Exec(t, "create table ledger as select g as id, md5(g::text) as t from generate_series(1, 20000) g")
	first := b.backup(t)
	b.Exec(t, "update ledger set t = t || 'x' where id % 7 = 0")
	b.archive(t)
	b.promote(t)
	b.Exec(t, "insert into ledger select g, md5(g::text) from generate_series(20001, 30000) g")
	b.archive(t)
	second := b.backup(t)
	for i := range 5 {
		b.Exec(t, "insert into ledger values ($1, 'late')", 100000+i)
	}
	b.archive(t)
	if err := b.repo.PutDocument(t.Context(), cluster, "reports/r1", map[string]string{"verdict": "PASS"}); err != nil {
		t.Fatal(err)
	}
	return b, []*repo.Manifest{first, second}
}

func TestLadder(t *testing.T) {
	b, backups := prepared(t)
	t.Run("GoodRepositoryPassesEachLevel", func(t *testing.T) {
		for level := range verify.MaxLevel + 1 {
			for _, m := range backups {
				r := b.verify(t, m, level)
				if r.Outcome() != verify.Passed || r.Level() != level || len(r.Problems) > 0 {
					t.Errorf("level %d: %s", level, text(r))
				}
			}
		}
		reports := b.all(t, verify.MaxLevel)
		if len(reports) != 2 || outcome(reports) != verify.Passed || reports[0].Level() != 5 || reports[1].Level() != 5 {
			t.Errorf("all: %s", text(reports...))
		}
		left, err := os.ReadDir(b.work)
		if err != nil || len(left) > 0 {
			t.Errorf("left in the work directory: %v, %v", left, err)
		}
	})
	t.Run("MissingPackIsNamedAtLevel0", func(t *testing.T) {
		for _, folder := range []string{"data/", "tree/"} {
			for _, key := range b.objects(t, folder) {
				t.Run(key, func(t *testing.T) {
					b.remove(t, key)
					reports := b.all(t, 0)
					if outcome(reports) != verify.Failed || !names(reports, key) || reports[0].Level() != 0 {
						t.Errorf("not named: %s", text(reports...))
					}
				})
			}
		}
	})
	t.Run("GapIsNamedAtLevel2", func(t *testing.T) { b.testGap(t, backups[0]) })
	t.Run("WrongFactsAreNamedAtLevel2", func(t *testing.T) { b.testFacts(t, backups[0]) })
	t.Run("Corruption", func(t *testing.T) { b.testCorruption(t, backups) })
}

func (b *bench) testGap(t *testing.T, m *repo.Manifest) {
	segments := b.objects(t, "wal/segments/")
	var key string
	for i, k := range segments { // a whole segment of timeline 2, behind the first backup, with others behind it
		if name := filepath.Base(k); strings.HasPrefix(name, "00000002") && len(name) == 24 && i < len(segments)-2 {
			key = k
			break
		}
	}
	if key == "" {
		t.Fatalf("no such segment in %v", segments)
	}
	b.remove(t, key)
	if r := b.verify(t, m, 1); r.Outcome() != verify.Passed {
		t.Errorf("level 1 looks at no WAL, but: %s", text(r))
	}
	for _, reports := range [][]verify.BackupReport{{b.verify(t, m, 2)}, b.all(t, 2)} {
		if outcome(reports) != verify.Failed || !names(reports, key) || of(t, reports, m).Level() != 1 {
			t.Errorf("%s: %s", key, text(reports...))
		}
	}
}

// testFacts replaces a segment's head by one that tells another time, sealed as it must be: only its records know better.
func (b *bench) testFacts(t *testing.T, m *repo.Manifest) {
	name := ""
	for _, k := range b.objects(t, "wal/segments/") {
		if n := filepath.Base(k); len(n) == 24 && strings.HasPrefix(n, "00000001") {
			name = n // the last whole one of timeline 1 that the first backup replays
		}
	}
	w, err := b.repo.OpenWAL(t.Context(), cluster, name)
	if err != nil {
		t.Fatal(err)
	}
	var content bytes.Buffer
	if _, err := io.Copy(&content, w); err != nil {
		t.Fatal(err)
	}
	head := w.Header
	var facts walrecord.Facts
	if err := json.Unmarshal(head.Facts, &facts); err != nil || facts.Latest == nil {
		t.Fatalf("facts of %s: %s, %v", name, head.Facts, err)
	}
	facts.Latest.Time += 1_000_000
	if head.Facts, err = json.Marshal(&facts); err != nil {
		t.Fatal(err)
	}
	key := repo.WALKey(cluster, name)
	b.remove(t, key)
	if _, err := b.repo.PutWAL(t.Context(), cluster, head, content.Bytes(), repo.Zstd); err != nil {
		t.Fatal(err)
	}
	for _, reports := range [][]verify.BackupReport{{b.verify(t, m, 2)}, b.all(t, 2)} {
		if outcome(reports) != verify.Failed || !names(reports, key) || !strings.Contains(text(reports...), "latest is") {
			t.Errorf("%s: %s", key, text(reports...))
		}
	}
}

// testCorruption flips one byte at head, middle and end of an object of every kind, and truncates it.
func (b *bench) testCorruption(t *testing.T, backups []*repo.Manifest) {
	last := func(keys []string) string { return keys[len(keys)-1] }
	kinds := []struct {
		name, key string
		restore   bool // a restore of the first backup to latest reads the middle of it
	}{
		{"data pack", b.objects(t, "data/")[0], false},
		{"tree pack", b.objects(t, "tree/")[0], false},
		{"manifest", repo.BackupKey(cluster, backups[0].BackupID), true},
		{"segment", last(b.objects(t, "wal/segments/00000002")), true},
		{"partial segment", partial(b.objects(t, "wal/segments/00000001")), false},
		{"history", b.objects(t, "wal/history/")[0], true},
		{"identity", repo.IdentityKey(cluster), true},
		{"report", "clusters/c1/reports/r1", false},
	}
	flip := func(at func(n int) int) func([]byte) []byte {
		return func(data []byte) []byte { data[at(len(data))] ^= 0x10; return data }
	}
	changes := []struct {
		name   string
		change func([]byte) []byte
	}{
		{"head", flip(func(int) int { return 3 })},
		{"salt", flip(func(int) int { return 20 })},
		{"middle", flip(func(n int) int { return n / 2 })},
		{"end", flip(func(n int) int { return n - 1 })},
		{"truncated", func(data []byte) []byte { return data[:len(data)*2/3] }},
		{"shorter by one", func(data []byte) []byte { return data[:len(data)-1] }},
		{"longer", func(data []byte) []byte { return append(data, 0) }},
	}
	for _, k := range kinds {
		for _, c := range changes {
			t.Run(k.name+"/"+c.name, func(t *testing.T) {
				b.spoil(t, k.key, c.change)
				reports := b.all(t, 2)
				if outcome(reports) != verify.Failed || !names(reports, k.key) {
					t.Errorf("%s is not named: %s", k.key, text(reports...))
				}
				if k.restore && c.name == "middle" {
					b.mustNotRestore(t, backups[0])
				}
			})
		}
	}
	// Whichever frame is in the middle of a pack, the backup that needs it cannot be restored.
	for _, folder := range []string{"data/", "tree/"} {
		for _, key := range b.objects(t, folder) {
			t.Run("restore/"+key, func(t *testing.T) {
				b.spoil(t, key, changes[4].change)
				reports := b.all(t, 1)
				for _, m := range backups {
					if r := of(t, reports, m); r.Outcome() == verify.Failed {
						b.mustNotRestore(t, m)
					}
				}
				if outcome(reports) != verify.Failed {
					t.Errorf("no backup needs it: %s", text(reports...))
				}
			})
		}
	}
}

func partial(keys []string) string {
	for _, k := range keys {
		if strings.HasSuffix(k, ".partial") {
			return k
		}
	}
	return "no partial segment"
}

// mustNotRestore restores to the end of the archive, which must fail and leave nothing that could be started, or that
// runs.
func (b *bench) mustNotRestore(t *testing.T, m *repo.Manifest) {
	t.Helper()
	dir := filepath.Join(pgtest.TempDir(t), "restored")
	r := b.reopen(t)
	plan, err := recovery.MakePlan(t.Context(), recovery.PlanOptions{Repo: r, Cluster: cluster, TargetDir: dir, Backup: m.BackupID})
	if err != nil {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a plan that failed wrote to the target: %v", err)
		}
		return
	}
	if _, err := recovery.Lay(t.Context(), plan, recovery.LayOptions{Repo: r, FetchCommand: b.options(t, 5).Fetch}); err != nil {
		if _, err := os.Stat(filepath.Join(dir, "global/pg_control")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a restore that failed left pg_control: %v", err)
		}
		return
	}
	s, err := recovery.Start(t.Context(), plan, recovery.StartOptions{SocketOnly: true})
	if err == nil {
		_ = s.Instance.Stop(context.Background(), pginstance.Immediate)
		t.Error("the restore succeeded")
		return
	}
	if list, err := pginstance.Running(dir); err != nil || len(list) > 0 {
		t.Errorf("a server runs: %v, %v", list, err)
	}
}
