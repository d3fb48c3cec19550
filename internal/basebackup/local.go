package basebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

const mapFile = "tablespace_map"

// local is the source beside the server: it reads the files of the data directory, in parallel, between pg_backup_start
// and pg_backup_stop. Nothing is written there.
func (a *attempt) local(ctx context.Context) error {
	s, err := startSession(ctx, a.opts.Server, "lifeboat "+a.manifest.BackupID, a.server.systemID)
	if err != nil {
		return err
	}
	defer func() { _ = s.close() }() // what it did is known by then
	control, err := proveDirectory(ctx, s.conn, a.opts.DataDirectory, s.start)
	if err != nil {
		return err
	}
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	// Readers may wait for the store: with the session, they end too.
	defer context.AfterFunc(ctx, a.writer.Close)()
	unwatch := s.watch(ctx, lost)
	links, err := a.copyDirectory(ctx, s.start, control)
	unwatch()
	if err == nil {
		err = a.leave(ctx, s, links)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

// copyDirectory stores everything but what comes from pg_backup_stop. pg_control goes last.
func (a *attempt) copyDirectory(ctx context.Context, start pg.LSN, control *controlOf) ([]tablespaceLink, error) {
	dir := a.opts.DataDirectory
	links, err := tablespaceLinks(dir)
	if err != nil {
		return nil, accessError(dir, err)
	}
	tablespaces, err := describeLinks(links)
	if err != nil {
		return nil, err
	}
	a.begin(start, control.Checkpoint.Timeline, tablespaces)
	w := a.walker(ctx, control, links)
	total, err := w.size(links)
	if err != nil {
		return nil, accessError(dir, err)
	}
	stopProgress := a.report(total)
	defer stopProgress()
	if err := a.readAll(ctx, w, links); err != nil {
		return nil, accessError(dir, err)
	}
	return links, a.storeControl(ctx)
}

func describeLinks(links []tablespaceLink) (out []repo.Tablespace, err error) {
	for _, l := range links {
		oid, err := strconv.ParseUint(l.oid, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("pg_tblspc/%s is no tablespace: %w", l.oid, err)
		}
		out = append(out, repo.Tablespace{OID: uint32(oid), Location: l.location})
	}
	return out, nil
}

func (a *attempt) walker(ctx context.Context, control *controlOf, links []tablespaceLink) *walker {
	dir := a.opts.DataDirectory
	w := &walker{
		ctx: ctx, dir: dir, major: a.manifest.PostgresMajor, version: tablespaceVersion(a.manifest.PostgresMajor, control.CatalogVersion),
		inside: insideOf(dir, links), skip: func(string, string) {},
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil && real != filepath.Clean(dir) {
		w.inside = append(w.inside, insideOf(real, links)...)
	}
	return w
}

// size adds up what there is to read, for progress.
func (w walker) size(links []tablespaceLink) (total int64, err error) {
	w.visit = func(m member) error {
		if m.info.Mode().IsRegular() {
			total += m.info.Size()
		}
		return nil
	}
	w.made = func(repo.Entry) error { return nil }
	err = w.walk(links)
	return total, err
}

// readAll stores all directories and files. Each reader holds one file open and one chunk; the writer bounds the rest.
func (a *attempt) readAll(ctx context.Context, w *walker, links []tablespaceLink) error {
	readers := a.opts.Workers
	if readers <= 0 {
		readers = runtime.GOMAXPROCS(0)
	}
	g, ctx := errgroup.WithContext(ctx)
	files := make(chan member, readers)
	g.Go(func() error {
		defer close(files)
		w := *w
		w.ctx = ctx
		w.skip = func(name, why string) {
			a.opts.Logger.Warn("left out of the backup", "cluster", a.opts.Cluster, "file", name, "reason", why)
		}
		w.made = func(e repo.Entry) error {
			if e.ModTime.IsZero() {
				e.ModTime = a.started
			}
			return a.writer.Add(e)
		}
		w.visit = func(m member) error {
			if m.info.IsDir() {
				e := m.entry()
				e.Type = repo.TypeDir
				return a.writer.Add(e)
			}
			select {
			case files <- m:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return w.walk(links)
	})
	for range readers {
		g.Go(func() error {
			for m := range files {
				if err := a.readFile(ctx, m); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// readFile stores one file as long as it was when it was opened: what is appended later comes by replay, as does what
// is cut off meanwhile. That it vanished is normal, too.
func (a *attempt) readFile(ctx context.Context, m member) error {
	f, err := os.OpenFile(m.path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if m.info, err = f.Stat(); err != nil {
		return err
	}
	return a.file(ctx, m.entry(), io.LimitReader(&interruptible{ctx, f}, m.info.Size()))
}

// interruptible ends a long read with its context.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	return i.r.Read(p)
}

// storeControl stores pg_control as it was in one moment.
func (a *attempt) storeControl(ctx context.Context) error {
	c, err := readControl(ctx, a.opts.DataDirectory)
	if err != nil {
		return err
	}
	m := member{name: controlFile, info: c.info}
	if err := a.file(ctx, m.entry(), strings.NewReader(string(c.raw))); err != nil {
		return err
	}
	return a.controlled(c.raw)
}

// leave ends backup mode, and stores what the server says then: never into its directory (R6).
func (a *attempt) leave(ctx context.Context, s *session, links []tablespaceLink) error {
	end, err := s.stop(ctx)
	if err != nil {
		return err
	}
	lsn, err := pg.ParseLSN(end.LSN)
	if err != nil {
		return err
	}
	start, timeline, err := parseLabel(end.Label)
	if err != nil {
		return err
	}
	if start != a.manifest.StartLSN {
		return fmt.Errorf("%s begins at %v, pg_backup_start said %v", labelFile, start, a.manifest.StartLSN)
	}
	if err := checkMap(end.Map, links); err != nil {
		return err
	}
	a.stop = dbcore.StopPosition{LSN: dbcore.LSN(lsn), Timeline: uint32(timeline)}
	if err := a.text(ctx, labelFile, end.Label); err != nil {
		return err
	}
	a.label = true
	if end.Map != "" {
		if err := a.text(ctx, mapFile, end.Map); err != nil {
			return err
		}
	}
	return a.synthesize(ctx, lsn)
}

// checkMap makes sure that every tablespace that the server had at the start was read from where the server has it.
func checkMap(text string, links []tablespaceLink) error {
	spaces, err := parseMap(text)
	if err != nil {
		return err
	}
	for oid, location := range spaces {
		if !slices.Contains(links, tablespaceLink{oid, location}) && !strings.HasPrefix(location, "pg_tblspc/") {
			return fmt.Errorf("tablespace %s at %s was not in pg_tblspc when it was read: take a new backup", oid, location)
		}
	}
	return nil
}

func (a *attempt) text(ctx context.Context, name, content string) error {
	return a.file(ctx, repo.Entry{Path: name, Mode: 0o600, ModTime: a.started}, strings.NewReader(content))
}

// synthesize stores the backup_manifest.
func (a *attempt) synthesize(ctx context.Context, stop pg.LSN) error {
	files, err := a.writer.Written()
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { w.CloseWithError(writeManifest(w, a.manifest, stop, files)) })
	err = a.file(ctx, repo.Entry{Path: manifestFile, Mode: 0o600, ModTime: a.started}, r)
	r.CloseWithError(err) // ends the writing if the reading failed
	wg.Wait()
	a.manifest.SynthesizedManifest = err == nil
	return err
}
