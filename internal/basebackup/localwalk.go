package basebackup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"lifeboat/internal/repo"
)

// member is a file or a directory that belongs into a backup.
type member struct {
	name string // in the backup: relative to the data directory, with slashes
	path string // on this host
	info fs.FileInfo
}

func (m *member) entry() repo.Entry {
	return repo.Entry{Path: m.name, Mode: m.info.Mode().Perm(), ModTime: m.info.ModTime()}
}

// walker finds what BASE_BACKUP would send of a running server's files, but global/pg_control, which is for last. What
// vanishes while it looks is passed over: replay knows of it.
type walker struct {
	ctx     context.Context
	dir     string // the data directory
	major   int
	version string // tablespaceVersion
	// inside names directories below the data directory that are tablespaces by a link as well: they come through it.
	inside []string
	skip   func(name, why string) // told of what is left out for what it is
	visit  func(member) error     // called for directories before their content, and for regular files
	made   func(repo.Entry) error // called for directories that the backup has whatever lies there
}

// tablespace is a link in pg_tblspc. Tablespaces that lie in place (allow_in_place_tablespaces) are directories there
// and part of the data directory.
type tablespaceLink struct {
	oid      string
	location string
}

// tablespaceLinks lists the links of a data directory.
func tablespaceLinks(dir string) (links []tablespaceLink, err error) {
	const under = "pg_tblspc"
	entries, err := os.ReadDir(filepath.Join(dir, under))
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 || !digits.MatchString(e.Name()) {
			continue
		}
		at, err := os.Readlink(filepath.Join(dir, under, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // dropped meanwhile
		}
		if err != nil {
			return nil, err
		}
		links = append(links, tablespaceLink{oid: e.Name(), location: at})
	}
	return links, nil
}

// insideOf names those locations that lie below the data directory, relative to it. The server warns of such tablespaces
// and makes them all the same.
func insideOf(dir string, links []tablespaceLink) (inside []string) {
	for _, l := range links {
		if rel, err := filepath.Rel(dir, l.location); err == nil && filepath.IsLocal(rel) && rel != "." {
			inside = append(inside, filepath.ToSlash(rel))
		}
	}
	return inside
}

// walk visits everything.
func (w *walker) walk(links []tablespaceLink) error {
	if err := w.directory("", w.dir); err != nil {
		return err
	}
	for _, l := range links {
		if err := w.tablespace(l); err != nil {
			return err
		}
	}
	return nil
}

// tablespace visits the directory in a tablespace that belongs to this server's version.
func (w *walker) tablespace(l tablespaceLink) error {
	name := "pg_tblspc/" + l.oid
	if err := w.made(repo.Entry{Path: name, Type: repo.TypeDir, Mode: 0o700}); err != nil {
		return err
	}
	name += "/" + w.version
	at := filepath.Join(w.dir, filepath.FromSlash(name))
	info, err := os.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return w.dropped(l)
	}
	if err != nil {
		return err
	}
	if err := w.visit(member{name, at, info}); err != nil {
		return err
	}
	return w.directory(name, at)
}

// dropped tells a tablespace that is being dropped from one that this process cannot see, because its file system is not
// mounted here: a backup without it would restore as a server with missing tables.
func (w *walker) dropped(l tablespaceLink) error {
	gone := func() (bool, error) {
		_, err := os.Lstat(filepath.Join(w.dir, "pg_tblspc", l.oid))
		return errors.Is(err, fs.ErrNotExist), nil
	}
	if ok, err := again(w.ctx, gone); ok || err != nil {
		return err
	}
	return &DirectoryError{
		Path: l.location, Reason: fmt.Sprintf("tablespace %s has no directory %s that could be seen here", l.oid, w.version),
		Hint: "mount it for this process at the same path as for the server, or empty data_directory to back up by the replication protocol",
	}
}

// directory visits what is in a directory, "" being the data directory itself.
func (w *walker) directory(name, at string) error {
	names, err := readNames(at)
	if errors.Is(err, fs.ErrNotExist) && name != "" {
		return nil
	}
	if err != nil {
		return err
	}
	relations, temporary := directoryKind(name, w.version, w.major)
	var init map[string]bool
	if relations {
		init = unlogged(names)
	}
	for _, n := range names {
		if err := context.Cause(w.ctx); err != nil {
			return err
		}
		if omit(n) || relations && omitUnlogged(n, init) || temporary && temporaryFile.MatchString(n) {
			continue
		}
		if err := w.one(n, join(name, n), filepath.Join(at, n)); err != nil {
			return err
		}
	}
	return nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// one visits a single name of a directory.
func (w *walker) one(base, name, at string) error {
	info, err := os.Lstat(at)
	switch {
	case errors.Is(err, fs.ErrNotExist), name == controlFile:
		return nil
	case err != nil:
		return err
	case name == "pg_wal":
		return w.wal(info)
	case slices.Contains(emptied, base):
		return w.made(emptyDir(name, info))
	case info.IsDir():
		if err := w.visit(member{name, at, info}); err != nil || slices.Contains(w.inside, name) {
			return err
		}
		return w.directory(name, at)
	case info.Mode().IsRegular():
		return w.visit(member{name, at, info})
	case info.Mode()&fs.ModeSymlink != 0 && strings.HasPrefix(name, "pg_tblspc/"):
		return nil // tablespace visits it
	}
	w.skip(name, "it is no regular file: "+info.Mode().Type().String())
	return nil
}

// wal makes pg_wal an empty directory, also where it is a link: the WAL comes from the archive.
func (w *walker) wal(info fs.FileInfo) error {
	names := []string{"pg_wal", "pg_wal/archive_status"}
	if w.major >= 17 {
		names = append(names, "pg_wal/summaries")
	}
	for _, name := range names {
		if err := w.made(emptyDir(name, info)); err != nil {
			return err
		}
	}
	return nil
}

// emptyDir is the entry of a directory whose content is left out. A link becomes a directory.
func emptyDir(name string, info fs.FileInfo) repo.Entry {
	mode := info.Mode().Perm()
	if info.Mode()&fs.ModeSymlink != 0 {
		mode = 0o700
	}
	return repo.Entry{Path: name, Type: repo.TypeDir, Mode: mode, ModTime: info.ModTime()}
}
