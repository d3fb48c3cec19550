package pg

import (
	"fmt"
	"regexp"
	"strconv"
)

// DefaultSegmentBlocks is RELSEG_SIZE as everyone builds PostgreSQL: a relation's fork is cut into files of that many
// blocks, 1 GB.
const DefaultSegmentBlocks = 131072

// Relations in all their forks, in databases, shared and in tablespaces (common/relpath.c; pg_checksums.c scans the same).
var relationFile = regexp.MustCompile(`^(?:base/\d+|global|pg_tblspc/\d+/PG_[^/]+/\d+)/\d+(?:_fsm|_vm|_init)?(?:\.(\d+))?$`)

// RelationFile tells whether the file at path, relative to the data directory, consists of pages with checksums, and
// which of its fork's files it is: 2 for "base/5/16384.2", 0 for the first.
func RelationFile(path string) (segment uint32, ok bool) {
	match := relationFile.FindStringSubmatch(path)
	if match == nil || match[1] == "" {
		return 0, match != nil
	}
	n, err := strconv.ParseUint(match[1], 10, 15) // no relation has more files
	return uint32(n), err == nil
}

// PageProblem tells what is wrong with a page by its own checksum; "" if nothing is. A page that is marked as new must be
// all zero (PageIsVerified, storage/page/bufpage.c).
func PageProblem(page []byte, block uint32) string {
	if PageIsNew(page) {
		if PageIsZero(page) {
			return ""
		}
		return "the page is marked as new, but is not empty"
	}
	if want, have := PageChecksum(page, block), StoredChecksum(page); want != have {
		return fmt.Sprintf("page checksum is %04X, its content gives %04X", have, want)
	}
	return ""
}
