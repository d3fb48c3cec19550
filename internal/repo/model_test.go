package repo

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func encodingsTable() string {
	var out strings.Builder
	s, l := newSynth(), chosen
	chunks, pages := l.leaf/l.chunk, l.leaf/pageSize
	heading(&out, "what", "bytes")
	md(&out, fmt.Sprintf("leaf of %d chunks, all in one pack", chunks), s.leafOf(chunks, l.chunk, 1, nil))
	md(&out, "the same, in 8 packs", s.leafOf(chunks, l.chunk, 8, nil))
	md(&out, "the same, each chunk in another pack: the worst", s.leafOf(chunks, l.chunk, chunks, nil))
	changed := pages / 100
	extents, more := pageExtents(l, changed)
	md(&out, fmt.Sprintf("leaf of %d chunks and the extents of %d changed pages", chunks, changed), s.leafOf(chunks+more, l.chunk, 2, extents))
	md(&out, "packs in which such a leaf may lie while it takes at most 5 % of its changed pages", packsWithin(l, changed))
	md(&out, fmt.Sprintf("index node of %d children, in one pack", l.fanOut), s.indexOf(l.fanOut, l.leaf, 1))
	md(&out, "the same, each child in another pack", s.indexOf(l.fanOut, l.leaf, l.fanOut))
	ts := tableSizes()
	md(&out, fmt.Sprintf("page of the file table, %.0f entries on average, plain", ts.entries), fmt.Sprintf("%.0f", ts.plain))
	md(&out, "the same, compressed", fmt.Sprintf("%.0f", ts.stored))
	md(&out, "entry of a file, compressed", fmt.Sprintf("%.0f", ts.stored/ts.entries))
	md(&out, "manifest without pages", fmt.Sprintf("%.0f", ts.manifest))
	md(&out, "page in the manifest", fmt.Sprintf("%.0f", ts.inManifest))
	md(&out, "frame of a pack, beside its data", frameCost)
	return out.String()
}

// metadataOfPages is what a leaf with extents and its share of the index node above take, as a share of its changed pages.
func metadataOfPages(l layout, changed, packs int) float64 {
	s := newSynth()
	extents, more := pageExtents(l, changed)
	leaf := s.leafOf(l.leaf/l.chunk+more, l.chunk, packs, extents) + frameCost
	index := s.indexOf(l.fanOut, l.leaf, min(packs, l.fanOut)) + frameCost
	return (float64(leaf) + float64(index)/float64(l.fanOut)) / float64(changed*pageSize)
}

func packsWithin(l layout, changed int) (packs int) {
	for metadataOfPages(l, changed, packs+1) <= 0.05 {
		packs++
	}
	return packs
}

// backupCost is what one backup stores and asks.
type backupCost struct {
	changed                                float64 // plain bytes of chunks that are stored
	data, leaves, indexes, pages, manifest float64 // bytes
	dataPuts, treePuts, gets               float64
}

func (c *backupCost) metadata() float64 { return c.leaves + c.indexes + c.pages + c.manifest }

// cost computes a backup of total bytes in which a share of chunks, leaves, index nodes and pages are new.
func cost(l layout, total, chunkShare, leafShare, fileShare float64, packs int) (c backupCost) {
	s := newSynth()
	inLeaf := l.leaf / l.chunk
	c.changed = total * chunkShare
	c.data = c.changed/assumedRatio + c.changed/float64(l.chunk)*(frameCost-1)
	c.leaves = total / float64(l.leaf) * leafShare * float64(s.leafOf(inLeaf, l.chunk, min(packs, inLeaf), nil)+frameCost)
	files := total / perFile
	c.indexes = files * fileShare * indexBytes(s, l, packs)
	ts := tableSizes()
	pages := math.Ceil((files + smallFiles) / ts.entries)
	c.pages = math.Max(1, math.Ceil(pages*fileShare)) * ts.stored
	c.manifest = ts.manifest + pages*ts.inManifest
	c.dataPuts = math.Ceil(c.data / float64(l.pack))
	c.treePuts = math.Ceil((c.leaves + c.indexes + c.pages) / float64(l.pack))
	perLeaf := math.Ceil(float64(l.leaf) / assumedRatio / readMost)
	c.gets = total/float64(l.leaf)*(1+perLeaf+float64(packs-1)) + files*indexNodes(l) + pages + 1
	return c
}

