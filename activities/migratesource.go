package activities

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"lifeboat/dbcore"
	"lifeboat/dbcore/migrate"
	"lifeboat/internal/contract"
)

// sqlFiles is a folder of migration files in memory. It has no folders in it.
type sqlFiles []contract.MigrationFile

// Open gives the folder itself, or one file.
func (list sqlFiles) Open(name string) (fs.File, error) {
	if name == "." {
		return &openFolder{files: list}, nil
	}
	for _, f := range list {
		if f.Name == name {
			return &openFile{Reader: strings.NewReader(f.Text), info: fileInfo{f}}, nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

type openFolder struct {
	files sqlFiles // that were not read yet
}

func (d *openFolder) Stat() (fs.FileInfo, error) { return folderInfo{}, nil }
func (d *openFolder) Close() error               { return nil }
func (d *openFolder) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: ".", Err: fs.ErrInvalid}
}

// ReadDir gives the next n files, or all that are left.
func (d *openFolder) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(d.files) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(d.files) {
		n = len(d.files)
	}
	out := make([]fs.DirEntry, n)
	for i, f := range d.files[:n] {
		out[i] = fs.FileInfoToDirEntry(fileInfo{f})
	}
	d.files = d.files[n:]
	return out, nil
}

type openFile struct {
	*strings.Reader
	info fileInfo
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

type fileInfo struct{ file contract.MigrationFile }

func (f fileInfo) Name() string     { return f.file.Name }
func (f fileInfo) Size() int64      { return int64(len(f.file.Text)) }
func (fileInfo) Mode() fs.FileMode  { return 0o444 }
func (fileInfo) ModTime() time.Time { return time.Time{} }
func (fileInfo) IsDir() bool        { return false }
func (fileInfo) Sys() any           { return nil }

type folderInfo struct{}

func (folderInfo) Name() string       { return "." }
func (folderInfo) Size() int64        { return 0 }
func (folderInfo) Mode() fs.FileMode  { return fs.ModeDir | 0o555 }
func (folderInfo) ModTime() time.Time { return time.Time{} }
func (folderInfo) IsDir() bool        { return true }
func (folderInfo) Sys() any           { return nil }

// ReadMigrations reads the .sql files of a folder.
func ReadMigrations(dir fs.FS) ([]contract.MigrationFile, error) {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", migrate.ErrSource, err)
	}
	var out []contract.MigrationFile
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".sql") {
			continue
		}
		text, err := fs.ReadFile(dir, e.Name())
		if err != nil {
			return nil, fmt.Errorf("%w: %w", migrate.ErrSource, err)
		}
		// A payload is JSON, which holds text only; and so is SQL.
		if clean := bytes.ToValidUTF8(text, nil); len(clean) != len(text) {
			return nil, fmt.Errorf("%w: %s is not UTF-8", migrate.ErrSource, e.Name())
		}
		out = append(out, contract.MigrationFile{Name: e.Name(), Text: string(text)})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: there is no .sql file", migrate.ErrSource)
	}
	return out, nil
}

// canarySchema holds the canary rows of drills.
const canarySchema = "lifeboat"

// Migrator opens the files of src for its database. Nothing is connected to yet.
func (r *Runner) Migrator(src contract.MigrationSource, progress func(migrate.Event)) (*migrate.Migrator, error) {
	c, err := r.cluster(src.Cluster)
	if err != nil {
		return nil, err
	}
	return r.migratorOn(c.Server, src, progress)
}

func (r *Runner) migratorOn(server dbcore.Config, src contract.MigrationSource, progress func(migrate.Event)) (*migrate.Migrator, error) {
	if src.Database != "" {
		server.DBName = src.Database
	}
	server.ApplicationName = "lifeboat migrate"
	return migrate.Open(context.Background(), migrate.Options{
		Source: sqlFiles(src.Files), Config: server, AppVersion: src.AppVersion,
		IgnoreSchemas: []string{canarySchema}, // drills and rehearsals make it, also after a migration
		AllowGaps:     src.AllowGaps, AllowOutOfOrder: src.AllowOutOfOrder, Logger: r.set.Logger, Progress: progress,
	})
}

// MigrationProgress puts an event into words: which statement, and who is in its way.
func MigrationProgress(e migrate.Event) contract.Progress {
	p := contract.Progress{Phase: e.File}
	if e.Statement > 0 {
		p.Phase = fmt.Sprintf("%s, statement %d of %d", e.File, e.Statement, e.Statements)
	}
	switch e.Kind {
	case "waiting":
		p.Phase, p.Waiting = "lock", "another migrator"
	case "retry":
		p.Phase = fmt.Sprintf("%s, attempt %d", e.File, e.Attempt)
	case "done":
		p.Phase += " done"
	}
	if len(e.Blockers) > 0 {
		p.Waiting = blockerText(e.Blockers[0])
		if n := len(e.Blockers) - 1; n > 0 {
			p.Waiting += fmt.Sprintf(" and %d more", n)
		}
	}
	return p
}

// blockerText names a session without its query, which may hold data that must not get into Temporal's history.
func blockerText(b migrate.Blocker) string {
	b.Query = ""
	if b.GID != "" {
		return b.String()
	}
	text := fmt.Sprintf("process %d (%s, %s, %s, its transaction is %.0f s old)", b.PID, b.User, b.Application, b.State, b.Seconds)
	if b.Lock != "" {
		text += ", for " + b.Lock
	}
	return text
}
