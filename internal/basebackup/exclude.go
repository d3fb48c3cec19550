package basebackup

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// What BASE_BACKUP leaves out, so that a local source leaves out the same: excludeFiles, excludeDirContents and sendDir
// of PostgreSQL's backend/backup/basebackup.c, versions 15 to 18. Names count at any depth, as they do there. Since 17
// there is pg_wal/summaries, and global counts as a directory of relations.

// emptied are directories whose content is made anew by every start: they are kept, and empty.
var emptied = []string{"pg_stat_tmp", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_subtrans"}

// omitted are files, and omittedPrefix the beginnings of names, that a backup never has. backup_label and its like, if
// they lie in a running server's directory, are of another backup.
var (
	omitted = []string{
		"postgresql.auto.conf.tmp", "current_logfiles.tmp", "backup_label", "tablespace_map", "backup_manifest",
		"postmaster.pid", "postmaster.opts", ".DS_Store",
	}
	omittedPrefix = []string{"pgsql_tmp", "pg_internal.init"}
)

// omit tells whether a file or directory is left out for its name alone.
func omit(name string) bool {
	return slices.Contains(omitted, name) ||
		slices.ContainsFunc(omittedPrefix, func(p string) bool { return strings.HasPrefix(name, p) })
}

// Names of the files of relations (common/relpath.c, storage/file/reinit.c, storage/file/fd.c).
var (
	relationFile  = regexp.MustCompile(`^([0-9]+)(_fsm|_vm|_init)?(\.[0-9]+)?$`)
	temporaryFile = regexp.MustCompile(`^t[0-9]+_[0-9]+(_fsm|_vm|_init)?(\.[0-9]+)?$`)
	digits        = regexp.MustCompile(`^[0-9]+$`)
)

// tablespaceVersion is the directory in a tablespace that belongs to one version (TABLESPACE_VERSION_DIRECTORY).
func tablespaceVersion(major int, catalog uint32) string {
	return fmt.Sprintf("PG_%d_%d", major, catalog)
}

// directoryKind tells what a directory of the backup, named from the data directory, may hold: files of relations, and
// of temporary ones. version is the name that tablespaceVersion gives.
func directoryKind(dir, version string, major int) (relations, temporary bool) {
	if dir == "global" {
		return major >= 17, false
	}
	parent, name := path.Split(dir)
	parent = strings.TrimSuffix(parent, "/")
	database := digits.MatchString(name) && (parent == "base" || path.Base(parent) == version)
	return database, database
}

// unlogged finds the relations of a directory that have an init fork: after a restore they are empty, so that nothing
// but that fork is kept of them. names are all names of the directory.
func unlogged(names []string) map[string]bool {
	var found map[string]bool
	for _, name := range names {
		if number, ok := strings.CutSuffix(name, "_init"); ok && digits.MatchString(number) {
			if found == nil {
				found = map[string]bool{}
			}
			found[number] = true
		}
	}
	return found
}

// omitUnlogged tells whether a file is one of those of an unlogged relation that are left out.
func omitUnlogged(name string, unlogged map[string]bool) bool {
	m := relationFile.FindStringSubmatch(name)
	return m != nil && m[2] != "_init" && unlogged[m[1]]
}