// indexNodes counts the index nodes of a file of 1 GiB.
func indexNodes(l layout) (n float64) {
	for nodes := perFile / l.leaf; nodes > 1; {
		nodes = (nodes + l.fanOut - 1) / l.fanOut
		n += float64(nodes)
	}
	return n
}

// indexBytes is what they take together.
func indexBytes(s *synth, l layout, packs int) (bytes float64) {
	for nodes := perFile / l.leaf; nodes > 1; {
		children := min(nodes, l.fanOut)
		nodes = (nodes + l.fanOut - 1) / l.fanOut
		bytes += float64(nodes) * float64(s.indexOf(children, l.leaf, min(packs, children))+frameCost)
	}
	return bytes
}

// touched is the share of spans of n pages that have at least one of the pages changed, at random.
func touched(share float64, n int) float64 { return 1 - math.Pow(1-share, float64(n)) }

var totals = []float64{1, 10, 100} // TiB

func fullTable() string {
	var out strings.Builder
	heading(&out, "database", "chunks", "stored data", "leaves and index nodes", "pages", "manifest", "metadata of stored", "PUT data", "PUT tree", "GET of a restore")
	for _, n := range totals {
		c := cost(chosen, n*tebi, 1, 1, 1, 1)
		md(&out, fmt.Sprintf("%.0f TiB", n), count(c.changed/float64(chosen.chunk)), size(c.data), size(c.leaves+c.indexes), size(c.pages), size(c.manifest),
			percent(c.metadata()/c.data), count(c.dataPuts), count(c.treePuts), count(c.gets))
	}
	return out.String()
}

func incrementalTable() string {
	var out strings.Builder
	heading(&out, "database, 1 % of its pages", "changed pages", "changed chunks", "stored data", "metadata", "of changed chunks", "of changed pages", "PUT", "GET of a restore")
	row := func(name string, pages float64, c backupCost) {
		md(&out, name, size(pages), size(c.changed), size(c.data), size(c.metadata()), percent(c.metadata()/c.changed), percent(c.metadata()/pages),
			count(c.dataPuts+c.treePuts+2), count(c.gets))
	}
	for _, n := range totals {
		total := n * tebi
		row(fmt.Sprintf("%.0f TiB, scattered", n), total/100, cost(chosen, total, touched(0.01, chosen.chunk/pageSize), touched(0.01, chosen.leaf/pageSize), 1, 2))
		row(fmt.Sprintf("%.0f TiB, in one range", n), total/100, cost(chosen, total, 0.01, 0.01, 0.01, 1))
	}
	return out.String()
}

func chunkTable() string {
	var out strings.Builder
	heading(&out, "chunk", "chunks of 1 TiB", "tree of a full backup", "changed chunks at 1 % scattered pages", "at 0.1 %", "at 0.01 %", "metadata of the changed chunks at 1 %", "at 0.01 %")
	for _, chunk := range []int{64 << 10, 128 << 10, 1 << 20} {
		l := chosen
		l.chunk = chunk
		full := cost(l, tebi, 1, 1, 1, 1)
		cells := []any{size(float64(chunk)), count(float64(tebi / chunk)), size(full.leaves + full.indexes)}
		for _, share := range []float64{0.01, 0.001, 0.0001} {
			cells = append(cells, percent(touched(share, chunk/pageSize)))
		}
		for _, share := range []float64{0.01, 0.0001} {
			c := cost(l, tebi, touched(share, chunk/pageSize), touched(share, l.leaf/pageSize), touched(share, perFile/pageSize), 2)
			cells = append(cells, percent(c.metadata()/c.changed))
		}
		md(&out, cells...)
	}
	return out.String()
}

