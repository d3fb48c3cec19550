package basebackup

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
	"unicode/utf8"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// manifestTime is how a backup_manifest writes times, always in GMT.
const manifestTime = "2006-01-02 15:04:05 GMT"

// writeManifest writes a backup_manifest in the very form in which the server does (backup/backup_manifest.c; the format
// is documented in "Backup Manifest Format"), from what was read and hashed (R9). Version 2, since PostgreSQL 17, names
// the system identifier. It lists all files but itself and tablespace_map, which no restore lays: it would lead the
// restored server to the tablespaces of the live one (R1).
func writeManifest(out io.Writer, m *repo.Manifest, stop pg.LSN, files iter.Seq[repo.Entry]) error {
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(out, sum), 64<<10)
	if m.PostgresMajor >= 17 {
		fmt.Fprintf(w, "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": %v,\n\"Files\": [", m.SystemID)
	} else {
		fmt.Fprint(w, "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [")
	}
	separator := "\n"
	for e := range files {
		if e.Type != repo.TypeFile || e.Path == mapFile || e.Path == manifestFile {
			continue
		}
		if _, err := w.WriteString(separator + manifestLine(&e)); err != nil {
			return err
		}
		separator = ",\n"
	}
	fmt.Fprintf(w, "\n],\n\"WAL-Ranges\": [\n{ \"Timeline\": %d, \"Start-LSN\": \"%v\", \"End-LSN\": \"%v\" }\n],\n", m.Timeline, m.StartLSN, stop)
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\"Manifest-Checksum\": \"%x\"}\n", sum.Sum(nil))
	return err
}

// manifestLine describes one file. The checksum is that of the writer, CRC-32C over the whole content, as the server's
// memory has it: little-endian, on every machine that Lifeboat runs on.
func manifestLine(e *repo.Entry) string {
	path := `"Encoded-Path": "` + hex.EncodeToString([]byte(e.Path)) + `"`
	if utf8.ValidString(e.Path) {
		path = `"Path": ` + quoteJSON(e.Path)
	}
	crc := binary.LittleEndian.AppendUint32(nil, e.CRC)
	return fmt.Sprintf("{ %s, \"Size\": %d, \"Last-Modified\": \"%s\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"%x\" }",
		path, e.Size, e.ModTime.UTC().Truncate(time.Second).Format(manifestTime), crc)
}

// quoteJSON is escape_json of utils/adt/json.c: what is not ASCII stays as it is.
func quoteJSON(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\b':
			b.WriteString(`\b`)
		case c == '\f':
			b.WriteString(`\f`)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < ' ':
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
