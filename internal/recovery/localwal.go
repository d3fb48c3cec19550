package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
	"lifeboat/internal/wal/walrecord"
)

// localWAL is the WAL in pg_wal of a stopped server, and where it ends: where crash recovery would end, since it is read
// as that reads it, from the last checkpoint on.
type localWAL struct {
	dir     string // pg_wal
	cluster string
	size    pg.SegmentSize
	history pg.History
	// end is the end of the last complete record, and data that of the last one that is more than housekeeping.
	end, data pg.LSN
	names     []string
}

// readLocalWAL reads the WAL from the server's last checkpoint on. It changes nothing.
func readLocalWAL(ctx context.Context, dataDir string, control *pg.ControlData, inv *wal.Inventory) (*localWAL, error) {
	l := &localWAL{dir: filepath.Join(dataDir, "pg_wal"), cluster: inv.Cluster, size: control.WALSegmentSize}
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if _, err := pg.ParseWALFileName(e.Name()); err == nil {
			l.names = append(l.names, e.Name())
		}
	}
	// As InitWalRecovery (xlogrecovery.c) chooses: a promotion since the last checkpoint has left its mark there.
	tli := max(control.Checkpoint.Timeline, control.MinRecoveryTimeline)
	if l.history, err = l.readHistory(tli, inv); err != nil {
		return nil, err
	}
	r, err := walrecord.NewReader(walrecord.Options{
		Open: l.open, SegmentSize: l.size, Start: control.Checkpoint.Redo, SystemID: control.SystemID,
	})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		rec, err := r.Next(ctx)
		var end *walrecord.EndOfWAL
		switch {
		case errors.As(err, &end) && l.end == 0:
			return nil, fmt.Errorf("read the WAL of its last checkpoint, at %v: %w", control.Checkpoint.Redo, err)
		case errors.As(err, &end):
			return l, l.checkEnd(end)
		case err != nil:
			return nil, err
		}
		l.end = rec.End
		if !walrecord.Housekeeping(&rec) {
			l.data = rec.End
		}
	}
}

func (l *localWAL) readHistory(tli pg.Timeline, inv *wal.Inventory) (pg.History, error) {
	if tli == 1 {
		return pg.History{Timeline: 1}, nil
	}
	data, err := os.ReadFile(filepath.Join(l.dir, tli.HistoryName()))
	if missing(err) {
		return inv.History(tli)
	}
	if err != nil {
		return pg.History{}, err
	}
	return pg.ParseHistory(tli, data)
}

// open gives crash recovery's file of segment n: that of the newest timeline that has it (XLogFileReadAnyTLI).
func (l *localWAL) open(_ context.Context, n uint64) (pg.Timeline, io.ReadCloser, error) {
	line := l.history.Ancestors()
	for i := len(line) - 1; i >= 0; i-- {
		if n < uint64(line[i].Begin)/uint64(l.size) {
			continue
		}
		f, err := os.Open(filepath.Join(l.dir, pg.Segment{Timeline: line[i].Timeline, Number: n}.Name(l.size)))
		if err == nil {
			return line[i].Timeline, f, nil
		}
		if !missing(err) {
			return 0, nil, err
		}
	}
	return 0, nil, walrecord.ErrNoSegment
}

// last is the segment in which the WAL ends.
func (l *localWAL) last() pg.Segment {
	return pg.SegmentOf(l.history.Timeline, l.end-1, l.size)
}

// checkEnd tells an end from damage: a segment that the server has closed, which its archiving status shows, goes on to
// its own end.
func (l *localWAL) checkEnd(end *walrecord.EndOfWAL) error {
	last := l.last()
	for _, name := range l.names {
		seg, err := pg.ParseSegment(name, l.size)
		if err != nil || seg.Timeline != last.Timeline || l.end >= seg.End(l.size) {
			continue
		}
		for _, status := range []string{".ready", ".done"} {
			if _, err := os.Lstat(filepath.Join(l.dir, "archive_status", name+status)); err == nil {
				return fmt.Errorf("the WAL is damaged: segment %s was complete once, but %w", name, end)
			}
		}
	}
	return nil
}

// localFile is a WAL file that the repository does not have, and what of it is to be stored.
type localFile struct {
	name string // as it is stored: that of a segment in which the WAL ends has .partial
	path string
	keep int64 // bytes up to the end of the WAL; 0 is all of the file
}

// nameThem says it for people.
func nameThem(files []localFile) string {
	names := make([]string, 0, 4)
	for i, f := range files {
		if i == 3 && len(files) > 4 {
			names = append(names, fmt.Sprintf("and %d more, to %s", len(files)-i, files[len(files)-1].name))
			break
		}
		names = append(names, f.name)
	}
	return strings.Join(names, ", ")
}

// pending lists what the repository lacks, in the order in which it should be stored: histories first, because segments
// are checked against them.
func (l *localWAL) pending(ctx context.Context, r *repo.Repository, inv *wal.Inventory) ([]localFile, error) {
	var histories, files []localFile
	for _, name := range l.names {
		f := localFile{name: name, path: filepath.Join(l.dir, name)}
		parsed, err := pg.ParseWALFileName(name)
		if err != nil {
			continue
		}
		switch parsed.Kind {
		case pg.WALHistory:
			if _, ok := inv.Histories[parsed.Timeline]; !ok && l.descends(parsed.Timeline) {
				histories = append(histories, f)
			}
			continue
		case pg.WALSegment:
			if seg, err := parsed.Segment(l.size); err != nil || !l.wanted(seg, &f) {
				continue
			}
		case pg.WALPartial:
		default:
			continue // a note about a backup
		}
		stored, err := f.stored(ctx, r, inv, l)
		if err != nil {
			return nil, err
		}
		if !stored {
			files = append(files, f)
		}
	}
	return append(histories, files...), nil
}

// descends tells whether the server's timeline is tli or comes from it.
func (l *localWAL) descends(tli pg.Timeline) bool {
	_, ok := l.history.SwitchPoint(tli)
	return ok || tli == l.history.Timeline
}

// wanted tells whether a segment file belongs to the server's WAL, and cuts off what is behind its end: files beyond it
// are recycled, with old bytes under a new name. The file in which an ancestor was left goes on as its heir's.
func (l *localWAL) wanted(seg pg.Segment, f *localFile) bool {
	if seg.Timeline != l.history.Timeline {
		at, ok := l.history.SwitchPoint(seg.Timeline)
		return ok && seg.End(l.size) <= at
	}
	switch {
	case seg.End(l.size) <= l.end:
		return true
	case seg.Start(l.size) >= l.data: // nothing but housekeeping, or nothing at all
		return false
	}
	f.name += ".partial"
	f.keep = int64(l.size.Offset(l.end))
	return true
}

// stored tells whether the repository has the file. That it has the name is enough where the server has noted that it
// was archived; otherwise the bytes are compared, since another server may have archived under it.
func (f *localFile) stored(ctx context.Context, r *repo.Repository, inv *wal.Inventory, l *localWAL) (bool, error) {
	whole := strings.TrimSuffix(f.name, ".partial")
	seg, err := pg.ParseSegment(whole, l.size)
	if err != nil {
		return false, nil
	}
	name, t := whole, inv.Timeline(seg.Timeline)
	switch {
	case t == nil:
		return false, nil
	case t.Has(seg.Number):
		if _, err := os.Lstat(filepath.Join(l.dir, "archive_status", whole+".done")); err == nil {
			return true, nil
		}
	case t.HasPartial && t.Partial == seg.Number && name != f.name:
		name = f.name
	default:
		return false, nil
	}
	w, err := r.OpenWAL(ctx, l.cluster, name)
	if err != nil {
		return false, fmt.Errorf("compare %s with the repository's: %w", name, err)
	}
	defer w.Close()
	data, err := f.read()
	if err != nil {
		return false, err
	}
	if f.keep > 0 {
		data = data[:f.keep]
	}
	same, err := startsWith(w, data)
	if err != nil {
		return false, fmt.Errorf("compare %s with the repository's: %w", name, err)
	}
	return same, nil
}

// startsWith tells whether what r gives begins with data.
func startsWith(r io.Reader, data []byte) (bool, error) {
	buf := make([]byte, 128<<10)
	for len(data) > 0 {
		part := buf[:min(len(buf), len(data))]
		n, err := io.ReadFull(r, part)
		if !bytes.Equal(part[:n], data[:n]) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		data = data[n:]
	}
	return true, nil
}

// read reads the file, with zeroes behind the end of the WAL: what stands there was never part of it.
func (f *localFile) read() ([]byte, error) {
	info, err := os.Stat(f.path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > int64(pg.MaxSegmentSize) {
		return nil, fmt.Errorf("%s is not a WAL file: %v, %d bytes", f.path, info.Mode().Type(), info.Size())
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return nil, err
	}
	if f.keep > int64(len(data)) {
		return nil, fmt.Errorf("%s has %d bytes, its WAL ends at %d", f.path, len(data), f.keep)
	}
	if f.keep > 0 {
		clear(data[f.keep:])
	}
	return data, nil
}
