package basebackup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"lifeboat/dbcore"
	"lifeboat/internal/repo"
)

// Bounds of what is read of a configuration. The largest are lists of users in pg_hba.conf.
const (
	maxConfigFile  = 1 << 20
	maxConfigBytes = 16 << 20
	maxConfigFiles = 500
	maxConfigNames = 2000 // that are looked for, whether they are there or not
)

// settingsEntry is the file of a backup that holds the source's settings as the server told them.
const settingsEntry = repo.ConfigDir + "/settings.conf"

// ConfigurationGrants are the SQL commands that let a role read the server's configuration files, so that backups hold
// them (R4). They are to be run as a superuser, in the database that the cluster's dsn names: what may be executed is a
// matter of each database. A superuser needs none of them.
func ConfigurationGrants(role string) []string {
	role = `"` + strings.ReplaceAll(role, `"`, `""`) + `"`
	return []string{
		"GRANT pg_read_all_settings, pg_read_server_files TO " + role,
		"GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean), " +
			"pg_catalog.pg_ls_dir(text, boolean, boolean) TO " + role,
	}
}

// configuration is the source's configuration, read before its files are. Files that lie in the data directory are
// among them: those that are symbolic links there are in no base backup.
type configuration struct {
	repo.Configuration
	dataDir  string
	contents map[string][]byte // by path on the source's host
	settings []byte            // content of settingsEntry
}

