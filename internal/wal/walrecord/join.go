package walrecord

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"

	"lifeboat/internal/pg"
)

// MaxPiece is how many bytes of a crossing record a [Tail] and a [Head] keep. That
// reaches to every fact but the xid of a prepared transaction with a great many
// subtransactions, dropped relations or invalidations.
const MaxPiece = 8 << 10

// Tail is the beginning of a record that goes on in the next segment.
type Tail struct {
	LSN    pg.LSN `json:"lsn"`            // where the record begins
	Prev   pg.LSN `json:"prev,omitempty"` // the record before it in this segment
	Next   pg.LSN `json:"next"`           // where it goes on: the end of the segment
	Magic  uint16 `json:"magic"`
	Total  uint32 `json:"total"`  // length of the record
	Length uint32 `json:"length"` // how much of it is in this segment
	CRC    uint32 `json:"crc"`    // CRC-32C of that, without the record's header
	// Bytes is the beginning of it, at most MaxPiece. Of a record that can carry no
	// fact only the header is kept.
	Bytes []byte `json:"bytes"`
}

// Head is the rest, or a further part, of a record that began in an earlier segment.
type Head struct {
	At        pg.LSN `json:"at"`             // where the segment begins
	Remaining uint32 `json:"remaining"`      // how much of the record is still to come at At
	Length    uint32 `json:"length"`         // how much of that is in this segment
	CRC       uint32 `json:"crc"`            // CRC-32C of that
	End       pg.LSN `json:"end,omitempty"`  // where the record ends, if it ends in this segment
	Next      pg.LSN `json:"next,omitempty"` // where it goes on, if it fills this segment
	Bytes     []byte `json:"bytes"`          // the beginning of it, at most MaxPiece
	// Overwritten: PostgreSQL crashed before it had written the rest, and gave the record
	// up (XLP_FIRST_IS_OVERWRITE_CONTRECORD). It has no effect.
	Overwritten bool `json:"overwritten,omitempty"`
}

func (h *Head) add(remaining uint32, p []byte) {
	if h == nil {
		return
	}
	if h.Length == 0 {
		h.Remaining = remaining
	}
	h.Length += uint32(len(p))
	h.CRC = crc32.Update(h.CRC, castagnoli, p)
	if room := MaxPiece - len(h.Bytes); room > 0 {
		h.Bytes = append(h.Bytes, p[:min(room, len(p))]...)
	}
}

func (h *Head) finish(end pg.LSN) {
	if h != nil {
		h.End = end
	}
}

// tail gives what is there of an unfinished record.
func (a *assembly) tail(next pg.LSN, magic uint16, prev pg.LSN) *Tail {
	t := &Tail{LSN: a.lsn, Prev: prev, Next: next, Magic: magic, Total: a.total, Length: a.got, CRC: a.crc}
	t.Bytes = bytes.Clone(a.head[:min(a.got, recordHeader)])
	if a.haveHeader() && bearsFacts(Rmgr(a.head[17]), a.head[16]) {
		t.Bytes = append(t.Bytes, a.body[:min(len(a.body), MaxPiece-recordHeader)]...)
	}
	return t
}

// Errors of [Join].
var (
	// ErrOverwritten: the record was given up, and there is no fact in it.
	ErrOverwritten = errors.New("the crossing record was never completed and is written over")
	// ErrUnfinished: more segments are needed.
	ErrUnfinished = errors.New("the crossing record goes on in the segment after these")
	// ErrMismatch: the parts are not of one record.
	ErrMismatch = errors.New("the parts of the crossing record do not belong together")
)

