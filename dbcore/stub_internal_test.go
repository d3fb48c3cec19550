package dbcore

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// stubServer answers as PostgreSQL does, in the goroutine that asks and without a system call or an allocation, so that
// what is left is the client's own cost. It is no stand-in for a server in tests of behaviour: it knows no SQL but BEGIN
// and COMMIT, and every query has the one row (1).
type stubServer struct {
	mu     sync.Mutex
	more   *sync.Cond // there is something to read, or the end
	in     []byte
	out    []byte
	read   int
	began  bool // the startup message has come
	closed bool
	inTx   bool
	// statements tells which prepared statement returns rows, selects whether the current one does.
	statements map[string]bool
	selects    bool
}

// OpenStub opens a DB whose connections are stubs, and OpenStubPool a bare pool on the same.
func OpenStub(ctx context.Context, opts ...Option) (*DB, error) {
	p, err := newPolicy(opts)
	if err != nil {
		return nil, err
	}
	cfg, s, err := stubSettings()
	if err != nil {
		return nil, err
	}
	return open(ctx, cfg, s, p)
}

// OpenStubPool is pgxpool with the settings of OpenStub.
func OpenStubPool(ctx context.Context) (*pgxpool.Pool, error) {
	_, s, err := stubSettings()
	if err != nil {
		return nil, err
	}
	return pgxpool.NewWithConfig(ctx, s.pool)
}

func stubSettings() (Config, *settings, error) {
	cfg := DefaultConfig()
	cfg.Host, cfg.User, cfg.DBName, cfg.SSLMode = "127.0.0.1", "stub", "stub", "disable"
	cfg.ConnMaxLifetime, cfg.ConnMaxIdleTime = -1, -1
	s, err := cfg.resolve()
	if err != nil {
		return cfg, nil, err
	}
	s.pool.ConnConfig.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		server := &stubServer{statements: map[string]bool{}}
		server.more = sync.NewCond(&server.mu)
		return server, nil
	}
	return cfg, s, nil
}

// answerOf is a canned answer: its type, its length, its body.
func answerOf(typ byte, body ...byte) []byte {
	m := binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(body)))
	return append(m, body...)
}

func textOf(typ byte, parts ...string) []byte {
	var body []byte
	for _, p := range parts {
		body = append(append(body, p...), 0)
	}
	return answerOf(typ, body...)
}

// The answers (section 55.7, "Message Formats").
var (
	stubHello = append(append(answerOf('R', 0, 0, 0, 0), textOf('S', "server_version", "17.0")...),
		append(textOf('S', "standard_conforming_strings", "on"), answerOf('K', 0, 0, 0, 1, 0, 0, 0, 2)...)...)
	stubParsed   = answerOf('1')
	stubBound    = answerOf('2')
	stubParams   = answerOf('t', 0, 1, 0, 0, 0, 23) // one int4
	stubColumns  = answerOf('T', 0, 1, 'n', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23, 0, 4, 0xff, 0xff, 0xff, 0xff, 0, 0)
	stubRow      = answerOf('D', 0, 1, 0, 0, 0, 4, 0, 0, 0, 1) // binary int4 1
	stubSelected = textOf('C', "SELECT 1")
	stubUpdated  = textOf('C', "UPDATE 1")
	stubBegin    = textOf('C', "BEGIN")
	stubCommit   = textOf('C', "COMMIT")
	stubNoData   = answerOf('n')
	stubIdle     = answerOf('Z', 'I')
	stubInTx     = answerOf('Z', 'T')
)

func (s *stubServer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	s.in = append(s.in, p...)
	rest := s.in
	for {
		head := 5
		if !s.began {
			head = 4
		}
		if len(rest) < head {
			break
		}
		length := int(binary.BigEndian.Uint32(rest[head-4:])) + head - 4
		if len(rest) < length {
			break
		}
		if !s.began {
			s.began = true
			s.out = append(append(s.out, stubHello...), stubIdle...)
		} else {
			s.answer(rest[0], rest[5:length])
		}
		rest = rest[length:]
	}
	s.in = append(s.in[:0], rest...)
	s.more.Signal()
	return len(p), nil
}

func (s *stubServer) answer(typ byte, body []byte) {
	switch typ {
	case 'Q':
		switch sql, _, _ := bytes.Cut(body, []byte{0}); string(sql) {
		case "begin":
			s.inTx = true
			s.out = append(s.out, stubBegin...)
		case "commit":
			s.inTx = false
			s.out = append(s.out, stubCommit...)
		default:
			s.out = append(s.out, stubUpdated...)
		}
		s.ready()
	case 'P': // its name, its text
		name, rest, _ := bytes.Cut(body, []byte{0})
		s.statements[string(name)] = bytes.HasPrefix(rest, []byte("select"))
		s.out = append(s.out, stubParsed...)
	case 'D': // S and a statement, or P and a portal
		if name := body[1 : len(body)-1]; body[0] == 'S' {
			s.selects = s.statements[string(name)]
			s.out = append(s.out, stubParams...)
		}
		if s.selects {
			s.out = append(s.out, stubColumns...)
		} else {
			s.out = append(s.out, stubNoData...)
		}
	case 'B': // a portal, a statement
		_, rest, _ := bytes.Cut(body, []byte{0})
		name, _, _ := bytes.Cut(rest, []byte{0})
		s.selects = s.statements[string(name)]
		s.out = append(s.out, stubBound...)
	case 'E':
		if s.selects {
			s.out = append(append(s.out, stubRow...), stubSelected...)
		} else {
			s.out = append(s.out, stubUpdated...)
		}
	case 'S':
		s.ready()
	case 'X':
		s.closed = true
	}
}

func (s *stubServer) ready() {
	if s.inTx {
		s.out = append(s.out, stubInTx...)
	} else {
		s.out = append(s.out, stubIdle...)
	}
}

// Read has all answers already, as who asks first sends first. Only what pgx reads in the background has to wait.
func (s *stubServer) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && s.read == len(s.out) {
		s.more.Wait()
	}
	if s.closed {
		return 0, io.EOF
	}
	n := copy(p, s.out[s.read:])
	if s.read += n; s.read == len(s.out) {
		s.out, s.read = s.out[:0], 0
	}
	return n, nil
}

func (s *stubServer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.more.Broadcast()
	return nil
}

func (s *stubServer) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *stubServer) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *stubServer) SetDeadline(time.Time) error      { return nil }
func (s *stubServer) SetReadDeadline(time.Time) error  { return nil }
func (s *stubServer) SetWriteDeadline(time.Time) error { return nil }
