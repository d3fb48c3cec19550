package recovery

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"lifeboat/internal/pginstance"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal/walrecord"
)

// TablespaceMap says where one tablespace goes: Old is its location on the source or its OID, New an absolute path of an
// empty or missing directory.
type TablespaceMap struct{ Old, New string }

// Tablespace is a tablespace that a plan places outside of the target directory. Those that a plan does not list are
// laid below the target directory (R1).
type Tablespace struct {
	OID    uint32 `json:"oid"`
	Source string `json:"source"` // location on the source's host
	Place  string `json:"place"`  // absolute, where it is laid
	// Replayed tells that the backup does not have it: the WAL creates it at its own path, which the mapping gave free.
	Replayed bool `json:"replayed,omitempty"`
	// InPlace tells that Place is where the stopped server in the target directory has this very tablespace (--delta).
	InPlace bool `json:"inPlace,omitempty"`
}

func (t *Tablespace) oid() string { return strconv.FormatUint(uint64(t.OID), 10) }

// mapping resolves what was asked for against what the backup has and what the WAL creates.
type mapping struct {
	asked []TablespaceMap
	used  []bool
	known []string // of the backup and of the WAL, for the message
	live  *live    // nil unless restored in place
}

// mapTablespaces places the backup's tablespaces as asked. What remains may be of a tablespace that the WAL creates.
func (p *Plan) mapTablespaces(m *repo.Manifest, asked []TablespaceMap, lv *live) (*mapping, error) {
	mp := &mapping{asked: asked, used: make([]bool, len(asked)), live: lv}
	for _, t := range m.Tablespaces {
		oid := strconv.FormatUint(uint64(t.OID), 10)
		mp.known = append(mp.known, oid+" at "+t.Location)
		i, err := mp.find(t.Location, oid)
		if err != nil {
			return nil, err
		}
		switch {
		case i >= 0:
			to := filepath.Clean(asked[i].New)
			p.place(Tablespace{OID: t.OID, Source: t.Location, Place: to, InPlace: lv.has(t.OID, to)})
		case lv.holds(t.OID, m.PostgresMajor):
			p.place(Tablespace{OID: t.OID, Source: t.Location, Place: lv.places[t.OID], InPlace: true})
		}
	}
	return mp, nil
}

// place adds a tablespace, or replaces what stands for its OID.
func (p *Plan) place(t Tablespace) {
	p.Tablespaces = slices.DeleteFunc(p.Tablespaces, func(have Tablespace) bool { return have.OID == t.OID })
	p.Tablespaces = append(p.Tablespaces, t)
	slices.SortFunc(p.Tablespaces, func(a, b Tablespace) int { return strings.Compare(a.oid(), b.oid()) })
}

// find is the index of the mapping that names one of two names; -1 if none does.
func (mp *mapping) find(names ...string) (int, error) {
	found := -1
	for i, a := range mp.asked {
		if !slices.Contains(names, a.Old) && !slices.Contains(names, filepath.Clean(a.Old)) {
			continue
		}
		if found >= 0 {
			return -1, refuse("name each tablespace once", "tablespace %s is mapped twice, to %s and to %s", names[0], mp.asked[found].New, a.New)
		}
		found, mp.used[i] = i, true
	}
	return found, nil
}

// finish refuses a mapping that no tablespace answers to: a mistyped one must not be laid somewhere else in silence.
func (mp *mapping) finish() error {
	for i, a := range mp.asked {
		if mp.used[i] {
			continue
		}
		known := "it has none"
		if len(mp.known) > 0 {
			known = "it has " + strings.Join(mp.known, ", ")
		}
		return refuse("name a tablespace by its location on the source or by its OID",
			"the backup has no tablespace %s: %s", a.Old, known)
	}
	return nil
}

// created decides about a tablespace that the WAL to be replayed creates. PostgreSQL makes it at the path that the
// record names, whatever a mapping says, and wants to find that directory (create_tablespace_directories,
// tablespace.c). Where the path exists, replay would write there (R1); where it does not, replay fails. So only who names
// the very path, LOCATION=LOCATION, gives it free; it must then be empty or missing like every other place.
func (p *Plan) created(t *walrecord.TablespaceCreation, mp *mapping) error {
	path := t.Path
	if t.PathRaw != nil {
		path = string(t.PathRaw)
	}
	if path == "" { // in place: within the data directory
		p.InPlaceTablespaces = true
		return nil
	}
	again := func(have Tablespace) bool { return have.Replayed && have.Place == filepath.Clean(path) }
	if slices.ContainsFunc(p.Tablespaces, again) { // dropped and created anew at the same place
		return nil
	}
	oid := strconv.FormatUint(uint64(t.OID), 10)
	mp.known = append(mp.known, oid+" at "+path+" (created by the WAL)")
	i, err := mp.find(path, oid)
	if err != nil {
		return err
	}
	if i >= 0 && filepath.Clean(mp.asked[i].New) != filepath.Clean(path) {
		return refuse(fmt.Sprintf("only its own path can be given free: --tablespace %s=%s", path, path),
			"the WAL to be replayed creates tablespace %s, at %v: PostgreSQL creates it at %s and nowhere else", oid, t.LSN, path)
	}
	own := mp.live.has(t.OID, path)
	if i < 0 && !own {
		return refuseTablespace(t, path)
	}
	p.place(Tablespace{OID: t.OID, Source: path, Place: filepath.Clean(path), Replayed: true, InPlace: own})
	return nil
}

