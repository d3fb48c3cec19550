package dbcore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// advance reads messages up to data of the current archive (of which wire.left bytes wait then), the beginning of
// another archive, or the end of all. The layout of the copy stream is in section 55.4 under BASE_BACKUP: the first
// byte of each CopyData tells what it is.
func (s *BaseBackupStream) advance() error {
	for {
		typ, err := s.message()
		if err != nil {
			return err
		}
		switch {
		case typ == 'c':
			s.ended = true
			return s.wire.discard()
		case typ != 'd' || s.wire.left == 0:
			return fmt.Errorf("%w: message %q inside a copy stream", ErrProtocol, typ)
		}
		more, err := s.copyData()
		if err != nil || !more {
			return err
		}
	}
}

// copyData handles one CopyData message. It returns true if nothing came of it that Next or Read waits for.
func (s *BaseBackupStream) copyData() (more bool, err error) {
	kind, err := s.wire.byte()
	if err != nil {
		return false, err
	}
	switch kind {
	case 'd': // archive or manifest data
		if !s.opened {
			return false, fmt.Errorf("%w: data before an archive", ErrProtocol)
		}
		return s.wire.left == 0, nil
	case 'n': // new archive: two strings
		body, err := s.wire.body()
		if err != nil {
			return false, err
		}
		parts := bytes.Split(body, []byte{0})
		if len(parts) != 3 || len(parts[2]) != 0 {
			return false, fmt.Errorf("%w: header of an archive", ErrProtocol)
		}
		s.pending = &Archive{Name: string(parts[0]), TablespacePath: string(parts[1])}
		return false, nil
	case 'm': // manifest
		s.pending = &Archive{Name: "backup_manifest", Manifest: true}
		return false, s.wire.discard()
	case 'p': // progress
		body, err := s.wire.body()
		if err != nil {
			return false, err
		}
		if len(body) != 8 {
			return false, fmt.Errorf("%w: progress of %d bytes", ErrProtocol, len(body))
		}
		s.progress.Store(int64(binary.BigEndian.Uint64(body)))
		return true, nil
	}
	return false, fmt.Errorf("%w: copy data of kind %q", ErrProtocol, kind)
}

// message reads up to a message that belongs to the command, and handles those that may come at any time.
func (s *BaseBackupStream) message() (byte, error) {
	for {
		typ, err := s.wire.next()
		if err != nil {
			return 0, err
		}
		switch typ {
		case 'E', 'N', 'S', 'A':
			if err := s.asynchronous(typ); err != nil {
				return 0, err
			}
		default:
			return typ, nil
		}
	}
}

func (s *BaseBackupStream) asynchronous(typ byte) error {
	body, err := s.wire.body()
	if err != nil {
		return err
	}
	switch typ {
	case 'E':
		var m pgproto3.ErrorResponse
		if err := m.Decode(body); err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		return pgconn.ErrorResponseToPgError(&m)
	case 'N':
		var m pgproto3.NoticeResponse
		if err := m.Decode(body); err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if s.onNotice != nil {
			s.onNotice(Notice{Severity: m.SeverityUnlocalized, Code: m.Code, Message: m.Message, Detail: m.Detail, Hint: m.Hint})
		}
	case 'S':
		var m pgproto3.ParameterStatus
		if err := m.Decode(body); err != nil {
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		s.hijacked.ParameterStatuses[m.Name] = m.Value
	}
	return nil
}

// expect reads and discards a message of one type.
func (s *BaseBackupStream) expect(want byte) error {
	typ, err := s.message()
	if err != nil {
		return err
	}
	if typ != want {
		return fmt.Errorf("%w: message %q instead of %q", ErrProtocol, typ, want)
	}
	return s.wire.discard()
}

// table reads a result set: RowDescription, rows, CommandComplete. Its rows together may be as long as one message.
func (s *BaseBackupStream) table(columns int) ([][][]byte, error) {
	if err := s.expect('T'); err != nil {
		return nil, err
	}
	var rows [][][]byte
	size := 0
	for {
		typ, err := s.message()
		if err != nil {
			return nil, err
		}
		switch typ {
		case 'C':
			return rows, s.wire.discard()
		case 'D':
		default:
			return nil, fmt.Errorf("%w: message %q instead of a row", ErrProtocol, typ)
		}
		body, err := s.wire.body()
		if err != nil {
			return nil, err
		}
		if size += len(body); size > maxBody {
			return nil, fmt.Errorf("%w: rows of more than %d bytes", ErrProtocol, maxBody)
		}
		// The row's values point into the buffer that the next message overwrites.
		var row pgproto3.DataRow
		if err := row.Decode(bytes.Clone(body)); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if len(row.Values) < columns {
			return nil, fmt.Errorf("%w: row of %d columns", ErrProtocol, len(row.Values))
		}
		rows = append(rows, row.Values)
	}
}

func parsePosition(row [][]byte) (LSN, uint32, error) {
	lsn, errLSN := ParseLSN(string(row[0]))
	timeline, errTimeline := strconv.ParseUint(string(row[1]), 10, 32)
	if err := errors.Join(errLSN, errTimeline); err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return lsn, uint32(timeline), nil
}

func parseTablespace(row [][]byte) (Tablespace, error) {
	t := Tablespace{Location: string(row[1]), SizeKB: -1}
	if row[0] != nil {
		oid, err := strconv.ParseUint(string(row[0]), 10, 32)
		if err != nil {
			return t, fmt.Errorf("%w: tablespace %w", ErrProtocol, err)
		}
		t.OID = uint32(oid)
	}
	if row[2] != nil {
		size, err := strconv.ParseInt(string(row[2]), 10, 64)
		if err != nil {
			return t, fmt.Errorf("%w: tablespace size %w", ErrProtocol, err)
		}
		t.SizeKB = size
	}
	return t, nil
}

func (s *BaseBackupStream) usable() error {
	if s.done {
		return fmt.Errorf("base backup: %w", ErrClosed)
	}
	if cause := s.cause.Load(); s.err == nil && cause != nil {
		return s.fail("base backup", *cause)
	}
	return s.err
}

// fail ends the stream, and says why. Of an error that only followed from the connection's being closed under the
// reader, the reason for closing is told.
func (s *BaseBackupStream) fail(op string, err error) error {
	// A server that reported an error has stopped by itself.
	if !s.end(err, SQLState(err) == "") {
		err = *s.cause.Load()
	}
	s.err = fmt.Errorf("%s: %w", op, err)
	return s.err
}

// end closes the connection and forgets the stream. It returns false if the connection was closed before, for another
// cause.
func (s *BaseBackupStream) end(cause error, cancel bool) bool {
	first := s.kill(cause, cancel)
	s.unwatch()
	if s.unwatchCall != nil {
		s.unwatchCall()
	}
	if s.owner.stream == s {
		s.owner.stream = nil
	}
	return first
}

// watch closes the connection when ctx ends.
func (s *BaseBackupStream) watch(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		err := ctx.Err()
		if cause := context.Cause(ctx); !errors.Is(cause, err) {
			err = fmt.Errorf("%w: %w", err, cause)
		}
		s.kill(err, true)
	})
}

// watchCall watches the context of a call in addition to the stream's own.
func (s *BaseBackupStream) watchCall(ctx context.Context) {
	if s.unwatchCall != nil {
		s.unwatchCall()
	}
	s.unwatchCall = s.watch(ctx)
}

// kill closes the connection under a reader that may be waiting, remembers why, and if told so asks the server to
// stop: one that waits for a checkpoint would notice the closed connection only afterwards. It returns whether it was
// the first to do so.
func (s *BaseBackupStream) kill(cause error, cancel bool) (first bool) {
	s.killOnce.Do(func() {
		first = true
		s.cause.Store(&cause)
		_ = s.hijacked.Conn.Close()
		if cancel {
			s.farewell.Go(func() {
				ctx, stop := context.WithTimeout(context.Background(), cancelTimeout)
				defer stop()
				_ = s.walsender.CancelRequest(ctx)
			})
		}
	})
	return first
}
