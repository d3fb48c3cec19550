package pginstance_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
	"lifeboat/internal/pgtest"
)

// fakePostgres lays a program that prints a version.
func fakePostgres(t *testing.T, dir, script string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "postgres"), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestFindBinaries(t *testing.T) {
	pgtest.ForEachMajor(t, func(t *testing.T, major int) {
		want := pgtest.Binaries(t, major)
		got, err := pginstance.FindBinaries(major, []string{"/nowhere", want.Dir})
		if err != nil {
			t.Fatal(err)
		}
		if got.Dir != want.Dir || got.Major != major || !strings.HasPrefix(got.Version, itoa(major)) {
			t.Errorf("FindBinaries = %+v", got)
		}
		if _, err := os.Stat(got.Path("initdb")); err != nil {
			t.Error(err)
		}
	})
}

// The version counts, not the name of the directory; the caller's directories come first; {N} is the major version.
func TestFindBinariesByVersion(t *testing.T) {
	dir := t.TempDir()
	fakePostgres(t, dir+"/17/bin", "echo 'postgres (PostgreSQL) 16.99 (Fake)'")
	fakePostgres(t, dir+"/16/bin", "echo 'postgres (PostgreSQL) 16.3'")
	got, err := pginstance.FindBinaries(16, []string{dir + "/17/bin", dir + "/{N}/bin"})
	if err != nil || got.Dir != dir+"/17/bin" || got.Version != "16.99 (Fake)" {
		t.Errorf("FindBinaries = %+v, %v", got, err)
	}
	got, err = pginstance.FindBinaries(16, []string{dir + "/{N}/bin"})
	if err != nil || got.Dir != dir+"/16/bin" {
		t.Errorf("FindBinaries = %+v, %v", got, err)
	}
	all := pginstance.Installed([]string{dir + "/{N}/bin"})
	if !slices.Contains(all, got) {
		t.Errorf("Installed = %+v, without %+v", all, got)
	}
	if !slices.IsSortedFunc(all, func(a, b pginstance.Binaries) int { return a.Major - b.Major }) {
		t.Errorf("Installed is not sorted: %+v", all)
	}
}

func TestFindBinariesErrors(t *testing.T) {
	dir := t.TempDir()
	fakePostgres(t, dir+"/other", "echo 'postgres (PostgreSQL) 15.1'")
	fakePostgres(t, dir+"/garbage", "echo hello")
	fakePostgres(t, dir+"/failing", "exit 3")
	if len(pginstance.Installed(nil)) == pg.MaxMajor-pg.MinMajor+1 {
		t.Skip("every version is installed: none can be missed")
	}
	missing := pg.MinMajor
	for _, b := range pginstance.Installed(nil) {
		if b.Major == missing {
			missing++
		}
	}
	_, err := pginstance.FindBinaries(missing, []string{dir + "/other", dir + "/garbage", dir + "/failing", dir + "/absent"})
	if !errors.Is(err, pginstance.ErrNoBinaries) {
		t.Fatalf("error %v, want ErrNoBinaries", err)
	}
	for _, want := range []string{
		dir + "/other (which is PostgreSQL 15)", "hello", "exit status 3", dir + "/absent,",
		"/usr/lib/postgresql/" + itoa(missing) + "/bin", "apt-get install postgresql-" + itoa(missing),
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	var unsupported *pg.UnsupportedVersionError
	if _, err := pginstance.FindBinaries(14, nil); !errors.As(err, &unsupported) {
		t.Errorf("version 14: %v", err)
	}
}

func TestLookupOwner(t *testing.T) {
	o, err := pginstance.LookupOwner("")
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if o.UID != os.Geteuid() || o.GID != os.Getegid() || o.SysProcAttr().Credential != nil {
			t.Errorf("as an ordinary user: %+v", o)
		}
		return
	}
	if o.Name != pginstance.DefaultOwner || o.UID == 0 || int(o.SysProcAttr().Credential.Uid) != o.UID {
		t.Errorf("as root: %+v", o)
	}
	if _, err := pginstance.LookupOwner("nobody-of-this-name"); err == nil || !strings.Contains(err.Error(), "install") {
		t.Errorf("unknown user: %v", err)
	}
	if _, err := pginstance.LookupOwner("root"); err == nil || !strings.Contains(err.Error(), "root") {
		t.Errorf("root: %v", err)
	}
}
