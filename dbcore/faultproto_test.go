package dbcore_test

import (
	"encoding/binary"
	"io"
	"strings"
)

// readMessage reads one message whose header, with the length at its end, has this many bytes.
func readMessage(r io.Reader, header int) ([]byte, error) {
	m := make([]byte, header, 256)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(m[header-4:])) - 4
	if n < 0 || n > 1<<24 {
		return nil, io.ErrUnexpectedEOF
	}
	m = append(m, make([]byte, n)...)
	_, err := io.ReadFull(r, m[header:])
	return m, err
}

// readRequest reads up to the message to which the server answers with ReadyForQuery (section 55.2.3, "Extended Query").
func readRequest(r io.Reader) (request []byte, executes bool, err error) {
	for {
		m, err := readMessage(r, 5)
		if err != nil {
			return nil, false, err
		}
		request = append(request, m...)
		switch m[0] {
		case 'E':
			executes = true
		case 'Q':
			return request, true, nil
		case 'S', 'X':
			return request, executes, nil
		}
	}
}

// startupParameter finds a parameter in a startup message: length, version, then names and values.
func startupParameter(startup []byte, name string) string {
	words := strings.Split(string(startup[8:]), "\x00")
	for i := 0; i+1 < len(words); i += 2 {
		if words[i] == name {
			return words[i+1]
		}
	}
	return ""
}
