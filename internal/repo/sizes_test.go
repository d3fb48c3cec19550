package repo

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// Decision 0001 quotes sizes and counts. This file computes them from real encodings of synthetic nodes and pages, and
// fails when the decision says anything else. To write the new numbers into the decision:
//
//	go test ./internal/repo -run TestDecision -update

var update = flag.Bool("update", false, "write the generated tables into docs/decisions/0001-format.md")

const (
	pageSize = 8 << 10 // of PostgreSQL
	tebi     = 1 << 40
	perFile  = 1 << 30 // PostgreSQL cuts relations into files of 1 GiB

	// assumedRatio is what zstd gives for the mixed table of the decision, in chunks of 128 KiB.
	assumedRatio = 3.5
	smallFiles   = 5000 // of a cluster, beside those of 1 GiB: catalogs, maps, empty tables
)

// layout is one choice of sizes.
type layout struct{ chunk, leaf, fanOut, pack int }

func (l layout) String() string { return fmt.Sprintf("%d MiB, %d", l.leaf>>20, l.fanOut) }

var chosen = layout{128 << 10, 8 << 20, 16, 16 << 20}

// synth makes nodes whose ids look random, as they are, but are the same each time.
type synth struct{ rng *rand.ChaCha8 }

func newSynth() *synth { return &synth{rand.NewChaCha8([32]byte{1})} }

func (s *synth) packs(n int) []PackID {
	p := make([]PackID, n)
	for i := range p {
		_, _ = s.rng.Read(p[i][:])
	}
	return p
}

// ref makes the nth frame of a pack, with frames of the given length before it.
func (s *synth) ref(pack PackID, n, stored, raw int) (r Ref) {
	_, _ = s.rng.Read(r.ID[:])
	r.Pack, r.Frame, r.Offset = pack, uint32(n), uint32(headerSize+lengthSize+n*(stored+lengthSize))
	r.Stored, r.Raw = uint32(stored), uint32(raw)
	return r
}

// leafOf encodes a leaf of n chunks that lie in a number of packs, with extra extents.
func (s *synth) leafOf(n, chunk, packs int, extents []leafExtent) int {
	l := &leaf{extents: extents}
	ids := s.packs(packs)
	stored := int(float64(chunk) / assumedRatio)
	for i := range n {
		// In the middle of a pack, where numbers have their usual length.
		frame := (16 << 20) / stored / 2
		l.chunks = append(l.chunks, Chunk{s.ref(ids[i%packs], frame+i/packs, stored, chunk), uint32(s.rng.Uint64())})
	}
	return len(l.encode())
}

func (s *synth) indexOf(n, leaf, packs int) int {
	var children []child
	ids := s.packs(packs)
	for i := range n {
		children = append(children, child{s.ref(ids[i%packs], 1000+i/packs, 3300, 3300), uint64(leaf)})
	}
	return len(encodeIndex(1, children))
}

// pageExtents cuts the pages that changed out of a leaf's chunks: changed ones lie together in the chunks behind them.
func pageExtents(l layout, changed int) (extents []leafExtent, more int) {
	chunks, pages := l.leaf/l.chunk, l.chunk/pageSize
	every := chunks * pages / changed
	at := 0
	for c := range chunks {
		begin := 0
		for p := range pages {
			if n := c*pages + p; n%every == every/2 && at < changed {
				if p > begin {
					extents = append(extents, leafExtent{c, uint32(begin * pageSize), uint32((p - begin) * pageSize)})
				}
				extents = append(extents, leafExtent{chunks + at/pages, uint32(at % pages * pageSize), pageSize})
				at++
				begin = p + 1
			}
		}
		if begin < pages {
			extents = append(extents, leafExtent{c, uint32(begin * pageSize), uint32((pages - begin) * pageSize)})
		}
	}
	return extents, (changed + pages - 1) / pages
}

// frameCost is what a frame of a pack takes beside its payload's data: length, tag, codec and its line in the index.
const frameCost = lengthSize + tagSize + 1 + packIndexEntry

// tableSize is what the file table of many files of 1 GiB takes.
type tableSize struct {
	plain, stored, inManifest float64 // bytes a page
	entries                   float64 // a page
	manifest                  float64 // without pages
}