func packTable0001() string {
	var out strings.Builder
	heading(&out, "pack", "PUT of a full backup of 1 TiB", "of 100 TiB", "packs in memory: 2 open, 2 on their way, 1 waiting", "LIST of all packs of 100 TiB")
	for _, pack := range []int{16 << 20, 32 << 20, 64 << 20} {
		l := chosen
		l.pack = pack
		one, hundred := cost(l, tebi, 1, 1, 1, 1), cost(l, 100*tebi, 1, 1, 1, 1)
		packs := hundred.dataPuts + hundred.treePuts
		md(&out, size(float64(pack)), count(one.dataPuts+one.treePuts), count(packs), size(5*float64(pack)), count(packs/1000))
	}
	return out.String()
}

// sparse is a case of few changes: of a file of 1 GiB, so many leaves have so many changed chunks each.
type sparse struct {
	name           string
	leaves, chunks int
	aged           bool // all that a node names lies in packs of its own
}

var sparseCases = []sparse{
	{"every leaf, 10 chunks of it", 1 << 30, 10, false},
	{"every leaf, 1 chunk", 1 << 30, 1, false},
	{"every leaf, 1 chunk, all packs different", 1 << 30, 1, true},
	{"one chunk of the file", 1, 1, false},
	{"one chunk of the file, all packs different", 1, 1, true},
}

// share is what the new nodes take, as a share of the changed chunks.
func (c sparse) share(l layout) float64 {
	s := newSynth()
	leaves, packs, inLeaf := min(c.leaves, perFile/l.leaf), 2, l.leaf/l.chunk
	if c.aged {
		packs = 1 << 20
	}
	bytes := float64(leaves) * float64(s.leafOf(inLeaf, l.chunk, min(packs, inLeaf), nil)+frameCost)
	if leaves > 1 {
		bytes += indexBytes(s, l, packs)
	} else { // one index node a level
		for nodes := perFile / l.leaf; nodes > 1; nodes = (nodes + l.fanOut - 1) / l.fanOut {
			n := min(nodes, l.fanOut)
			bytes += float64(s.indexOf(n, l.leaf, min(packs, n)) + frameCost)
		}
	}
	return bytes / float64(leaves*c.chunks*l.chunk)
}

// boundTable shows the metadata of sparse changes.
func boundTable() string {
	var out strings.Builder
	cells := []any{"leaf, fan-out"}
	for _, c := range sparseCases {
		cells = append(cells, c.name)
	}
	heading(&out, cells...)
	for _, l := range []layout{{128 << 10, 16 << 20, 256, 0}, chosen, {128 << 10, 4 << 20, 16, 0}} {
		cells := []any{l}
		for _, c := range sparseCases {
			cells = append(cells, percent(c.share(l)))
		}
		md(&out, cells...)
	}
	return out.String()
}

// TestDecision_Bound holds the sizes to R10: the metadata of an incremental is at most 5 % of its changed bytes.
func TestDecision_Bound(t *testing.T) {
	if h := defaultHeader(); chosen != (layout{h.ChunkSize, h.LeafSpan, h.FanOut, h.PackSize}) {
		t.Errorf("the decision is about %+v, the code's defaults are %+v", chosen, h)
	}
	for _, c := range sparseCases {
		if got := c.share(chosen); got > 0.05 && !(c.aged && c.leaves == 1) { // the case that the decision excepts
			t.Errorf("%s: %s", c.name, percent(got))
		}
	}
	for _, share := range []float64{0.5, 0.1, 0.01, 0.001, 0.0001} {
		c := cost(chosen, tebi, touched(share, chosen.chunk/pageSize), touched(share, chosen.leaf/pageSize), touched(share, perFile/pageSize), 2)
		if got := c.metadata() / c.changed; got > 0.05 {
			t.Errorf("%s of the pages scattered: %s", percent(share), percent(got))
		}
	}
	if got := metadataOfPages(chosen, chosen.leaf/pageSize/100, 2); got > 0.05 {
		t.Errorf("extents of 1 %% of the pages: %s of the pages", percent(got))
	}
	// A backup of which nothing changed stores its manifest, whatever the database's size: far below 1 MiB.
	if c := cost(chosen, 100*tebi, 0, 0, 0, 1); c.manifest > 1<<20 {
		t.Errorf("the manifest of 100 TiB has %s", size(c.manifest))
	}
}
