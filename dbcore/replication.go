package dbcore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// ReplicationConn is a session in replication mode: its server process is a walsender, which speaks the replication
// protocol (section 55.4, "Streaming Replication Protocol") and no SQL. It is direct, pinned and not safe for concurrent
// use. The role needs the REPLICATION attribute, and pg_hba.conf a line for the database "replication".
type ReplicationConn struct {
	conn   *pgconn.PgConn
	target target
	stream *BaseBackupStream // the one that has the connection, or nil
	done   bool
}

// ConnectReplication opens a session in physical replication mode. StatementTimeout is not applied to it. Each host
// gets cfg.ConnectTimeout. Errors are those of Open, and ErrUnsupportedServer before PostgreSQL 15, whose BASE_BACKUP
// has another grammar.
func ConnectReplication(ctx context.Context, cfg Config) (*ReplicationConn, error) {
	s, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	t := s.target()
	t.replication = true
	attrs, err := replicationAttrs(s)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.connectBound()+time.Second)
	defer cancel()
	pc := s.pool.ConnConfig.Config.Copy()
	pc.RuntimeParams["replication"] = "true"
	delete(pc.RuntimeParams, "statement_timeout")
	var conn *pgconn.PgConn
	for _, attr := range attrs {
		pc.ValidateConnect = validateRole(attr)
		if conn, err = pgconn.ConnectConfig(ctx, pc); err == nil || !errors.Is(err, pgconn.ErrPrimaryConnection) {
			break
		}
	}
	if err != nil {
		return nil, t.connectError(err)
	}
	rc := &ReplicationConn{conn: conn, target: t}
	if err := rc.checkVersion(); err != nil {
		return nil, errors.Join(err, rc.Close())
	}
	return rc, nil
}

// replicationAttrs returns the values of target_session_attrs to try in order. pgx checks them by SQL, which a
// walsender does not run.
func replicationAttrs(s *settings) ([]string, error) {
	if s.pool.ConnConfig.ValidateConnect == nil {
		return []string{"any"}, nil
	}
	attr, ok := s.keys["target_session_attrs"]
	if !ok {
		attr = os.Getenv("PGTARGETSESSIONATTRS")
	}
	switch attr {
	case "":
		return nil, fmt.Errorf("%w: put target_session_attrs into the connection string, not into the service file, to use it for replication", ErrInvalidConfig)
	case "prefer-standby":
		return []string{"standby", "any"}, nil
	}
	return []string{attr}, nil
}

// validateRole checks a server by what it reports at connect without being asked, since PostgreSQL 14.
func validateRole(attr string) pgconn.ValidateConnectFunc {
	return func(_ context.Context, pc *pgconn.PgConn) error {
		standby := pc.ParameterStatus("in_hot_standby") == "on"
		readOnly := standby || pc.ParameterStatus("default_transaction_read_only") == "on"
		switch {
		case attr == "primary" && standby:
			return pgconn.ErrStandbyConnection
		case attr == "standby" && !standby:
			return pgconn.ErrPrimaryConnection
		case attr == "read-write" && readOnly:
			return pgconn.ErrReadOnlyConnection
		case attr == "read-only" && !readOnly:
			return pgconn.ErrReadWriteConnection
		}
		return nil
	}
}

func (c *ReplicationConn) checkVersion() error {
	version := c.conn.ParameterStatus("server_version")
	digits := version
	if i := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = version[:i]
	}
	if major, err := strconv.Atoi(digits); err != nil || major < 15 {
		return fmt.Errorf("%w: server at %s is %q, need 15 or later", ErrUnsupportedServer, c.target, version)
	}
	return nil
}

// SystemIdentity is the answer to IDENTIFY_SYSTEM.
type SystemIdentity struct {
	// SystemID identifies the cluster, and is the same on its standbys.
	SystemID uint64
	// Timeline is the server's current timeline.
	Timeline uint32
	// XLogPos is the position up to which WAL is flushed.
	XLogPos LSN
	// DBName is the database, "" in physical replication mode.
	DBName string
}

// IdentifySystem asks who the server is.
func (c *ReplicationConn) IdentifySystem(ctx context.Context) (SystemIdentity, error) {
	const op = "IDENTIFY_SYSTEM"
	row, err := c.row(ctx, op, op, 4)
	if err != nil {
		return SystemIdentity{}, err
	}
	id, errID := strconv.ParseUint(string(row[0]), 10, 64)
	timeline, errTimeline := strconv.ParseUint(string(row[1]), 10, 32)
	pos, errPos := ParseLSN(string(row[2]))
	if err := errors.Join(errID, errTimeline, errPos); err != nil {
		return SystemIdentity{}, fmt.Errorf("%s: %w: %w", op, ErrProtocol, err)
	}
	return SystemIdentity{SystemID: id, Timeline: uint32(timeline), XLogPos: pos, DBName: string(row[3])}, nil
}

// Show returns a setting of the server. Some need more rights than REPLICATION gives (data_directory: 42501).
func (c *ReplicationConn) Show(ctx context.Context, name string) (string, error) {
	for _, r := range name {
		if r != '_' && r != '.' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') {
			return "", fmt.Errorf("SHOW: %q is not the name of a setting", name)
		}
	}
	row, err := c.row(ctx, "SHOW "+name, "SHOW "+name, 1)
	if err != nil {
		return "", err
	}
	return string(row[0]), nil
}

// TimelineHistory returns the history file of a timeline as the server has it. Timeline 1 has none (SQLSTATE 58P01).
func (c *ReplicationConn) TimelineHistory(ctx context.Context, timeline uint32) (fileName string, content []byte, err error) {
	op := fmt.Sprintf("TIMELINE_HISTORY %d", timeline)
	row, err := c.row(ctx, op, op, 2)
	if err != nil {
		return "", nil, err
	}
	return string(row[0]), row[1], nil
}

// row runs a command that answers with one row.
func (c *ReplicationConn) row(ctx context.Context, op, command string, columns int) ([][]byte, error) {
	if err := c.ready(); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	state := stateOf(c.conn)
	results, err := c.conn.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, state.wrap(ctx, op, err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < columns {
		return nil, fmt.Errorf("%s: %w: not one row of %d columns", op, ErrProtocol, columns)
	}
	return results[0].Rows[0], nil
}

// ready says whether a command can be sent now.
func (c *ReplicationConn) ready() error {
	switch {
	case c.done:
		return ErrClosed
	case c.stream != nil:
		return errors.New("a base backup is running on this connection")
	case c.conn.IsClosed():
		return ErrClosed
	}
	return nil
}

// Parameter is Conn.Parameter.
func (c *ReplicationConn) Parameter(name string) string { return c.conn.ParameterStatus(name) }

// PID returns the process id of the walsender.
func (c *ReplicationConn) PID() uint32 { return c.conn.PID() }

// Closed says that the session has ended, as far as is known (see Conn.Closed).
func (c *ReplicationConn) Closed() bool {
	return c.done || c.stream == nil && c.conn.IsClosed()
}

// Close ends the session, and a base backup that still runs on it. Closing twice is harmless.
func (c *ReplicationConn) Close() error {
	if c.done {
		return nil
	}
	c.done = true
	if c.stream != nil {
		return c.stream.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return c.conn.Close(ctx)
}
