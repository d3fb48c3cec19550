package wal_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/pg"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

func TestMain(m *testing.M) {
	code := pgtest.Main(m)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

const mib = 1 << 20

// depot is a repository in memory whose faults a test can script.
type depot struct {
	*repo.Repository
	store *fault.Store
	inner *mem.Store
}

func newDepot(t testing.TB) *depot {
	t.Helper()
	d := &depot{inner: mem.New()}
	d.store = fault.New(d.inner)
	var err error
	if d.Repository, err = repo.OpenOrCreate(t.Context(), d.store); err != nil {
		t.Fatal(err)
	}
	return d
}

// keys are all keys of the store.
func (d *depot) keys(t testing.TB) []string {
	t.Helper()
	var keys []string
	for info, err := range d.inner.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// allFaultsHappened fails the test if a scripted fault was never met.
func (d *depot) allFaultsHappened(t testing.TB) {
	t.Helper()
	if unused := d.store.Unused(); len(unused) > 0 {
		t.Errorf("faults that did not happen: %v", unused)
	}
}

// identify makes the cluster known, without WAL.
func (d *depot) identify(t testing.TB, size pg.SegmentSize) {
	t.Helper()
	if err := d.ClaimIdentity(t.Context(), "c1", repo.Identity{SystemID: 7, WALSegmentSize: size}); err != nil {
		t.Fatal(err)
	}
}

// put stores WAL files by name, past the checks of Push.
func (d *depot) put(t testing.TB, data []byte, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := d.PutWAL(t.Context(), "c1", repo.WALHeader{Name: name}, data, repo.Zstd); err != nil {
			t.Fatal(err)
		}
	}
}

// spoil flips a bit in the middle of every object whose key contains part.
func (d *depot) spoil(t testing.TB, part string) {
	t.Helper()
	spoilt := 0
	for _, key := range d.keys(t) {
		if !strings.Contains(key, part) {
			continue
		}
		body, err := blob.ReadAll(t.Context(), d.inner, key, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		body[len(body)/2] ^= 1
		if err := blob.PutBytes(t.Context(), d.inner, key, body); err != nil {
			t.Fatal(err)
		}
		spoilt++
	}
	if spoilt == 0 {
		t.Fatalf("no key contains %s", part)
	}
}

// corpus is WAL that real servers archived.
type corpus struct {
	files   map[string][]byte         // of one server with segments of 1 MiB, on timelines 1 and 2
	foreign map[string][]byte         // of another
	sized   map[int]map[string][]byte // by segment size in MiB
}

// of lists the names of one kind and timeline, ascending.
func (c *corpus) of(kind pg.WALFileKind, tli pg.Timeline) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.files)), func(name string) bool {
		f, err := pg.ParseWALFileName(name)
		return err != nil || f.Kind != kind || f.Timeline != tli
	})
}

var theCorpus = sync.OnceValue(func() *corpus {
	return &corpus{sized: map[int]map[string][]byte{}}
})

// archived returns the corpus, and makes it when it is first asked for.
func archived(t testing.TB) *corpus {
	t.Helper()
	c := theCorpus()
	if c.files == nil {
		c.files = archiveOf(t, 1, true)
		c.foreign = archiveOf(t, 1, false)
	}
	return c
}

// archiveOf runs a server that archives by cp, and returns what it archived. With promote it is promoted to timeline 2.
func archiveOf(t testing.TB, sizeMB int, promote bool) map[string][]byte {
	t.Helper()
	dir := pgtest.TempDir(t)
	s := pgtest.New(t, pgtest.Options{
		WALSegSizeMB: sizeMB, OwnIdentity: true,
		Archive: func(*pgtest.Server) string { return "cp %p " + dir + "/%f" },
	})
	finish := func() {
		last := s.SQL(t, "select pg_walfile_name(pg_switch_wal())")
		pgtest.Eventually(t, "archived "+last, func() bool {
			return s.SQL(t, "select coalesce(max(last_archived_wal), '') from pg_stat_archiver") >= last
		})
	}
	s.Exec(t, "create table t as select g, md5(g::text) from generate_series(1, 30000) g")
	if promote {
		s.Run(t, "pg_basebackup", "-d", s.DSN(""), "-D", filepath.Join(dir, "backup"), "-X", "none", "-c", "fast", "--no-manifest")
	}
	finish()
	if promote {
		s.Exec(t, "insert into t select 1, 'x'")
		s.Stop(t)
		signal := filepath.Join(s.DataDir, "recovery.signal")
		if err := os.WriteFile(signal, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := pgtest.Owner(t).Chown(signal); err != nil {
			t.Fatal(err)
		}
		conf, err := os.OpenFile(filepath.Join(s.DataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conf, "restore_command = 'cp %s/%%f %%p'\n", dir)
		if err := conf.Close(); err != nil {
			t.Fatal(err)
		}
		s.Start(t)
		s.Exec(t, "create table t2 as select g, md5(g::text) from generate_series(1, 30000) g")
		finish()
	}
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// push archives a file of that name and content.
func (d *depot) push(t testing.TB, name string, data []byte) (wal.PushResult, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return wal.Push(t.Context(), wal.PushOptions{Repo: d.Repository, Cluster: "c1", Path: path})
}
