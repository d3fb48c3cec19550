package migrate

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"sort"
	"strings"

	"github.com/golang-migrate/migrate/v4/source"
)

// Direction is up or down.
type Direction string

// The directions.
const (
	Up   Direction = "up"
	Down Direction = "down"
)

// file is one version of the source.
type file struct {
	version  int64
	title    string
	up, down *script // down is nil if there is none
}

// script is the text of one direction of a version.
type script struct {
	name     string
	text     string
	checksum string

	stmts        []*stmt
	directives   directives
	parseErr     error // the grammar does not know it; stmts are then what the scanner found
	bracketed    bool  // it was written as BEGIN; ...; COMMIT;
	irreversible string
}

// readSource reads all files, lowest version first. Names are golang-migrate's; a .sql file that is not named so is an
// error, where golang-migrate passes it over in silence.
func readSource(fsys fs.FS) ([]*file, error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSource, err)
	}
	byVersion := map[int64]*file{}
	var problems []error
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".sql") {
			continue
		}
		if err := readFile(fsys, e.Name(), byVersion); err != nil {
			problems = append(problems, err)
		}
	}
	files := make([]*file, 0, len(byVersion))
	for _, f := range byVersion {
		if f.up == nil {
			problems = append(problems, fmt.Errorf("%s has no up file beside it", f.down.name))
		}
		files = append(files, f)
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("%w: %w", ErrSource, errors.Join(problems...))
	}
	sort.Slice(files, func(i, j int) bool { return files[i].version < files[j].version })
	return files, nil
}

func readFile(fsys fs.FS, name string, byVersion map[int64]*file) error {
	m, err := source.DefaultParse(name)
	if err != nil {
		return fmt.Errorf("%s: the name is not NUMBER_title.up.sql or NUMBER_title.down.sql", name)
	}
	if uint64(m.Version) > math.MaxInt64 {
		return fmt.Errorf("%s: the number does not fit the bigint of the version table", name)
	}
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	version := int64(m.Version)
	f := byVersion[version]
	if f == nil {
		f = &file{version: version, title: m.Identifier}
		byVersion[version] = f
	}
	s := newScript(name, data)
	slot := &f.up
	if m.Direction == source.Down {
		slot = &f.down
	}
	if *slot != nil {
		return fmt.Errorf("%s and %s have the same version", (*slot).name, name)
	}
	*slot = s
	if m.Direction == source.Up {
		f.title = m.Identifier
	}
	return nil
}

// newScript normalises what version control may change (line ends, byte order mark), so that a checkout on another
// system has the same checksum.
func newScript(name string, data []byte) *script {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	sum := sha256.Sum256(data)
	s := &script{name: name, text: string(data), checksum: hex.EncodeToString(sum[:])}
	s.parse()
	return s
}

// gaps returns the versions before which numbers are missing. Versions that are points in time (from 10^9 on: Unix
// seconds, or 14 digits of a date) have no row to be missing in. Otherwise the smallest step between two files is the
// step of the row: 1, 2, 4 lacks 3, and 10, 20, 30 lacks nothing. The row may begin anywhere.
func gaps(files []*file) []int64 {
	const timestamps = 1_000_000_000
	step := int64(math.MaxInt64)
	last := int64(0)
	for _, f := range files {
		if d := f.version - last; f.version < timestamps && d > 0 {
			step = min(step, d)
		}
		last = f.version
	}
	var found []int64
	for i := 1; i < len(files); i++ {
		if v := files[i].version; v < timestamps && v-files[i-1].version > step {
			found = append(found, v)
		}
	}
	return found
}