// readConfiguration reads what the role may read (R4). It fails only if the server cannot be asked: what it refuses is
// listed in the result.
func readConfiguration(ctx context.Context, cfg dbcore.Config) (*configuration, error) {
	conn, err := dbcore.Connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	// A name in the configuration may lead to a pipe or a dead mount.
	if _, err := conn.Exec(ctx, "set statement_timeout = '20s'"); err != nil {
		return nil, err
	}
	s, err := readSettings(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	c := &configuration{contents: map[string][]byte{}, settings: s.text(), dataDir: s.value("data_directory")}
	c.DirectoryMode, c.Settings, c.References = s.directoryMode(), s.needed(), s.references()
	if !s.Privileged {
		c.Grants = ConfigurationGrants(s.Role)
	}
	r := configReader{ctx: ctx, conn: conn, out: c}
	for _, f := range []struct {
		setting string
		kind    configKind
	}{{"config_file", serverConfig}, {"hba_file", accessConfig}, {"ident_file", accessConfig}} {
		name := s.value(f.setting)
		if name == "" {
			c.unread(f.setting, "the server does not tell this role where the file is; it is in the backup if it lies in the data directory")
			continue
		}
		if err := r.file(f.kind, include{path: name}); err != nil {
			return nil, fmt.Errorf("read the configuration: %w", err)
		}
	}
	if c.dataDir != "" {
		if err := r.file(serverConfig, include{path: path.Join(c.dataDir, "postgresql.auto.conf"), optional: true}); err != nil {
			return nil, fmt.Errorf("read the configuration: %w", err)
		}
	}
	return c, nil
}

func (c *configuration) unread(name, reason string) {
	c.Unread = append(c.Unread, repo.UnreadFile{Path: name, Reason: reason})
}

// configReader reads files through the server.
type configReader struct {
	ctx   context.Context
	conn  *dbcore.Conn
	out   *configuration
	seen  map[string]bool
	bytes int
	full  bool // maxConfigNames are reached
}

// named reads what another file names. Of more names than anybody has, the rest is not looked for: each is a question
// to the server, and those that are not there are listed in the manifest.
func (r *configReader) named(kind configKind, in include) error {
	if len(r.seen) < maxConfigNames {
		return r.file(kind, in)
	}
	if !r.full && !r.seen[in.path] {
		r.full = true
		r.out.unread(in.path, fmt.Sprintf("the configuration names more than %d files: this and later ones were not looked for", maxConfigNames))
	}
	return nil
}

// file reads one file, and all that it includes.
func (r *configReader) file(kind configKind, in include) error {
	if r.seen[in.path] {
		return nil
	}
	if r.seen == nil {
		r.seen = map[string]bool{}
	}
	r.seen[in.path] = true
	if in.dir {
		return r.directory(kind, in.path)
	}
	content, err := dbcore.One[*[]byte](r.ctx, r.conn, "select pg_read_binary_file($1, 0, $2, true)", in.path, int64(maxConfigFile+1))
	switch {
	case refusedByServer(err):
		r.out.unread(in.path, err.Error())
		return nil
	case err != nil:
		return err
	case content == nil && in.optional:
		return nil
	case content == nil:
		r.out.unread(in.path, "it does not exist")
		return nil
	case len(*content) > maxConfigFile || r.bytes+len(*content) > maxConfigBytes || len(r.out.contents) == maxConfigFiles:
		r.out.unread(in.path, fmt.Sprintf("a backup holds configuration files of at most %d bytes each, %d in all and %d of them",
			maxConfigFile, maxConfigBytes, maxConfigFiles))
		return nil
	}
	r.out.contents[in.path] = *content
	r.bytes += len(*content)
	for _, next := range includesOf(kind, in.path, *content) {
		if err := r.named(kind, next); err != nil {
			return err
		}
	}
	return nil
}

// directory reads the files of an include_dir: those that end in .conf and do not begin with a dot (GetConfFilesInDir,
// conffiles.c).
func (r *configReader) directory(kind configKind, dir string) error {
	names, err := dbcore.Collect[string](r.ctx, r.conn, "select pg_ls_dir($1, true, false)", dir)
	if refusedByServer(err) {
		r.out.unread(dir, err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasSuffix(name, ".conf") && !strings.HasPrefix(name, ".") {
			if err := r.named(kind, include{path: path.Join(dir, name), optional: true}); err != nil {
				return err
			}
		}
	}
	return nil
}

// refusedByServer tells an answer of the server from a server that does not answer.
func refusedByServer(err error) bool { return dbcore.SQLState(err) != "" }

// copyWithConfiguration copies the data directory, and with it the configuration as it was before that.
func (a *attempt) copyWithConfiguration(ctx context.Context) error {
	c, err := readConfiguration(ctx, a.opts.Server)
	if err != nil {
		return err
	}
	if err := a.copyFiles(ctx); err != nil {
		return err
	}
	return a.storeConfiguration(ctx, c)
}

// storeConfiguration stores what the files of the data directory do not hold yet, and describes it in the manifest.
func (a *attempt) storeConfiguration(ctx context.Context, c *configuration) error {
	stored, taken, err := a.writer.Stored(c.inside(), repo.ConfigDir)
	if err != nil {
		return err
	}
	a.manifest.Configuration = &c.Configuration
	c.Unread = slices.DeleteFunc(c.Unread, func(u repo.UnreadFile) bool {
		rest, ok := c.within(u.Path) // the server would not read it out, and sent it with the data directory
		if ok && stored[rest] {
			c.Files = append(c.Files, repo.ConfigFile{Path: u.Path, Entry: rest})
		}
		return ok && stored[rest]
	})
	w := configWriter{attempt: a, dirs: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(c.contents)) {
		entry, ok := c.within(name)
		if !ok || !stored[entry] { // beside the data directory, or a link in it
			entry = path.Join(repo.ConfigDir, "files", name)
			if taken || repo.CheckPath(entry) != nil {
				c.unread(name, "it cannot be stored under the name "+entry)
				continue
			}
			if err := w.write(ctx, entry, c.contents[name]); err != nil {
				return err
			}
		}
		c.Files = append(c.Files, repo.ConfigFile{Path: name, Entry: entry})
	}
	slices.SortFunc(c.Files, func(x, y repo.ConfigFile) int { return strings.Compare(x.Path, y.Path) })
	for _, u := range c.Unread {
		a.opts.Logger.Warn("a part of the configuration is not in the backup", "path", u.Path, "reason", u.Reason)
	}
	if taken { // the data directory holds something of this name
		return nil
	}
	return w.write(ctx, settingsEntry, c.settings)
}

// within tells the path of a file below the data directory.
func (c *configuration) within(name string) (rest string, ok bool) {
	if c.dataDir == "" {
		return "", false
	}
	return strings.CutPrefix(name, c.dataDir+"/")
}

// inside lists the files that may have come with the data directory.
func (c *configuration) inside() []string {
	var out []string
	for name := range c.contents {
		if rest, ok := c.within(name); ok {
			out = append(out, rest)
		}
	}
	for _, u := range c.Unread {
		if rest, ok := c.within(u.Path); ok {
			out = append(out, rest)
		}
	}
	return out
}

// configWriter adds files with the directories above them.
type configWriter struct {
	*attempt
	dirs map[string]bool
}

func (w *configWriter) write(ctx context.Context, name string, content []byte) error {
	for dir := path.Dir(name); dir != "." && !w.dirs[dir]; dir = path.Dir(dir) {
		w.dirs[dir] = true
		if err := w.writer.Add(repo.Entry{Path: dir, Type: repo.TypeDir, Mode: 0o700, ModTime: w.started}); err != nil {
			return err
		}
	}
	if err := w.file(ctx, repo.Entry{Path: name, Mode: 0o600, ModTime: w.started}, bytes.NewReader(content)); err != nil {
		return errors.Join(fmt.Errorf("store %s", name), err)
	}
	return nil
}
