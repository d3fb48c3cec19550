package pg

import "encoding/binary"

// BlockSize is the size of a data page, BLCKSZ as everyone builds PostgreSQL.
const BlockSize = 8192

// The place of the fields in a page header (storage/bufpage.h).
const (
	offPageChecksum = 8
	offPageUpper    = 14
	pageHeaderSize  = 24
)

// PageLSN is the end of the last WAL record that changed the page (pd_lsn). Zero for a
// page shorter than a header.
func PageLSN(page []byte) LSN {
	if len(page) < pageHeaderSize {
		return 0
	}
	return LSN(uint64(binary.LittleEndian.Uint32(page))<<32 | uint64(binary.LittleEndian.Uint32(page[4:])))
}

// PageIsNew reports whether the page was allocated and never initialised (pd_upper is
// 0). Such a page has no checksum, and is sound only if [PageIsZero].
func PageIsNew(page []byte) bool {
	return len(page) >= pageHeaderSize && binary.LittleEndian.Uint16(page[offPageUpper:]) == 0
}

// PageIsZero reports whether every byte is 0.
func PageIsZero(page []byte) bool {
	for len(page) >= 8 {
		if binary.LittleEndian.Uint64(page) != 0 {
			return false
		}
		page = page[8:]
	}
	for _, b := range page {
		if b != 0 {
			return false
		}
	}
	return true
}

// StoredChecksum is the checksum in the page's header. Zero means that it was written
// without one; a computed checksum is never zero.
func StoredChecksum(page []byte) uint16 {
	if len(page) < pageHeaderSize {
		return 0
	}
	return binary.LittleEndian.Uint16(page[offPageChecksum:])
}

const (
	nSums    = 32
	fnvPrime = 16777619
)

// The initial values of the 32 partial sums, from storage/checksum_impl.h. Each step
// adds one word to each of them.
var checksumBase = [nSums]uint32{
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
}

// PageChecksum computes what pd_checksum must be for the page as block blockNo of its
// relation fork (pg_checksum_page, storage/checksum_impl.h). Block numbers count
// through the fork, not through its 1 GB files: block 0 of file "16384.1" is 131072.
// The stored checksum is left out of the sum and the page is not changed.
//
// A new page ([PageIsNew]) has no checksum and must not be asked for. The result is
// never 0, except for a page whose length is not a positive multiple of 128, which
// nothing can match.
func PageChecksum(page []byte, blockNo uint32) uint16 {
	if len(page) == 0 || len(page)%(4*nSums) != 0 {
		return 0
	}
	sums := checksumBase
	// The first row holds the header; the word with the checksum (and pd_flags in its
	// upper half) is added without it.
	var row [nSums]uint32
	for j := range row {
		row[j] = binary.LittleEndian.Uint32(page[4*j:])
	}
	row[offPageChecksum/4] &= 0xFFFF0000
	for j := range sums {
		sums[j] = mix(sums[j] ^ row[j])
	}
	for p := page[4*nSums:]; len(p) >= 4*nSums; p = p[4*nSums:] {
		r := (*[4 * nSums]byte)(p)
		for j := range sums {
			sums[j] = mix(sums[j] ^ binary.LittleEndian.Uint32(r[4*j:]))
		}
	}
	var sum uint32
	for j := range sums {
		sum ^= mix(mix(sums[j])) // two rounds of zeroes
	}
	return uint16((sum^blockNo)%65535 + 1)
}

func mix(v uint32) uint32 { return v*fnvPrime ^ v>>17 }
