package pg

import (
	"os"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"
	"time"
)

func TestParseHistory(t *testing.T) {
	const file = "# a comment\n1\t0/3000098\tno recovery target specified\n\n2\t0/A000000\tbefore 2026-11-22 21:00:46+00\n  \n5 1/0\n"
	h, err := ParseHistory(7, []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	want := []HistoryEntry{
		{1, 0x3000098, "no recovery target specified"},
		{2, 0xA000000, "before 2026-11-22 21:00:46+00"},
		{5, 1 << 32, ""},
	}
	if h.Timeline != 7 || !reflect.DeepEqual(h.Entries, want) {
		t.Errorf("got %+v", h)
	}
	for name, bad := range map[string]string{
		"no number":         "x\t0/1\n",
		"timeline 0":        "0\t0/1\n",
		"timeline too high": "4294967296\t0/1\n",
		"negative":          "-1\t0/1\n",
		"no switch point":   "1\n",
		"bad switch point":  "1\t0x1\n",
		"not rising":        "2\t0/1\tx\n2\t0/2\tx\n",
		"falling":           "2\t0/1\tx\n1\t0/2\tx\n",
		"its own ancestor":  "7\t0/1\tx\n",
		"younger ancestor":  "8\t0/1\tx\n",
	} {
		if h, err := ParseHistory(7, []byte(bad)); err == nil {
			t.Errorf("%s: accepted as %+v", name, h)
		}
	}
}

func TestHistory_Queries(t *testing.T) {
	straight := History{Timeline: 3, Entries: []HistoryEntry{{1, 0x300, ""}, {2, 0x500, ""}}}
	// Told to follow timeline 2, which left 1 at 0x500, but stopped at 0x300.
	short := History{Timeline: 3, Entries: []HistoryEntry{{1, 0x500, ""}, {2, 0x300, ""}}}
	first := History{Timeline: 1}
	type state struct {
		tli Timeline
		lsn LSN
	}
	tests := []struct {
		name      string
		h         History
		ancestors []Ancestor
		at        map[LSN]Timeline
		contains  map[state]bool
		switches  map[Timeline]LSN // 0: none
	}{
		{
			"straight", straight,
			[]Ancestor{{1, 0, 0x300}, {2, 0x300, 0x500}, {3, 0x500, 0}},
			map[LSN]Timeline{0: 1, 0x2FF: 1, 0x300: 2, 0x4FF: 2, 0x500: 3, 1 << 40: 3},
			map[state]bool{
				{1, 0x2FF}: true, {1, 0x300}: true, {1, 0x301}: false, {2, 0x2FF}: false, {2, 0x300}: true,
				{2, 0x500}: true, {2, 0x501}: false, {3, 0x4FF}: false, {3, 0x500}: true, {3, 1 << 40}: true, {4, 0x100}: false,
			},
			map[Timeline]LSN{1: 0x300, 2: 0x500, 3: 0, 4: 0},
		},
		{
			"stopped before the child began", short,
			[]Ancestor{{1, 0, 0x300}, {3, 0x300, 0}},
			map[LSN]Timeline{0x2FF: 1, 0x300: 3, 0x400: 3, 0x500: 3},
			map[state]bool{{1, 0x300}: true, {1, 0x400}: false, {2, 0x300}: false, {2, 0x400}: false, {3, 0x300}: true},
			map[Timeline]LSN{1: 0x300, 2: 0x300, 3: 0},
		},
		{
			"timeline 1", first,
			[]Ancestor{{1, 0, 0}},
			map[LSN]Timeline{0: 1, 1 << 40: 1},
			map[state]bool{{1, 0}: true, {1, 1 << 40}: true, {2, 0}: false},
			map[Timeline]LSN{1: 0},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.h.Ancestors(); !reflect.DeepEqual(got, test.ancestors) {
				t.Errorf("ancestors %+v, want %+v", got, test.ancestors)
			}
			for lsn, want := range test.at {
				if got := test.h.TimelineAt(lsn); got != want {
					t.Errorf("timeline at %s: %d, want %d", lsn, got, want)
				}
			}
			for s, want := range test.contains {
				if got := test.h.Contains(s.tli, s.lsn); got != want {
					t.Errorf("contains %s on %d: %v", s.lsn, s.tli, got)
				}
			}
			for tli, want := range test.switches {
				if got, ok := test.h.SwitchPoint(tli); got != want || ok != (want != 0) {
					t.Errorf("switch point of %d: %s, %v", tli, got, ok)
				}
			}
		})
	}
}

func TestHistory_SegmentFile(t *testing.T) {
	const mib = 1 << 20
	h := History{Timeline: 4, Entries: []HistoryEntry{{1, 3*mib + 500, ""}, {2, 3*mib + 900, ""}, {3, 8 * mib, ""}}}
	want := []Timeline{1, 1, 1, 3, 3, 3, 3, 3, 4, 4}
	for n, tli := range want {
		if got := h.SegmentFile(uint64(n), mib); got != (Segment{tli, uint64(n)}) {
			t.Errorf("segment %d: %+v, want timeline %d", n, got, tli)
		}
	}
}

