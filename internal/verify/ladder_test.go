package verify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/internal/pgtest"
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
func prepared(t *testing.T, opt pgtest.Options) (*bench, []*repo.Manifest) {
	t.Helper()
	opt.Checksums, opt.Settings = true, map[string]string{"restore_command": "false"}
	b := newBench(t, opt)
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
	b, backups := prepared(t, pgtest.Options{})
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
