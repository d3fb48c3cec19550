package pgtest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"lifeboat/internal/pg"
	"lifeboat/internal/pginstance"
)

// dirs are where servers are looked for besides the usual places.
func dirs() []string { return filepath.SplitList(os.Getenv("LIFEBOAT_TEST_PG_DIRS")) }

var installed = sync.OnceValue(func() []pginstance.Binaries { return pginstance.Installed(dirs()) })

// Majors returns the installed major versions, lowest first. With none installed the test fails: a green run in which
// nothing was tested would be a lie.
func Majors(t testing.TB) []int {
	t.Helper()
	var majors []int
	for _, b := range installed() {
		majors = append(majors, b.Major)
	}
	if len(majors) == 0 {
		_, err := pginstance.FindBinaries(pg.MinMajor, dirs())
		t.Fatalf("pgtest: the tests need a PostgreSQL server: %v", err)
	}
	return majors
}

// ForEachMajor runs f as a subtest for every supported major version. A version that is not installed is a skipped
// subtest, which says what to install.
func ForEachMajor(t *testing.T, f func(t *testing.T, major int)) {
	t.Helper()
	Majors(t)
	for major := pg.MinMajor; major <= pg.MaxMajor; major++ {
		t.Run(fmt.Sprintf("pg%d", major), func(t *testing.T) {
			Binaries(t, major)
			f(t, major)
		})
	}
}

// Binaries returns the programs of a major version; 0 means the lowest installed. A missing version skips the test.
func Binaries(t testing.TB, major int) pginstance.Binaries {
	t.Helper()
	if major == 0 {
		major = Majors(t)[0]
	}
	for _, b := range installed() {
		if b.Major == major {
			return b
		}
	}
	_, err := pginstance.FindBinaries(major, dirs())
	t.Skipf("pgtest: PostgreSQL %d is not tested: %v", major, err)
	return pginstance.Binaries{}
}

// Owner returns the operating-system user that servers run as: postgres when the tests run as root, else their own.
func Owner(t testing.TB) pginstance.Owner {
	t.Helper()
	o, err := pginstance.LookupOwner("")
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	return o
}
