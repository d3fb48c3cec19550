package dbcore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Defaults of BaseBackupOptions.
const (
	DefaultIdleTimeout  = 5 * time.Minute
	DefaultStartTimeout = time.Hour
)

// cancelTimeout bounds the request to a server to end a backup whose connection was dropped.
const cancelTimeout = 2 * time.Second

// BaseBackupOptions are the options of BASE_BACKUP. WAL is never included, and the server does not wait for its
// archiving (WAL false, WAIT false): whoever takes the backup must see to the WAL from StartLSN to the stop position.
type BaseBackupOptions struct {
	// Label goes into backup_label; "" is "base backup", the server's own default.
	Label string
	// FastCheckpoint starts with an immediate checkpoint, which costs the server a burst of writes. Without it the
	// start waits for a spread one, which may take checkpoint_timeout.
	FastCheckpoint bool
	// Progress makes the server add up sizes first, so that Tablespaces tell them.
	Progress bool
	// TablespaceMap puts a tablespace_map file into base.tar in place of the symbolic links in pg_tblspc. Without
	// tablespaces the file is empty. The names of those links end with a slash, as those of directories do.
	TablespaceMap bool
	// MaxRateKB bounds the transfer in kB/s, from 32 to 1048576; 0 is unbounded.
	MaxRateKB int
	// Manifest asks for a backup_manifest at the end, which costs the server a checksum of everything.
	Manifest bool
	// ManifestChecksums is its algorithm: NONE, CRC32C, SHA224, SHA256, SHA384 or SHA512; "" is CRC32C.
	ManifestChecksums string
	// VerifyChecksums makes the server verify page checksums. Bad pages come as notices, and at the very end, after
	// all data was sent, as an error of Finish (XX001).
	VerifyChecksums bool

	// IdleTimeout is the longest silence once the data flows; 0 is 5 minutes, negative has no limit.
	IdleTimeout time.Duration
	// StartTimeout is the longest silence before that, while the server makes a checkpoint and adds up sizes; 0 is one
	// hour, negative has no limit.
	StartTimeout time.Duration
	// OnNotice is called for each notice or warning, by the goroutine that reads. It may be nil.
	OnNotice func(Notice)
}

// Notice is a message of the server that is not an error.
type Notice struct {
	// Severity is WARNING, NOTICE, LOG ..., never translated.
	Severity string
	// Code is the SQLSTATE.
	Code    string
	Message string
	Detail  string
	Hint    string
}

// command gives the grammar of PostgreSQL 15 and later (src/backend/replication/repl_gram.y): options in parentheses.
func (o BaseBackupOptions) command() string {
	label := o.Label
	if label == "" {
		label = "base backup"
	}
	options := []string{"LABEL " + quoteLiteral(label), "WAIT false", "WAL false", fmt.Sprintf("VERIFY_CHECKSUMS %t", o.VerifyChecksums)}
	if o.FastCheckpoint {
		options = append(options, "CHECKPOINT 'fast'")
	}
	if o.Progress {
		options = append(options, "PROGRESS")
	}
	if o.TablespaceMap {
		options = append(options, "TABLESPACE_MAP")
	}
	if o.MaxRateKB != 0 {
		options = append(options, "MAX_RATE "+strconv.Itoa(o.MaxRateKB))
	}
	if o.Manifest {
		options = append(options, "MANIFEST 'yes'")
		if o.ManifestChecksums != "" {
			options = append(options, "MANIFEST_CHECKSUMS "+quoteLiteral(o.ManifestChecksums))
		}
	}
	return "BASE_BACKUP (" + strings.Join(options, ", ") + ")"
}

// quoteLiteral quotes for the replication grammar, where a backslash is an ordinary character (repl_scanner.l).
func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func (o BaseBackupOptions) validate() error {
	switch {
	case strings.ContainsRune(o.Label+o.ManifestChecksums, 0):
		return errors.New("label or algorithm contains a NUL byte")
	case o.MaxRateKB != 0 && (o.MaxRateKB < 32 || o.MaxRateKB > 1048576):
		return fmt.Errorf("MaxRateKB is %d, the server takes 32 to 1048576", o.MaxRateKB)
	case o.ManifestChecksums != "" && !o.Manifest:
		return errors.New("ManifestChecksums without Manifest")
	}
	return nil
}

