package verify_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"lifeboat/dbcore"
	"lifeboat/internal/pgtest"
	"lifeboat/internal/verify"
)

func connect(t *testing.T, s *pgtest.Server) *dbcore.Conn {
	t.Helper()
	cfg, err := dbcore.ParseDSN(s.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dbcore.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func wants(t *testing.T, f verify.Finding, want verify.Outcome, observed string) {
	t.Helper()
	if f.Outcome != want || !strings.Contains(f.Observed, observed) {
		t.Errorf("%s: %s, %q; want %s with %q", f.ID, f.Outcome, f.Observed, want, observed)
	}
}

func flip(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], offset)
	b[0] ^= 0x40
	_, werr := f.WriteAt(b[:], offset)
	if err := errors.Join(err, werr); err != nil {
		t.Fatal(err)
	}
}

// TestSQL_Outcomes: what the owner's queries can end in.
func TestSQL_Outcomes(t *testing.T) {
	s := pgtest.New(t, pgtest.Options{})
	s.Exec(t, "create table n as select g::bigint as i from generate_series(1, 3) g")
	conn := connect(t, s)
	for _, tt := range []struct {
		sql, expect string
		want        verify.Outcome
		observed    string
	}{
		{"select count(*) from n", "3", verify.Passed, "3"},
		{"select sum(i) from n", "6", verify.Passed, "6"}, // numeric
		{"select 12345678901234567890.50", "12345678901234567890.50", verify.Passed, ""},
		{"select true", "true", verify.Passed, ""},
		{"select 1000000::float8", "1000000", verify.Passed, ""},
		{"select null::text", "", verify.Passed, ""},
		{"show server_encoding", "UTF8", verify.Passed, ""},
		{"select count(*) from n", "4", verify.Failed, "3"},
		{"select count(*) from gone", "3", verify.Failed, "gone"},
		{"select i from n", "1", verify.Failed, "one row"},
		{"select i, i from n limit 1", "1", verify.Failed, "2 columns"},
		{"select i from n where false", "", verify.Failed, "no row"},
		{"delete from n returning 1", "1", verify.Failed, "read-only"},
		{"select array[1, 2]", "{1,2}", verify.Unable, "::text"},
		{"select 1/0", "", verify.Failed, "division by zero"},
	} {
		f := verify.SQL(t.Context(), conn, verify.Check{Name: tt.sql, SQL: tt.sql, Expect: tt.expect})
		wants(t, f, tt.want, tt.observed)
		if f.Level != 7 || f.Took <= 0 {
			t.Errorf("%+v", f)
		}
	}
	if got := s.SQL(t, "select count(*) from n"); got != "3" {
		t.Errorf("the checks changed the data: %s rows", got)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	wants(t, verify.SQL(ended, connect(t, s), verify.Check{SQL: "select 1", Expect: "1"}), verify.Unable, "")
	wants(t, verify.Catalog(t.Context(), connect(t, s)), verify.Passed, "0 invalid indexes")
	s.Exec(t, "create index broken on n (i)")
	s.Exec(t, "update pg_index set indisvalid = false where indexrelid = 'broken'::regclass")
	wants(t, verify.Catalog(t.Context(), connect(t, s)), verify.Failed, "1 invalid indexes")
	lost := connect(t, s)
	s.Kill(t)
	wants(t, verify.SQL(t.Context(), lost, verify.Check{SQL: "select 1", Expect: "1"}), verify.Unable, "")
	wants(t, verify.Catalog(t.Context(), lost), verify.Unable, "")
}

// TestTools_FindSeededCorruption: each check finds what it is there to find (invariant 8).
func TestTools_FindSeededCorruption(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		s := pgtest.New(t, pgtest.Options{Major: major, Checksums: true})
		owner := pgtest.Owner(t)
		s.Exec(t, "create table victim as select g as i, repeat('x', 100) as v from generate_series(1, 2000) g")
		s.Exec(t, "create index victim_i on victim (i)")
		s.Exec(t, "checkpoint")
		table := filepath.Join(s.DataDir, s.SQL(t, "select pg_relation_filepath('victim')"))
		index := filepath.Join(s.DataDir, s.SQL(t, "select pg_relation_filepath('victim_i')"))

		t.Run("manifest", func(t *testing.T) {
			dir := filepath.Join(pgtest.TempDir(t), "backup")
			s.Run(t, "pg_basebackup", "-d", s.DSN(""), "-D", dir, "-c", "fast", "-X", "none")
			verifyIt := func(ignore ...string) verify.Finding {
				return verify.Manifest(t.Context(), s.Bin, owner, dir, ignore)
			}
			wants(t, verifyIt(), verify.Passed, "successfully verified")
			if err := os.WriteFile(filepath.Join(dir, "extra"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
			wants(t, verifyIt(), verify.Failed, "extra")
			wants(t, verifyIt("extra"), verify.Passed, "")
			flip(t, filepath.Join(dir, s.SQL(t, "select pg_relation_filepath('victim')")), 9000)
			wants(t, verifyIt("extra"), verify.Failed, "checksum mismatch")
			if err := os.Remove(filepath.Join(dir, "backup_manifest")); err != nil {
				t.Fatal(err)
			}
			wants(t, verifyIt("extra"), verify.Failed, "backup_manifest")
		})
		wants(t, verify.Checksums(t.Context(), s.Bin, owner, s.DataDir, true), verify.Unable, "must be shut down")
		wants(t, verify.Amcheck(t.Context(), s.Bin, owner, s.Instance(), "postgres"), verify.Passed, "")
		wants(t, verify.Amcheck(t.Context(), s.Bin, owner, s.Instance(), "nobody"), verify.Unable, "nobody")

		// An index as it was before the last rows came: each page of it is whole, but rows are not in it.
		s.Stop(t)
		wants(t, verify.Checksums(t.Context(), s.Bin, owner, s.DataDir, true), verify.Passed, "")
		old, err := os.ReadFile(index)
		if err != nil {
			t.Fatal(err)
		}
		s.Start(t)
		s.Exec(t, "insert into victim values (7, 'late')")
		s.Stop(t)
		if err := os.WriteFile(index, old, 0); err != nil {
			t.Fatal(err)
		}
		s.Start(t)
		wants(t, verify.Amcheck(t.Context(), s.Bin, owner, s.Instance(), "postgres"), verify.Failed, "victim")
		s.Stop(t)
		wants(t, verify.Checksums(t.Context(), s.Bin, owner, s.DataDir, true), verify.Passed, "")
		flip(t, table, 8192+4000)
		wants(t, verify.Checksums(t.Context(), s.Bin, owner, s.DataDir, true), verify.Failed, "checksum verification failed")
	})
}
