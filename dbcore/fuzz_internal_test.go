package dbcore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// said is a connection on which the other side has said all that it will ever say.
type said struct {
	net.Conn
	in io.Reader
}

func (c said) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c said) Write(p []byte) (int, error)      { return len(p), nil }
func (c said) SetWriteDeadline(time.Time) error { return nil }

func message(typ byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(body)))) + body
}

func dataRow(columns ...string) string {
	body := binary.BigEndian.AppendUint16(nil, uint16(len(columns)))
	for _, c := range columns {
		body = append(binary.BigEndian.AppendUint32(body, uint32(len(c))), c...)
	}
	return message('D', string(body))
}

// What a server answers to BASE_BACKUP before the archives, and after them.
var (
	answerPosition = message('T', "\x00\x00") + dataRow("0/2000028", "1") + message('C', "SELECT\x00")
	answerBegin    = answerPosition + message('T', "\x00\x00") + dataRow("16385", "/space", "17") + message('C', "SELECT\x00") + message('H', "\x00\x00\x00")
	answerEnd      = message('c', "") + answerPosition + message('C', "BASE_BACKUP\x00") + message('Z', "I")
)

// heard is what a base backup's answer says.
type heard struct {
	archives []Archive
	content  []byte
	stop     LSN
}

// hear reads an answer from its first byte to its last, as BaseBackup, Next, Read and Finish do in turn. It leaves out
// their care for contexts and for the connection.
func hear(answer string) (heard, *wire, error) {
	var h heard
	conn := said{in: strings.NewReader(answer)}
	s := &BaseBackupStream{
		owner: &ReplicationConn{}, wire: newWire(conn, 0), onNotice: func(Notice) {},
		hijacked: &pgconn.HijackedConn{Conn: conn, ParameterStatuses: map[string]string{}},
	}
	if err := s.start("BASE_BACKUP"); err != nil {
		return h, s.wire, err
	}
	buf := make([]byte, 100)
	for !s.ended {
		if s.wire.left > 0 {
			n, err := s.wire.payload(buf)
			if h.content = append(h.content, buf[:n]...); err != nil {
				return h, s.wire, err
			}
			continue
		}
		if err := s.advance(); err != nil {
			return h, s.wire, err
		}
		if s.pending != nil {
			h.archives = append(h.archives, *s.pending)
			s.pending, s.opened = nil, true
		}
	}
	rows, err := s.table(2)
	if err != nil {
		return h, s.wire, err
	}
	if len(rows) != 1 {
		return h, s.wire, ErrProtocol
	}
	h.stop, _, err = parsePosition(rows[0])
	return h, s.wire, errors.Join(err, s.expect('C'), s.expect('Z'))
}

// FuzzBaseBackupAnswer plays hostile servers. What is kept of an answer is no larger than the answer, but for a bounded
// room for one message; and what a server says of archives and content arrives as it was said.
func FuzzBaseBackupAnswer(f *testing.F) {
	archive := message('d', "nbase.tar\x00\x00")
	f.Add(answerBegin+archive+message('d', "dabc")+message('d', "p\x00\x00\x00\x00\x00\x00\x00\x03")+message('S', "a\x00b\x00")+
		message('N', "SNOTICE\x00VNOTICE\x00C00000\x00Mhello\x00\x00")+message('d', "m")+message('d', "d{}")+answerEnd, "base.tar", "", []byte("x"))
	f.Add(answerBegin+message('E', "SERROR\x00CXX001\x00Mbad\x00\x00"), "16385.tar", "/space", bytes.Repeat([]byte{7}, 1000))
	f.Add("T\xff\xff\xff\xff", "", "", []byte{})
	f.Add("T\x00\x00\x00\x04D\x00\x00\x00\x03", "", "", []byte{}) // a length counts its own 4 bytes
	f.Add("T\x00\x00\x00\x04D\x00\x00\x00\x06\xff\xff", "", "", []byte{})
	f.Add(answerBegin+"d\x3f\xff\xff\xffnbase", "", "", []byte{})
	f.Fuzz(func(t *testing.T, answer, name, space string, content []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		h, w, _ := hear(answer)
		runtime.ReadMemStats(&after)
		const room = wireBuffer + maxBody + 4<<20 // a buffer, one message, its 65535 columns
		if got := after.TotalAlloc - before.TotalAlloc; got > uint64(room+100*len(answer)) {
			t.Fatalf("%d bytes were allocated for an answer of %d", got, len(answer))
		}
		if len(h.content) > len(answer) || len(w.buf) > maxBody {
			t.Fatalf("%d bytes of an answer of %d, in a buffer of %d", len(h.content), len(answer), len(w.buf))
		}
		if strings.Contains(name+space, "\x00") {
			return
		}
		good := answerBegin + message('d', "n"+name+"\x00"+space+"\x00")
		for part := range bytes.SplitSeq(content, []byte{0}) {
			good += message('d', "d"+string(part))
		}
		h, _, err := hear(good + answerEnd)
		want := Archive{Name: name, TablespacePath: space}
		if err != nil || len(h.archives) != 1 || h.archives[0] != want || h.stop != 0x2000028 ||
			!bytes.Equal(h.content, bytes.ReplaceAll(content, []byte{0}, nil)) {
			t.Fatalf("%q, %q with %q was heard as %+v, %v", name, space, content, h, err)
		}
	})
}

// TestTable_OfAHostileServer: rows are gathered, so there is a bound for all of them, not only for each.
func TestTable_OfAHostileServer(t *testing.T) {
	row := dataRow("1", strings.Repeat("x", 1<<20), "17")
	answer := answerPosition + message('T', "\x00\x00") + strings.Repeat(row, 2*maxBody>>20)
	if _, _, err := hear(answer + message('C', "SELECT\x00") + message('H', "\x00\x00\x00") + answerEnd); !errors.Is(err, ErrProtocol) {
		t.Errorf("32 MiB of tablespaces: %v", err)
	}
}

// FuzzLSN reads a hostile position, and prints and reads an arbitrary one.
func FuzzLSN(f *testing.F) {
	for _, s := range []string{"0/0", "16/b374d848", "ffffffff/FFFFFFFF", "000000001/0", "0x1/2", "1_0/2", "+1/2", "/", "1/2/3"} {
		f.Add(s, uint64(len(s))<<30)
	}
	f.Fuzz(func(t *testing.T, s string, n uint64) {
		if v, err := ParseLSN(LSN(n).String()); err != nil || v != LSN(n) {
			t.Fatalf("%X was printed as %s and read as %v, %v", n, LSN(n), v, err)
		}
		v, err := ParseLSN(s)
		if err != nil {
			if v != 0 || !errors.Is(err, ErrInvalidLSN) {
				t.Fatalf("%q: %v, %v", s, v, err)
			}
			return
		}
		var again LSN
		slash := strings.IndexByte(s, '/')
		if err := again.Scan(v.String()); err != nil || again != v || len(s[:slash]) > 8 || len(s[slash+1:]) > 8 || strings.Trim(s, "0123456789abcdefABCDEF") != "/" {
			t.Fatalf("%q was read as %v, then %v, %v", s, v, again, err)
		}
	})
}