// Tablespace is one line of the server's list of what it will send.
type Tablespace struct {
	// OID is the tablespace's, 0 for the data directory itself.
	OID uint32
	// Location is its directory on the server, "" for the data directory.
	Location string
	// SizeKB is its approximate size in kB, -1 without BaseBackupOptions.Progress.
	SizeKB int64
}

// Archive is one part of the stream: a tar file, or the manifest.
type Archive struct {
	// Name is "base.tar" for the data directory, which comes last, "<oid>.tar" for a tablespace, or "backup_manifest".
	Name string
	// TablespacePath is the tablespace's directory on the server, "" for the data directory and the manifest.
	TablespacePath string
	// Manifest says that the content is a backup_manifest and not a tar file.
	Manifest bool
}

// BaseBackupStream is a running BASE_BACKUP. It hands out one archive after another:
//
//	for {
//		archive, err := stream.Next(ctx)
//		if err == io.EOF { break }
//		... read stream to its io.EOF, for instance through archive/tar ...
//	}
//	stop, err := stream.Finish(ctx)
//
// Always Close it; after Finish that does nothing. All methods but Progress belong to one goroutine. There is no
// goroutine and no pipe behind Read: it takes bytes from the connection, and what it does not take, TCP holds back.
//
// The context of BaseBackup covers the whole stream, those of Next and Finish what follows until the next call. When
// one of them ends, the connection is closed at once and the server asked to stop.
type BaseBackupStream struct {
	// StartLSN is where replay must begin, on StartTimeline.
	StartLSN      LSN
	StartTimeline uint32
	// Tablespaces are what will be sent, in its order.
	Tablespaces []Tablespace

	owner     *ReplicationConn
	walsender *pgconn.PgConn // emptied by Hijack, still good for a cancel request
	hijacked  *pgconn.HijackedConn
	wire      *wire
	onNotice  func(Notice)
	progress  atomic.Int64

	unwatch     func() bool // stops watching the context of BaseBackup
	unwatchCall func() bool // stops watching the context of the last Next

	opened  bool     // an archive was handed out and has not ended
	pending *Archive // an archive that the server began, and Next has not handed out
	ended   bool     // all archives were sent
	done    bool     // Finish has succeeded
	err     error    // what ended the stream early

	killOnce sync.Once
	cause    atomic.Pointer[error] // why the connection was closed under the reader
	farewell sync.WaitGroup
}

// StopPosition is where a base backup ends. A restored copy is consistent once replay has passed it.
type StopPosition struct {
	LSN      LSN
	Timeline uint32
}

// BaseBackup starts a base backup and returns when its data is about to flow. Until the stream is finished, no other
// command can run on the connection; after any error the connection is closed. A new attempt is a new backup with a
// new start position (R6).
func (c *ReplicationConn) BaseBackup(ctx context.Context, opts BaseBackupOptions) (*BaseBackupStream, error) {
	const op = "start base backup"
	if err := errors.Join(opts.validate(), ctx.Err()); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if err := c.ready(); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if err := c.drain(ctx); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	hijacked, err := c.conn.Hijack()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	s := &BaseBackupStream{
		owner: c, walsender: c.conn, hijacked: hijacked, onNotice: opts.OnNotice,
		wire: newWire(hijacked.Conn, withDefault(opts.StartTimeout, DefaultStartTimeout)),
	}
	c.stream = s
	s.unwatch = s.watch(ctx)
	if err := s.start(opts.command()); err != nil {
		err = s.fail(op, err)
		s.farewell.Wait()
		return nil, err
	}
	s.wire.idle = withDefault(opts.IdleTimeout, DefaultIdleTimeout)
	return s, nil
}

func withDefault(d, byDefault time.Duration) time.Duration {
	if d == 0 {
		return byDefault
	}
	return d
}

// drain handles messages that pgx has received already, such as changed settings after a reload: our reader starts at
// the socket.
func (c *ReplicationConn) drain(ctx context.Context) error {
	for c.conn.Frontend().ReadBufferLen() > 0 {
		if _, err := c.conn.ReceiveMessage(ctx); err != nil {
			return err
		}
	}
	return nil
}

// start sends the command and reads the answer up to the beginning of the copy stream: the start position, the
// tablespaces, CopyOutResponse.
func (s *BaseBackupStream) start(command string) error {
	query, err := (&pgproto3.Query{String: command}).Encode(nil)
	if err != nil {
		return err
	}
	if err := s.wire.send(query); err != nil {
		return err
	}
	rows, err := s.table(2)
	if err != nil {
		return err
	}
	if len(rows) != 1 {
		return fmt.Errorf("%w: %d start positions", ErrProtocol, len(rows))
	}
	if s.StartLSN, s.StartTimeline, err = parsePosition(rows[0]); err != nil {
		return err
	}
	if rows, err = s.table(3); err != nil {
		return err
	}
	for _, row := range rows {
		t, err := parseTablespace(row)
		if err != nil {
			return err
		}
		s.Tablespaces = append(s.Tablespaces, t)
	}
	return s.expect('H')
}

// Next goes to the next archive, skipping what is left of the current one. At the end it returns io.EOF; call Finish
// then.
func (s *BaseBackupStream) Next(ctx context.Context) (Archive, error) {
	const op = "base backup"
	if err := s.usable(); err != nil {
		return Archive{}, err
	}
	if err := ctx.Err(); err != nil {
		return Archive{}, s.fail(op, err)
	}
	s.watchCall(ctx)
	for s.pending == nil && !s.ended {
		if err := s.wire.discard(); err != nil {
			return Archive{}, s.fail(op, err)
		}
		if err := s.advance(); err != nil {
			return Archive{}, s.fail(op, err)
		}
	}
	s.opened = false
	if s.pending == nil {
		return Archive{}, io.EOF
	}
	archive := *s.pending
	s.pending, s.opened = nil, true
	return archive, nil
}

// Read reads from the current archive, to io.EOF at its end.
func (s *BaseBackupStream) Read(p []byte) (int, error) {
	const op = "base backup"
	if err := s.usable(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	for s.wire.left == 0 {
		if !s.opened || s.pending != nil || s.ended {
			return 0, io.EOF
		}
		if err := s.advance(); err != nil {
			return 0, s.fail(op, err)
		}
	}
	n, err := s.wire.payload(p)
	if err != nil {
		return n, s.fail(op, err)
	}
	return n, nil
}

// Progress returns the bytes done as the server last told, which it does about once a second. It may be called from
// any goroutine.
func (s *BaseBackupStream) Progress() int64 { return s.progress.Load() }

// Finish ends the backup after Next has returned io.EOF, and frees the connection for other commands. The error may
// come from the server though all data was sent: bad page checksums (XX001), or a standby that was promoted meanwhile.
// The stop position is set if the server told it, also beside an error.
func (s *BaseBackupStream) Finish(ctx context.Context) (StopPosition, error) {
	const op = "finish base backup"
	var stop StopPosition
	if err := s.usable(); err != nil {
		return stop, err
	}
	if !s.ended || s.pending != nil {
		return stop, s.fail(op, errors.New("archives were left unread"))
	}
	s.watchCall(ctx)
	rows, err := s.table(2)
	if err == nil && len(rows) != 1 {
		err = fmt.Errorf("%w: %d stop positions", ErrProtocol, len(rows))
	}
	if err == nil {
		stop.LSN, stop.Timeline, err = parsePosition(rows[0])
	}
	if err == nil {
		err = s.expect('C')
	}
	if err == nil {
		err = s.expect('Z')
	}
	if err != nil {
		return stop, s.fail(op, err)
	}
	s.done = true
	s.giveBack()
	return stop, nil
}

// giveBack makes the connection an ordinary one again, or closes it if that is not possible.
func (s *BaseBackupStream) giveBack() {
	s.owner.stream = nil
	aborted := s.unwatchCall != nil && !s.unwatchCall()
	if !s.unwatch() || aborted || s.wire.buffered() > 0 {
		s.kill(ErrClosed, false)
		return
	}
	if s.hijacked.Conn.SetDeadline(time.Time{}) != nil {
		s.kill(ErrClosed, false)
		return
	}
	conn, err := pgconn.Construct(s.hijacked)
	if err != nil {
		s.kill(ErrClosed, false)
		return
	}
	s.owner.conn = conn
}

// Close ends a stream that was not finished: it closes the connection and asks the server to stop. It is harmless
// after Finish, and when called twice.
func (s *BaseBackupStream) Close() error {
	if s.done {
		return nil
	}
	if s.err == nil {
		s.err = fmt.Errorf("base backup: %w", ErrClosed)
	}
	s.end(ErrClosed, true)
	s.farewell.Wait()
	return nil
}