func refuseTablespace(t *walrecord.TablespaceCreation, path string) error {
	const otherwise = "restore from a backup that was taken after that, or to a target before it"
	switch _, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
		return refuse(fmt.Sprintf("%s, or give the path free with --tablespace %s=%s", otherwise, path, path),
			"the WAL to be replayed creates a tablespace at %s, at %v; that directory does not exist on this host, "+
				"so PostgreSQL could not replay it", path, t.LSN)
	}
	return refuse(fmt.Sprintf("%s, or on a host where nobody uses that path; if it is an empty directory, --tablespace %s=%s gives it free",
		otherwise, path, path),
		"the WAL to be replayed creates a tablespace at %s, at %v; that path exists on this host, and PostgreSQL would write there",
		path, t.LSN)
}

// checkPlaces refuses places of tablespaces that the plan must not write to, and such as lie within one another.
func (p *Plan) checkPlaces() error {
	type named struct{ what, path string }
	target, err := realPlace(p.TargetDir)
	if err != nil {
		return err
	}
	taken := []named{{"the target directory", target}}
	for i := range p.Tablespaces {
		t := &p.Tablespaces[i]
		what := fmt.Sprintf("tablespace %d", t.OID)
		if err := p.checkPlace(t); err != nil {
			return err
		}
		path, err := realPlace(t.Place)
		if err != nil {
			return err
		}
		for _, other := range taken {
			if within(other.path, path) || within(path, other.path) {
				return refuse("name places that do not lie within one another", "the place %s of %s and that of %s, %s, lie within one another",
					t.Place, what, other.what, other.path)
			}
		}
		taken = append(taken, named{what, path})
	}
	return nil
}

// checkPlace looks at one place: missing, empty, or begun by this very plan; or with --delta the live one.
func (p *Plan) checkPlace(t *Tablespace) error {
	what := fmt.Sprintf("place of tablespace %d", t.OID)
	if t.InPlace {
		return p.checkLivePlace(t)
	}
	if strings.ContainsAny(t.Place, "\r\n") {
		return refuse("", "the %s holds a line break", what)
	}
	marked, err := checkEmpty(t.Place, what)
	if err != nil || !marked {
		return err
	}
	// A marker is not enough here: it could be that of a whole restore.
	m, err := readMarker(t.Place)
	if err == nil && m.PlanHash != "" && m.Tablespace != t.oid() {
		return refuse("name an empty or missing directory", "the %s, %s, holds another restore: of %s, backup %s, plan %.12s",
			what, t.Place, m.Cluster, m.BackupID, m.PlanHash)
	}
	return nil
}

// checkLivePlace looks at a place that the stopped server in the target directory is said to have: its link or a marker
// must say so, and no other server on this host may use it, as the original of a copied data directory does.
func (p *Plan) checkLivePlace(t *Tablespace) error {
	if !isPlaceOf(t.Place, p.PostgresMajor) && !t.Replayed {
		return refuse("map it to an empty place", "%s holds no tablespace of PostgreSQL %d", t.Place, p.PostgresMajor)
	}
	lv, err := inspect(p.TargetDir, true)
	if err != nil {
		return err
	}
	if lv == nil || !lv.has(t.OID, t.Place) {
		return refuse("map it to an empty place", "tablespace %d of the server in %s is not at %s", t.OID, p.TargetDir, t.Place)
	}
	servers, err := pginstance.Running("/")
	if err != nil {
		return fmt.Errorf("find out who uses %s: %w", t.Place, err)
	}
	for _, s := range servers {
		links, _ := filepath.Glob(filepath.Join(s.DataDir, "pg_tblspc", "*"))
		for _, link := range links {
			if to, err := filepath.EvalSymlinks(link); err == nil && to == t.Place {
				return refuse("the target directory seems to be a copy: map the tablespace to an empty place",
					"%s is a tablespace of the server that runs in %s (process %d)", t.Place, s.DataDir, s.PID)
			}
		}
	}
	return nil
}

// realPlace is a path free of links, though its last part need not exist.
func realPlace(path string) (string, error) {
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", fmt.Errorf("look at %s: %w", path, err)
	}
	return filepath.Join(parent, filepath.Base(path)), nil
}

// versionDir is what PostgreSQL calls its own directory in a tablespace: PG_, the major version, the catalogue version
// (GetTablespacePath and TABLESPACE_VERSION_DIRECTORY, common/relpath.h).
var versionDir = regexp.MustCompile(`^PG_(\d+)_\d+$`)

// holdsTablespace tells whether a directory is somebody's tablespace.
func holdsTablespace(dir string) bool {
	names, err := os.ReadDir(dir)
	return err == nil && slices.ContainsFunc(names, func(n os.DirEntry) bool { return n.IsDir() && versionDir.MatchString(n.Name()) })
}

// isVersionDir tells whether a name in a tablespace's place is of a server of this major version. A place may also hold
// what a server before pg_upgrade had there, and file systems' own directories; those are not the restore's.
func isVersionDir(name string, major int) bool {
	m := versionDir.FindStringSubmatch(name)
	return m != nil && m[1] == strconv.Itoa(major)
}

// missing tells whether an error says that a path leads nowhere.
func missing(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }
