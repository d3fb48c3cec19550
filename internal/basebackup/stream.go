package basebackup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// stream is the source that needs nothing but a connection: it runs BASE_BACKUP and stores all that it sends.
func (a *attempt) stream(ctx context.Context) error {
	conn, err := dbcore.ConnectReplication(ctx, a.opts.Server)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := a.sameServer(ctx, conn); err != nil {
		return err
	}
	s, err := conn.BaseBackup(ctx, dbcore.BaseBackupOptions{
		Label:          "lifeboat " + a.manifest.BackupID,
		FastCheckpoint: true,
		Progress:       true,
		Manifest:       true,
		OnNotice: func(n dbcore.Notice) {
			a.opts.Logger.Info("the server says", "severity", n.Severity, "message", n.Message)
		},
	})
	if err != nil {
		return err
	}
	defer s.Close()
	total := a.beginStream(s)
	stopProgress := a.report(total)
	defer stopProgress()
	for {
		archive, err := s.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := a.archive(ctx, archive, s); err != nil {
			return fmt.Errorf("%s: %w", archive.Name, err)
		}
	}
	a.stop, err = s.Finish(ctx)
	return err
}

// sameServer guards against a dsn that leads to another server from one connection to the next.
func (a *attempt) sameServer(ctx context.Context, conn *dbcore.ReplicationConn) error {
	id, err := conn.IdentifySystem(ctx)
	if err != nil {
		return err
	}
	if pg.SystemID(id.SystemID) != a.server.systemID {
		return fmt.Errorf("the dsn leads to two servers: system identifier %d by replication, %d by SQL", id.SystemID, a.server.systemID)
	}
	return nil
}

// beginStream notes what the server said before its data, and returns its estimate of the size in bytes.
func (a *attempt) beginStream(s *dbcore.BaseBackupStream) (total int64) {
	var tablespaces []repo.Tablespace
	for _, t := range s.Tablespaces {
		total += t.SizeKB << 10
		if t.OID != 0 {
			tablespaces = append(tablespaces, repo.Tablespace{OID: t.OID, Location: t.Location})
		}
	}
	a.begin(pg.LSN(s.StartLSN), pg.Timeline(s.StartTimeline), tablespaces)
	return total
}

// archive stores one archive of the stream, which s reads.
func (a *attempt) archive(ctx context.Context, ar dbcore.Archive, s io.Reader) error {
	if ar.Manifest {
		a.manifest.ServerManifest = true
		return a.file(ctx, repo.Entry{Path: manifestFile, Mode: 0o600, ModTime: a.started}, s)
	}
	prefix := ""
	if ar.TablespacePath != "" {
		oid := strings.TrimSuffix(ar.Name, ".tar")
		if !digits.MatchString(oid) {
			return errors.New("the server sent an archive of a tablespace whose name is no OID")
		}
		prefix = "pg_tblspc/" + oid
		if err := a.writer.Add(repo.Entry{Path: prefix, Type: repo.TypeDir, Mode: 0o700, ModTime: a.started}); err != nil {
			return err
		}
	}
	tr := tar.NewReader(s)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := a.member(ctx, prefix, h, tr); err != nil {
			return err
		}
	}
}

// member stores one member of a tar file. Symbolic links are those of tablespaces, whose content comes in archives of
// their own, or of a pg_wal that lies elsewhere: neither is for the place of a restore.
func (a *attempt) member(ctx context.Context, prefix string, h *tar.Header, r io.Reader) error {
	inside := path.Clean(h.Name)
	if inside == "." && h.Typeflag == tar.TypeDir {
		return nil
	}
	// Before it is joined: a tablespace's "../base/1" would become a path of the data directory.
	if err := repo.CheckPath(inside); err != nil {
		return fmt.Errorf("the server sent a file named %q: %w", h.Name, err)
	}
	name := path.Join(prefix, inside)
	e := repo.Entry{Path: name, Mode: fs.FileMode(h.Mode).Perm(), ModTime: h.ModTime}
	switch h.Typeflag {
	case tar.TypeDir:
		e.Type = repo.TypeDir
		return a.directory(e, prefix)
	case tar.TypeSymlink:
		if strings.HasPrefix(name, "pg_tblspc/") {
			return nil
		}
		e.Type = repo.TypeDir
		return a.writer.Add(e)
	case tar.TypeReg:
		a.label = a.label || name == labelFile
		if sparse(h) {
			return fmt.Errorf("the server sent %s as a sparse file", h.Name)
		}
		if name != controlFile {
			return a.file(ctx, e, r)
		}
		if h.Size > pg.ControlFileSize {
			return fmt.Errorf("the server sent %s with %d bytes, it has %d", controlFile, h.Size, pg.ControlFileSize)
		}
		var content bytes.Buffer
		if err := a.file(ctx, e, io.TeeReader(r, &content)); err != nil {
			return err
		}
		return a.controlled(content.Bytes())
	}
	return fmt.Errorf("the server sent %s as an entry of type %q", h.Name, h.Typeflag)
}

// sparse tells whether a member's bytes stand for more that are not there, exabytes perhaps. PostgreSQL sends no such.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// directory records a directory; that of a tablespace is recorded already. The data directory's archive names it again
// if the tablespace lies in place (allow_in_place_tablespaces).
func (a *attempt) directory(e repo.Entry, prefix string) error {
	known := func(t repo.Tablespace) bool { return e.Path == fmt.Sprintf("pg_tblspc/%d", t.OID) }
	if e.Path == prefix || slices.ContainsFunc(a.manifest.Tablespaces, known) {
		return nil
	}
	return a.writer.Add(e)
}
