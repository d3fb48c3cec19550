package pginstance

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"lifeboat/internal/pg"
)

// ErrNoBinaries says that no server of the wanted major version was found on this host.
var ErrNoBinaries = errors.New("no PostgreSQL server programs")

// standardDirs are the places where packages put PostgreSQL's programs; {N} stands for the major version. Debian and
// Ubuntu, Red Hat (PGDG), a build from source, and the two places where Lifeboat unpacks a server for itself.
var standardDirs = []string{
	"/usr/lib/postgresql/{N}/bin",
	"/usr/pgsql-{N}/bin",
	"/usr/local/pgsql/bin",
	"/opt/pg/{N}/usr/lib/postgresql/{N}/bin",
	"/var/cache/lifeboat/pg/{N}/usr/lib/postgresql/{N}/bin",
}

// Binaries are the programs of one PostgreSQL installation. The zero value is not usable: get one from FindBinaries.
type Binaries struct {
	// Dir is the absolute directory of postgres, initdb and the others.
	Dir string
	// Major is the major version, such as 15.
	Major int
	// Version is what "postgres -V" prints after the name, such as "15.18 (Debian 15.18-0+deb12u1)".
	Version string
}

// Path returns the path of one program, such as Path("pg_basebackup"). It does not look whether it exists.
func (b Binaries) Path(program string) string { return filepath.Join(b.Dir, program) }

// FindBinaries looks for the server programs of a major version: in dirs first (each a bin directory, in which {N}
// stands for the major version), then where packages put them. The version is asked of "postgres -V", never taken from
// a name. The error wraps ErrNoBinaries, names what was looked at, and says what to install.
func FindBinaries(major int, dirs []string) (Binaries, error) {
	if err := pg.CheckMajor(major); err != nil {
		return Binaries{}, fmt.Errorf("find PostgreSQL %d: %w", major, err)
	}
	var looked []string
	for _, dir := range append(append([]string{}, dirs...), standardDirs...) {
		dir = strings.ReplaceAll(dir, "{N}", strconv.Itoa(major))
		b, err := inspect(dir)
		switch {
		case err == nil && b.Major == major:
			return b, nil
		case err == nil:
			looked = append(looked, fmt.Sprintf("%s (which is PostgreSQL %d)", dir, b.Major))
		case errors.Is(err, exec.ErrNotFound):
			looked = append(looked, dir)
		default:
			looked = append(looked, fmt.Sprintf("%s (%v)", dir, err))
		}
	}
	return Binaries{}, fmt.Errorf("find PostgreSQL %d: %w; looked in %s; install the package postgresql-%d "+
		"(apt-get install postgresql-%d), or name the directory that holds its postgres",
		major, ErrNoBinaries, strings.Join(looked, ", "), major, major)
}

// Installed returns the programs of every supported major version that FindBinaries finds, lowest first.
func Installed(dirs []string) []Binaries {
	var all []Binaries
	for major := pg.MinMajor; major <= pg.MaxMajor; major++ {
		if b, err := FindBinaries(major, dirs); err == nil {
			all = append(all, b)
		}
	}
	return all
}

var versionLine = regexp.MustCompile(`\(PostgreSQL\) ((\d+).*)`)

// inspect asks the postgres in dir for its version. The error is exec.ErrNotFound if there is none.
func inspect(dir string) (Binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Binaries{}, fmt.Errorf("inspect %s: %w", dir, err)
	}
	path := filepath.Join(dir, "postgres")
	if _, err := exec.LookPath(path); err != nil {
		return Binaries{}, exec.ErrNotFound
	}
	// "postgres -V" answers before anything is read or opened; the bound is for a dead network mount.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-V")
	cmd.Env = cleanEnv(dir, nil)
	out, err := cmd.Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("%s -V: %w", path, err)
	}
	m := versionLine.FindStringSubmatch(strings.TrimSpace(string(out)))
	if m == nil {
		return Binaries{}, fmt.Errorf("%s -V printed %q, which is no PostgreSQL version", path, out)
	}
	major, err := strconv.Atoi(m[2])
	if err != nil {
		return Binaries{}, fmt.Errorf("%s -V: %w", path, err)
	}
	return Binaries{Dir: dir, Major: major, Version: m[1]}, nil
}