// A promoted server's own file, and what the server says about the switch.
func TestParseHistory_OfServer(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		c := newCluster(t, major)
		for tli := Timeline(2); tli <= 3; tli++ {
			// standby.signal without a primary: it reads what is there, and waits.
			if err := os.WriteFile(filepath.Join(c.data, "standby.signal"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			c.start("hot_standby=on", "restore_command=false")
			before, err := ParseLSN(c.sql("select pg_last_wal_replay_lsn()"))
			if err != nil {
				t.Fatal(err)
			}
			c.sql("select pg_promote()")
			c.sql("checkpoint")
			c.stop(syscall.SIGINT)
			b, err := os.ReadFile(filepath.Join(c.data, "pg_wal", tli.HistoryName()))
			if err != nil {
				t.Fatal(err)
			}
			h, err := ParseHistory(tli, b)
			if err != nil || len(h.Entries) != int(tli)-1 {
				t.Fatalf("%q: %+v, %v", b, h, err)
			}
			if at, ok := h.SwitchPoint(tli - 1); !ok || at != before {
				t.Errorf("switch point %s, replay had ended at %s", at, before)
			}
			if h.Entries[tli-2].Reason == "" {
				t.Errorf("no reason in %q", b)
			}
			// The WAL files that lie there are those that the history asks for.
			name := h.SegmentFile(uint64(before)/uint64(DefaultSegmentSize), DefaultSegmentSize).Name(DefaultSegmentSize)
			if _, err := os.Stat(filepath.Join(c.data, "pg_wal", name)); err != nil {
				t.Errorf("segment of the switch: %v", err)
			}
		}
	})
}

// The claim in the comment of History: a server that follows timeline 2, but stops
// before 2 began, names 2 as its parent at a switch point below that of 1.
func TestHistory_StoppedBeforeTheChildBegan(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		c := newCluster(t, major)
		archive := filepath.Join(c.root, "archive")
		makeOwnedDir(t, c, archive)
		archiving := []string{"archive_mode=on", "archive_command=cp %p " + archive + "/%f"}
		c.start(archiving...)
		restored := *c
		restored.data = filepath.Join(c.root, "restored")
		c.run("pg_basebackup", "-h", c.root, "-U", "postgres", "-D", restored.data, "-X", "none", "-c", "fast")
		c.sql("create table t(i int)")
		early := c.sql("select pg_create_restore_point('early')")
		c.sql("insert into t select generate_series(1, 1000)")
		c.stop(syscall.SIGINT)
		writeFile(t, c, filepath.Join(c.data, "standby.signal"))
		c.start(append(archiving, "restore_command=cp "+archive+"/%f %p")...)
		c.sql("select pg_promote()")
		c.sql("select pg_switch_wal()")
		c.stop(syscall.SIGINT) // timeline 2 is archived

		writeFile(t, c, filepath.Join(restored.data, "recovery.signal"))
		restored.start("recovery_target_timeline=2", "recovery_target_name=early", "recovery_target_action=promote",
			"archive_mode=off", "restore_command=cp "+archive+"/%f %p")
		restored.until("select pg_is_in_recovery()", "f")
		restored.stop(syscall.SIGINT)
		b, err := os.ReadFile(filepath.Join(restored.data, "pg_wal", Timeline(3).HistoryName()))
		if err != nil {
			t.Fatal(err)
		}
		h, err := ParseHistory(3, b)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%q", b)
		if len(h.Entries) != 2 || h.Entries[1].SwitchLSN >= h.Entries[0].SwitchLSN {
			t.Fatalf("switch points rise in %q: the special case is gone", b)
		}
		lsn, err := ParseLSN(early)
		if err != nil {
			t.Fatal(err)
		}
		if a := h.Ancestors(); len(a) != 2 || a[0].Timeline != 1 || a[0].End != lsn || a[1].Timeline != 3 {
			t.Errorf("ancestors %+v, want 1 up to %s, then 3", a, lsn)
		}
	})
}

func makeOwnedDir(t *testing.T, c *cluster, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if c.cred != nil {
		if err := os.Chown(dir, int(c.cred.Uid), int(c.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

func writeFile(t *testing.T, c *cluster, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if c.cred != nil {
		if err := os.Chown(path, int(c.cred.Uid), int(c.cred.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAncestors_OfALongHistory: a history file has up to a megabyte, and plans ask again and again.
func TestAncestors_OfALongHistory(t *testing.T) {
	const entries = 200_000
	h := History{Timeline: entries + 1}
	for i := range entries {
		h.Entries = append(h.Entries, HistoryEntry{Timeline: Timeline(i + 1), SwitchLSN: LSN(i + 1)})
	}
	began := time.Now()
	if got := len(h.Ancestors()); got != entries+1 {
		t.Fatalf("%d ancestors", got)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took) // 0.02 s; once it took the square of the entries
	}
}
