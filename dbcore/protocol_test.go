package dbcore_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
)

// msg builds one message of the protocol.
func msg(typ byte, body string) string {
	return string(binary.BigEndian.AppendUint32([]byte{typ}, uint32(4+len(body)))) + body
}

// row builds a DataRow of text columns.
func row(columns ...string) string {
	body := binary.BigEndian.AppendUint16(nil, uint16(len(columns)))
	for _, c := range columns {
		body = append(binary.BigEndian.AppendUint32(body, uint32(len(c))), c...)
	}
	return msg('D', string(body))
}

// walsender plays the server's part: the startup with a setting that changes right after it, and an answer to the
// first query.
func walsender(c net.Conn, answer string) {
	defer c.Close()
	buf := make([]byte, 4096)
	if _, err := c.Read(buf); err != nil {
		return
	}
	_, _ = io.WriteString(c, msg('R', "\x00\x00\x00\x00")+msg('S', "server_version\x0015.4\x00")+msg('Z', "I")+
		msg('S', "application_name\x00late\x00"))
	if _, err := c.Read(buf); err != nil {
		return
	}
	_, _ = io.WriteString(c, answer)
	_, _ = c.Read(buf) // until the client hangs up
}

// TestProtocolViolations: a server, or something in between, that sends nonsense ends the stream with an error. It
// never looks like a complete backup.
func TestProtocolViolations(t *testing.T) {
	position := msg('T', "\x00\x00") + row("0/2000028", "1") + msg('C', "SELECT\x00")
	header := position + msg('T', "\x00\x00") + row("1", "/space", "17") + msg('C', "SELECT\x00") + msg('H', "\x00\x00\x00")
	archive := msg('d', "nbase.tar\x00\x00")
	end := msg('c', "") + position + msg('C', "BASE_BACKUP\x00") + msg('Z', "I")
	for _, c := range []struct {
		name, answer string
		is           error // nil: the backup is complete, with content
		content      string
	}{
		{name: "sound", answer: header + archive + msg('d', "dabc") + msg('d', "d") + msg('S', "a\x00b\x00") + msg('d', "p\x00\x00\x00\x00\x00\x00\x00\x03") + msg('A', "0000x\x00y\x00") + msg('d', "ddef") + end, content: "abcdef"},
		{name: "no archives", answer: header + end},
		{name: "cut in a header", answer: header[:20], is: io.ErrUnexpectedEOF},
		{name: "cut in the data", answer: header + archive + msg('d', "dabcdef")[:8], is: io.ErrUnexpectedEOF},
		{name: "cut before the stop position", answer: header + archive + msg('c', ""), is: io.ErrUnexpectedEOF},
		{name: "cut after the stop position", answer: header + archive + msg('c', "") + position, is: io.ErrUnexpectedEOF},
		{name: "data before an archive", answer: header + msg('d', "dabc") + end, is: dbcore.ErrProtocol},
		{name: "unknown kind", answer: header + archive + msg('d', "x") + end, is: dbcore.ErrProtocol},
		{name: "empty copy data", answer: header + archive + msg('d', "") + end, is: dbcore.ErrProtocol},
		{name: "short progress", answer: header + archive + msg('d', "p\x00") + end, is: dbcore.ErrProtocol},
		{name: "header of an archive", answer: header + msg('d', "nbase.tar") + end, is: dbcore.ErrProtocol},
		{name: "row inside the stream", answer: header + archive + row("1") + end, is: dbcore.ErrProtocol},
		{name: "length too small", answer: header + archive + "d\x00\x00\x00\x03", is: dbcore.ErrProtocol},
		{name: "length too large", answer: header + archive + "d\xff\xff\xff\xff", is: dbcore.ErrProtocol},
		{name: "huge notice", answer: header + archive + "N\x3f\xff\xff\xff", is: dbcore.ErrProtocol},
		{name: "broken error", answer: header + archive + msg('E', "M"), is: dbcore.ErrProtocol},
		{name: "no start position", answer: msg('T', "\x00\x00") + msg('C', "SELECT\x00"), is: dbcore.ErrProtocol},
		{name: "bad start position", answer: strings.Replace(header, "0/2000028", "0-2000028", 1), is: dbcore.ErrProtocol},
		{name: "bad tablespace", answer: strings.Replace(header, "\x00\x00\x00\x011", "\x00\x00\x00\x01x", 2), is: dbcore.ErrProtocol},
		{name: "bad size", answer: strings.Replace(header, "17", "1x", 1), is: dbcore.ErrProtocol},
		{name: "no copy stream", answer: strings.Replace(header, "H", "G", 1), is: dbcore.ErrProtocol},
		{name: "no end", answer: header + archive + msg('c', "") + position + msg('Z', "I"), is: dbcore.ErrProtocol},
		{name: "silence", answer: header + archive + msg('d', "dabc"), is: dbcore.ErrStalled},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := tcpConfig()
			cut := errors.Is(c.is, io.ErrUnexpectedEOF)
			cfg.SSLMode, cfg.Port = "disable", listenTest(t, func(conn net.Conn) {
				if !cut {
					walsender(conn, c.answer)
					return
				}
				walsender(&hangUp{Conn: conn}, c.answer)
			})
			rc := connectReplication(t, cfg)
			content, err := readAll(t, rc)
			if c.is == nil && (err != nil || content != c.content || rc.Closed()) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %q, %v, want %q, %v", content, err, c.content, c.is)
			}
			if c.is != nil && !rc.Closed() {
				t.Error("the connection is not closed")
			}
		})
	}
}

// hangUp closes the connection after the second write, the answer, instead of waiting for the client.
type hangUp struct {
	net.Conn
	writes int
}

func (h *hangUp) Write(p []byte) (int, error) {
	n, err := h.Conn.Write(p)
	if h.writes++; h.writes == 2 {
		h.Conn.Close()
	}
	return n, err
}

func readAll(t *testing.T, rc *dbcore.ReplicationConn) (string, error) {
	s, err := rc.BaseBackup(t.Context(), dbcore.BaseBackupOptions{IdleTimeout: 200 * time.Millisecond, StartTimeout: 5 * time.Second})
	if err != nil {
		return "", err
	}
	defer s.Close()
	if got := rc.Parameter("application_name"); got != "late" {
		t.Errorf("a setting that changed before the backup is %q", got)
	}
	content := ""
	for {
		if _, err := s.Next(t.Context()); err == io.EOF {
			_, err := s.Finish(t.Context())
			return content, err
		} else if err != nil {
			return content, err
		}
		all, err := io.ReadAll(s)
		content += string(all)
		if err != nil {
			return content, err
		}
	}
}