// Join gives the event of the record that begins with tail and goes on in heads, those
// of the segments that follow, in order. One is enough unless the record is longer than
// a segment (see Facts.Covers). The record's CRC is checked over all of it, whatever
// was kept of it.
//
// The event is empty for a record that tells nothing. That of a switch ends with its
// record, and not, as a Reader has it, with the segment. The transaction of an event has
// XIDUnknown set if the parts that were kept do not reach far enough.
func Join(tail *Tail, heads ...*Head) (Event, error) {
	if tail == nil || len(heads) == 0 || heads[0] == nil {
		return Event{}, fmt.Errorf("join WAL record: %w: a part is missing", ErrMismatch)
	}
	fail := func(err error) (Event, error) {
		return Event{}, fmt.Errorf("join WAL record at %s: %w", tail.LSN, err)
	}
	if err := checkParts(tail, heads); err != nil {
		return fail(err)
	}
	prefix := bytes.Clone(tail.Bytes)
	if len(tail.Bytes) == int(tail.Length) {
		prefix = appendHeads(prefix, heads)
	}
	if len(prefix) < recordHeader {
		return fail(fmt.Errorf("%w: its header is not there", ErrMismatch))
	}
	rec := Record{LSN: tail.LSN, End: heads[len(heads)-1].End, Major: MajorOfMagic(tail.Magic)}
	crc := rec.setHeader(prefix)
	if rec.Length != tail.Total || !rec.Rmgr.Valid() || rec.Prev >= tail.LSN || (tail.Prev != 0 && rec.Prev != tail.Prev) {
		return fail(fmt.Errorf("%w: its header is impossible", ErrMismatch))
	}
	if err := checkCRC(tail, heads, prefix, crc); err != nil {
		return fail(err)
	}
	if !bearsFacts(rec.Rmgr, rec.Info) {
		return Event{LSN: rec.LSN, End: rec.End}, nil
	}
	body := prefix[recordHeader:]
	n, ok := mainData(body, rec.Length-recordHeader)
	if !ok {
		return fail(fmt.Errorf("%w: its layout cannot be read", ErrMismatch))
	}
	rec.MainLen = n
	if at := rec.Length - recordHeader - n; uint64(at) < uint64(len(body)) {
		rec.Main = body[at:]
	}
	return Decode(&rec)
}

// appendHeads adds the bytes of the heads, up to the first of which not all was kept.
func appendHeads(prefix []byte, heads []*Head) []byte {
	for _, h := range heads {
		prefix = append(prefix, h.Bytes...)
		if len(h.Bytes) < int(h.Length) {
			break
		}
	}
	return prefix
}

// checkParts checks that the parts follow each other and make up the record's length.
func checkParts(tail *Tail, heads []*Head) error {
	if len(tail.Bytes) > int(tail.Length) || tail.Length >= tail.Total || tail.Total < recordHeader ||
		len(tail.Bytes) < min(int(tail.Length), recordHeader) {
		return fmt.Errorf("%w: its beginning is impossible", ErrMismatch)
	}
	at, left := tail.Next, tail.Total-tail.Length
	for i, h := range heads {
		switch {
		case h == nil:
			return fmt.Errorf("%w: a part is missing", ErrMismatch)
		case h.At != at:
			return fmt.Errorf("%w: it goes on at %s, but the part is of %s", ErrMismatch, at, h.At)
		case h.Overwritten:
			return ErrOverwritten
		case h.Remaining != left || h.Length > left || h.Length == 0 || len(h.Bytes) > int(h.Length):
			return fmt.Errorf("%w: %d bytes are missing at %s, but %d go on there", ErrMismatch, left, h.At, h.Remaining)
		case h.Length == left && i < len(heads)-1:
			return fmt.Errorf("%w: it ends before the last part", ErrMismatch)
		}
		at, left = h.Next, left-h.Length
	}
	if left > 0 {
		return ErrUnfinished
	}
	return nil
}

// checkCRC proves the record by the CRC over all its parts.
func checkCRC(tail *Tail, heads []*Head, prefix []byte, want uint32) error {
	crc := tail.CRC
	for i, part := range heads {
		partCRC, length := part.CRC, part.Length
		if i == 0 && tail.Length < recordHeader {
			// The first bytes of this part are the end of the header.
			n := recordHeader - tail.Length
			if uint32(len(part.Bytes)) < n {
				return fmt.Errorf("%w: its header is not there", ErrMismatch)
			}
			length -= n
			partCRC ^= crcShift(crc32.Checksum(part.Bytes[:n], castagnoli), length)
		}
		crc = crcShift(crc, length) ^ partCRC
	}
	if finishCRC(crc, prefix) != want {
		return fmt.Errorf("%w: its checksum does not hold", ErrMismatch)
	}
	return nil
}

// crcShift makes of the CRC-32C of some bytes its share in the CRC of these bytes
// followed by n more: crc(ab) = crcShift(crc(a), len(b)) ^ crc(b). It multiplies by
// x^8n modulo the polynomial, as crc32_combine of zlib does.
func crcShift(crc uint32, n uint32) uint32 {
	power := uint32(1) << 23 // x^8, bits reflected: x^0 is the top bit
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			crc = crcMultiply(power, crc)
		}
		power = crcMultiply(power, power)
	}
	return crc
}

func crcMultiply(a, b uint32) uint32 {
	var p uint32
	for m := uint32(1) << 31; m != 0; m >>= 1 {
		if a&m != 0 {
			p ^= b
		}
		if b&1 != 0 {
			b = b>>1 ^ crc32.Castagnoli
		} else {
			b >>= 1
		}
	}
	return p
}
