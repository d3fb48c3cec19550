package basebackup

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"lifeboat/internal/pg"
)

// What recovery reads of a backup_label (read_backup_label in access/transam/xlogrecovery.c).
var (
	labelStart    = regexp.MustCompile(`(?m)^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+) \(file [0-9A-F]{24}\)$`)
	labelTimeline = regexp.MustCompile(`(?m)^START TIMELINE: ([0-9]+)$`)
)

// parseLabel reads start position and timeline of a backup_label.
func parseLabel(text string) (start pg.LSN, timeline pg.Timeline, err error) {
	at, tl := labelStart.FindStringSubmatch(text), labelTimeline.FindStringSubmatch(text)
	if at == nil || tl == nil {
		return 0, 0, fmt.Errorf("pg_backup_stop gave a %s that names no start: %q", labelFile, text)
	}
	if start, err = pg.ParseLSN(at[1]); err != nil {
		return 0, 0, err
	}
	n, err := strconv.ParseUint(tl[1], 10, 32)
	if err != nil || n == 0 || start == 0 {
		return 0, 0, fmt.Errorf("pg_backup_stop gave a %s that begins at %v on timeline %s, which is no place in any WAL", labelFile, start, tl[1])
	}
	return start, pg.Timeline(n), nil
}

// parseMap reads a tablespace_map: lines "OID LOCATION", in whose location a backslash stands before line feeds,
// carriage returns and itself (build of the map in do_pg_backup_start, access/transam/xlog.c).
func parseMap(text string) (map[string]string, error) {
	out := map[string]string{}
	var line strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			line.WriteByte(text[i])
		case c == '\n':
			oid, location, ok := strings.Cut(line.String(), " ")
			_, twice := out[oid]
			if !ok || twice || !digits.MatchString(oid) {
				return nil, fmt.Errorf("pg_backup_stop gave a %s with the line %q", mapFile, line.String())
			}
			out[oid] = location
			line.Reset()
		default:
			line.WriteByte(c)
		}
	}
	if line.Len() > 0 {
		return nil, fmt.Errorf("pg_backup_stop gave a %s that ends in %q", mapFile, line.String())
	}
	return out, nil
}
