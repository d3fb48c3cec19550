package repo

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"hash/crc32"
)

// ID names a chunk, node or page: BLAKE3 of its plain bytes, keyed with the repository's naming key, 32 bytes.
type ID [32]byte

// String is the ID in lower-case hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText and UnmarshalText write the ID as hexadecimal in JSON.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(text []byte) error { return unhex(id[:], text) }

// PackID names a pack. It is the pack's salt: 256 random bits (R13).
type PackID [32]byte

// String is the PackID in lower-case hexadecimal.
func (id PackID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText writes the PackID as hexadecimal in JSON.
func (id PackID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *PackID) UnmarshalText(text []byte) error { return unhex(id[:], text) }

func unhex(dst, text []byte) error {
	if hex.DecodedLen(len(text)) != len(dst) || len(text)%2 != 0 {
		return fmt.Errorf("id %q: want %d hexadecimal digits", text, 2*len(dst))
	}
	_, err := hex.Decode(dst, text)
	return err
}

// newPackID draws a fresh name. crypto/rand.Read never fails: it ends the program instead.
func newPackID() (id PackID) {
	_, _ = rand.Read(id[:])
	return id
}

// Ref is the place of one frame in a pack, with all that is needed to check it: any frame is had by one ranged read.
type Ref struct {
	ID     ID     `json:"id"`     // of the plain bytes
	Pack   PackID `json:"pack"`   // which pack
	Frame  uint32 `json:"frame"`  // number of the frame in the pack, from 0
	Offset uint32 `json:"offset"` // of the sealed bytes in the object
	Stored uint32 `json:"stored"` // sealed length in bytes, tag included
	Raw    uint32 `json:"raw"`    // plain length in bytes
}

// Chunk is a Ref to file content, with the CRC-32C (Castagnoli) of the plain bytes. CRCs of neighbours combine, so a
// backup_manifest can be made without reading the data (R9).
type Chunk struct {
	Ref
	CRC uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
