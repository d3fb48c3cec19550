package walrecord

import (
	"fmt"

	"lifeboat/internal/pg"
)

// Reason says why WAL ends at a position. It is the text that stands in JSON.
type Reason string

// The reasons. Only the first three are how an undamaged archive ends; any may be how
// the WAL of a crashed server ends, since a recycled file holds old bytes.
const (
	NoMoreSegments      Reason = "noMoreSegments"      // the source has no further segment
	ZeroLength          Reason = "zeroLength"          // zeroes where a record would begin: nothing was written yet
	ZeroPage            Reason = "zeroPage"            // zeroes where the next page would begin
	ShortSegment        Reason = "shortSegment"        // the file is shorter than a segment
	BadLength           Reason = "badLength"           // a record length below that of a record header
	BadCRC              Reason = "badCrc"              // a record's checksum does not match
	BadPrev             Reason = "badPrev"             // a record does not point back to the one before it
	BadRmgr             Reason = "badRmgr"             // a resource manager that cannot be
	BadRecord           Reason = "badRecord"           // the checksum holds, but the parts do not add up
	BadPageMagic        Reason = "badPageMagic"        // no WAL page, or of another PostgreSQL version
	BadPageAddress      Reason = "badPageAddress"      // a page that belongs elsewhere: a recycled file
	BadPageHeader       Reason = "badPageHeader"       // flags or sizes that cannot be
	BadSystemID         Reason = "badSystemId"         // a segment of another cluster
	BadTimeline         Reason = "badTimeline"         // timelines that go back, or beyond the file's own
	MissingContrecord   Reason = "missingContrecord"   // a record's rest is not on the next page
	BadContrecordLength Reason = "badContrecordLength" // the rest on the next page is not as long as it must be
	StrayContrecord     Reason = "strayContrecord"     // a page continues a record that had ended
)

// EndOfWAL is where valid WAL ends, and why. It is an error only in form: a [Reader]
// returns it for every kind of end, so look at Reason.
type EndOfWAL struct {
	// LSN is the end of the last complete record, or the start of the page behind it:
	// where the next record, or the incomplete one, begins.
	LSN    pg.LSN `json:"lsn"`
	Reason Reason `json:"reason"`
	Detail string `json:"detail,omitempty"`
}

// Error tells all three.
func (e *EndOfWAL) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("WAL ends at %s: %s", e.LSN, e.Reason)
	}
	return fmt.Sprintf("WAL ends at %s: %s: %s", e.LSN, e.Reason, e.Detail)
}

// Unwritten reports whether the WAL simply stops: the source has no more, or what
// follows is zeroes. Every other reason means bytes that are not the WAL that was
// expected.
func (e *EndOfWAL) Unwritten() bool {
	return e.Reason == NoMoreSegments || e.Reason == ZeroLength || e.Reason == ZeroPage
}
