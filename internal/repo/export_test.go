package repo

import (
	"encoding/json"
	"hash/crc32"
	"maps"
	"slices"
	"testing"
	"time"

	"lifeboat/internal/blob"
)

// Checkpoint waits until all closed files are finished and writes a checkpoint now.
func Checkpoint(t testing.TB, w *Writer) {
	t.Helper()
	if err := w.waitFiles(); err != nil {
		t.Fatal(err)
	}
	if err := w.checkpoint(); err != nil {
		t.Fatal(err)
	}
}

// WriteExtents publishes a backup whose leaves have extents, which no writer makes yet, and returns its files.
func WriteExtents(t testing.TB, r *Repository, cluster, id string) map[string][]byte {
	t.Helper()
	w, err := r.NewWriter(t.Context(), WriterOptions{Cluster: cluster, BackupID: id})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	plain := [][]byte{make([]byte, 8000), make([]byte, 5000), make([]byte, 3000)}
	var chunks []Chunk
	for i, p := range plain {
		for j := range p {
			p[j] = byte(j*(i+3)) ^ byte(j>>8)
		}
		ref, err := w.data.add(r.name(p), append([]byte{codecNone}, p...), len(p))
		if err != nil {
			t.Fatal(err)
		}
		chunks = append(chunks, Chunk{Ref: ref, CRC: crc32.Checksum(p, castagnoli)})
	}
	leaves := []leaf{
		{chunks: chunks[:2], extents: []leafExtent{{0, 0, 1000}, {1, 4999, 1}, {0, 1001, 6999}, {1, 0, 0}, {1, 10, 100}}},
		{chunks: chunks[2:]},
	}
	var children []child
	var content []byte
	for _, l := range leaves {
		begin := len(content)
		for _, e := range l.list() {
			for i := range chunks {
				if chunks[i].ID == e.Chunk.ID {
					content = append(content, plain[i][e.ChunkOffset:e.ChunkOffset+e.Length]...)
				}
			}
		}
		ref, err := w.putNode(l.encode())
		if err != nil {
			t.Fatal(err)
		}
		children = append(children, child{ref, uint64(len(content) - begin)})
	}
	node, err := w.putNode(encodeIndex(1, children))
	if err != nil {
		t.Fatal(err)
	}
	w.entries = append(w.entries, Entry{
		Path: "base/9/extents", Type: TypeFile, Mode: 0o600, ModTime: time.Unix(1_600_000_000, 0),
		Size: int64(len(content)), CRC: crc32.Checksum(content, castagnoli), root: root{form: rootNode, level: 1, ref: Chunk{Ref: node}},
	})
	table, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.PutManifest(t.Context(), &Manifest{Cluster: cluster, BackupID: id, Type: Incremental, Table: table}); err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{"base/9/extents": content}
}

// topLevelKeys lists the names of a JSON object's fields, ascending.
func topLevelKeys(t testing.TB, plain []byte) []string {
	t.Helper()
	var m map[string]json.RawMessage
	if err := json.Unmarshal(plain, &m); err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(maps.Keys(m))
}

// PutLyingWAL stores a WAL object whose head describes other bytes than it has.
func PutLyingWAL(t testing.TB, r *Repository, cluster, name string, claimed, real []byte) {
	t.Helper()
	head, err := json.Marshal(WALHeader{Name: name, Length: int64(len(claimed)), Content: r.name(claimed)})
	if err != nil {
		t.Fatal(err)
	}
	comp, err := newCompressor(S2, frameSize)
	if err != nil {
		t.Fatal(err)
	}
	key := walKey(cluster, name)
	if err := blob.PutBytes(t.Context(), r.store, key, r.sealWAL(key, head, real, comp)); err != nil {
		t.Fatal(err)
	}
}