// tableSizes encodes such a table, once.
var tableSizes = sync.OnceValue(func() (sizes tableSize) {
	const files = 50_000
	s := newSynth()
	ids := s.packs(40)
	entries := make([]Entry, files)
	at := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for i := range entries {
		path := fmt.Sprintf("base/16384/%d", 16384+i/3)
		entries[i] = Entry{
			Path: path + []string{"", "_fsm", "_vm"}[i%3], Type: TypeFile, Mode: 0o600, CRC: uint32(s.rng.Uint64()), Size: perFile,
			ModTime: at.Add(-time.Duration(s.rng.Uint64()%1e6) * time.Second),
			root:    root{form: rootNode, level: 2, ref: Chunk{Ref: s.ref(ids[i%len(ids)], i%4000, 900, 879)}},
		}
	}
	sortEntries(entries)
	comp, _ := newCompressor(Zstd, frameSize)
	m := Manifest{Format: Format, Cluster: "orders", BackupID: "20261123T074501Z-incremental-1f3a9c", Type: Incremental, PostgresText: "15.18 (Debian 15.18-1.pgdg12+1)"}
	var bytesPlain, bytesStored int
	_ = encodePages(entries, func(first string, page []byte) error {
		payload := len(comp.payload(page))
		bytesPlain += len(page)
		bytesStored += payload + frameCost - 1
		m.Table.Pages = append(m.Table.Pages, PageRef{First: first, Ref: s.ref(ids[0], len(m.Table.Pages), payload, len(page))})
		return nil
	})
	sizes.plain, sizes.stored = float64(bytesPlain), float64(bytesStored)
	whole, pages := manifestSize(&m), float64(len(m.Table.Pages))
	m.Table.Pages = nil
	sizes.manifest = manifestSize(&m)
	sizes.plain, sizes.stored = sizes.plain/pages, sizes.stored/pages
	sizes.inManifest, sizes.entries = (whole-sizes.manifest)/pages, files/pages
	return sizes
})

// manifestSize is the length of a manifest as an object.
func manifestSize(m *Manifest) float64 {
	r, _ := newRepository(nil, defaultHeader())
	sealed, _ := r.sealJSON(KindManifest, "k", m)
	return float64(len(sealed))
}

// md writes one row of a table.
func md(out *strings.Builder, cells ...any) {
	for _, c := range cells {
		fmt.Fprintf(out, "| %v ", c)
	}
	out.WriteString("|\n")
}

func heading(out *strings.Builder, cells ...any) {
	md(out, cells...)
	out.WriteString(strings.Repeat("|---", len(cells)) + "|\n")
}

func size(v float64) string {
	for _, u := range []struct {
		unit string
		n    float64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if v >= u.n {
			return fmt.Sprintf("%.3g %s", v/u.n, u.unit)
		}
	}
	return fmt.Sprintf("%.0f B", v)
}

func count(v float64) string {
	switch v = math.Ceil(v); {
	case v >= 1e6:
		return fmt.Sprintf("%.3g million", v/1e6)
	case v >= 1e4:
		return fmt.Sprintf("%.3g thousand", v/1e3)
	}
	return fmt.Sprintf("%.0f", v)
}

func percent(v float64) string { return fmt.Sprintf("%.2g %%", 100*v) }

// TestDecision_Numbers compares the tables of decision 0001 with what is computed here.
func TestDecision_Numbers(t *testing.T) {
	const file = "../../docs/decisions/0001-format.md"
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, table := range map[string]func() string{
		"encodings": encodingsTable, "full": fullTable, "incremental": incrementalTable,
		"chunks": chunkTable, "packs": packTable0001, "bound": boundTable,
	} {
		begin, end := []byte("<!-- generated: "+name+" -->\n"), []byte("<!-- end: "+name+" -->")
		i, j := bytes.Index(doc, begin), bytes.Index(doc, end)
		if i < 0 || j < i {
			t.Fatalf("%s has no place for the table %q", file, name)
		}
		want := table()
		if got := string(doc[i+len(begin) : j]); got != want {
			if !*update {
				t.Errorf("decision 0001, table %q:\n%s\nthe code gives:\n%s\n(-update writes it; read the text around it again)", name, got, want)
			}
			doc = append(append(append([]byte{}, doc[:i+len(begin)]...), want...), doc[j:]...)
		}
	}
	if *update {
		if err := os.WriteFile(file, doc, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
