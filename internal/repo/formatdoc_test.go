package repo_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

const formatDocument = "../../docs/repository-format.md"

// formatFixture is a repository of everything that the format has, and what a reader must find in it.
type formatFixture struct {
	store   *mem.Store
	backups map[string]map[string][]byte // backup, path
	wal     map[string][]byte
	tree    []repo.Entry // directories and links of each backup
}

func writeFixture(t *testing.T) *formatFixture {
	t.Helper()
	ctx := t.Context()
	fx := &formatFixture{store: mem.New(), backups: map[string]map[string][]byte{}, wal: map[string][]byte{}}
	r := newSmall(t, fx.store)
	fx.tree = []repo.Entry{
		{Path: "base", Type: repo.TypeDir, Mode: 0o700, ModTime: time.Unix(1_700_000_000, 0)},
		{Path: "pg_tblspc/16385", Type: repo.TypeSymlink, Mode: 0o777, ModTime: time.Unix(-5, 0), Link: "/srv/fast"},
	}
	var parent []repo.Baseline
	for i, how := range []repo.Compression{repo.Zstd, repo.S2, repo.NoCompression} {
		files := map[string][]byte{
			"base/1/empty": nil, "base/1/one": {7}, "base/1/\xff latin": pattern(9, 100),
			"base/2/chunk": pattern(uint64(i), 8<<10), "base/2/chunk+1": pattern(uint64(i), 8<<10+1),
			"base/2/leaf": pattern(1, 16<<10), "base/3/levels": pattern(2, 300_000), "base/3/random": random(uint64(i), 50_000),
		}
		for n := range 600 {
			files[fmt.Sprintf("base/4/%d", 16384+n)] = pattern(uint64(n), n%50)
		}
		files["base/3/levels"][100_000] ^= byte(i) // the later backups share most nodes with the first
		id := repo.NewBackupID(time.Unix(int64(1_700_000_000+i), 0), repo.Full)
		w := newWriter(t, r, repo.WriterOptions{BackupID: id, Compression: how, Baselines: parent, CheckpointEvery: time.Hour})
		for _, e := range fx.tree {
			if err := w.Add(e); err != nil {
				t.Fatal(err)
			}
		}
		writeFiles(t, w, files)
		m := publish(t, r, w, id)
		fx.backups[id] = files
		snap, err := r.OpenBackup(ctx, "c1", m.BackupID)
		if err != nil {
			t.Fatal(err)
		}
		parent = []repo.Baseline{snap}
	}
	const id = "20261123T074501Z-incremental-00e47e"
	fx.backups[id] = repo.WriteExtents(t, r, "c1", id)
	fx.writeRest(t, r)
	return fx
}

// writeRest adds WAL, documents, an intent with checkpoints, and a lease.
func (fx *formatFixture) writeRest(t *testing.T, r *repo.Repository) {
	t.Helper()
	ctx := t.Context()
	fx.wal = map[string][]byte{
		"000000010000000000000001":                 pattern(1, 3<<20),
		"000000010000000000000002.partial":         random(2, 1<<20),
		"000000010000000000000001.00000028.backup": []byte("START WAL LOCATION: 0/1000028\n"),
		"00000002.history":                         []byte("1\t0/2000000\tno reason\n"),
		"00000003.history":                         nil,
	}
	for i, name := range slices.Sorted(keysOf(fx.wal)) {
		h := repo.WALHeader{Name: name, SystemID: 7, Facts: json.RawMessage(`{"n":1}`)}
		how := []repo.Compression{repo.Zstd, repo.S2, repo.NoCompression}[i%3]
		if _, err := r.PutWAL(ctx, "c1", h, fx.wal[name], how); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.ClaimIdentity(ctx, "c1", repo.Identity{SystemID: 7, WALSegmentSize: pg.DefaultSegmentSize}); err != nil {
		t.Fatal(err)
	}
	if err := r.PutDocument(ctx, "c1", "reports/one", map[string]string{"big": strings.Repeat("report ", 400_000)}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.AcquireLease(ctx, "c1", "backup", "workflow", "host", time.Hour); err != nil {
		t.Fatal(err)
	}
	id := repo.NewBackupID(time.Unix(1_800_000_000, 0), repo.Full)
	if err := r.PutIntent(ctx, "c1", repo.Intent{BackupID: id, Type: "full", Host: "h"}); err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, r, repo.WriterOptions{BackupID: id, CheckpointEvery: time.Hour})
	files := map[string][]byte{"base/5/levels": pattern(5, 100_000), "base/5/one": {1, 2, 3}}
	writeFiles(t, w, files)
	repo.Checkpoint(t, w)
	w.Close()
	fx.backups["run of "+id] = files
}

// TestFormatDocument_IndependentReader reads everything in a repository by the rules of the document alone.
func TestFormatDocument_IndependentReader(t *testing.T) {
	fx := writeFixture(t)
	r, err := openDoc(t.Context(), fx.store)
	if err != nil {
		t.Fatal(err)
	}
	deepest, seen := byte(0), map[string]int{}
	for info, err := range fx.store.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		what, err := r.anyObject(info.Key)
		if err != nil {
			t.Errorf("%s: %v", info.Key, err)
		}
		seen[what]++
	}
	for id, files := range fx.backups {
		entries, err := r.entriesOf("c1", id)
		if err != nil {
			t.Fatalf("backup %s: %v", id, err)
		}
		for _, e := range entries {
			deepest = max(deepest, e.level)
		}
		fx.compare(t, r, id, files, entries)
	}
	for name, want := range fx.wal {
		facts, got, err := r.wal("c1", name)
		if err != nil || !bytes.Equal(got, want) || string(facts) != `{"n":1}` {
			t.Errorf("WAL %s: %d bytes, facts %s, %v", name, len(got), facts, err)
		}
	}
	if deepest < 3 || len(r.codecs) != 3 {
		t.Errorf("the deepest tree has level %d, codecs seen %v: the fixture does not try all of the format", deepest, r.codecs)
	}
	t.Logf("objects %v, codecs %v, deepest level %d, %d ranged reads", seen, r.codecs, deepest, r.gets)
}

// compare checks the entries and the content of all files.
func (fx *formatFixture) compare(t *testing.T, r *docReader, id string, files map[string][]byte, entries []docEntry) {
	t.Helper()
	found := map[string]docEntry{}
	for _, e := range entries {
		found[e.path] = e
	}
	for path, want := range files {
		e := found[path]
		got, err := r.file("c1", e)
		if err != nil || !bytes.Equal(got, want) || e.kind != 1 || e.crc != crc32c(want) || e.mode != 0o600 || e.mtime != 1_600_000_000 {
			t.Errorf("%s of %s: %d bytes, want %d; entry %+v; %v", path, id, len(got), len(want), e, err)
		}
	}
	if strings.HasPrefix(id, "run of ") || len(files) < 100 {
		return
	}
	for _, want := range fx.tree {
		e := found[want.Path]
		if e.kind != byte(want.Type) || e.mode != uint64(want.Mode) || e.mtime != want.ModTime.Unix() || e.link != want.Link {
			t.Errorf("%s of %s: entry %+v", want.Path, id, e)
		}
	}
	if len(found) != len(files)+len(fx.tree) {
		t.Errorf("backup %s: %d entries, want %d", id, len(found), len(files)+len(fx.tree))
	}
}

// anyObject reads any object by its key (section 2) and tells what it is.
func (r *docReader) anyObject(key string) (what string, err error) {
	if key == "lifeboat.json" {
		return "header", nil
	}
	parts := strings.Split(key, "/")
	if parts[0] != "clusters" || len(parts) < 3 {
		return "", fmt.Errorf("not in the table of keys")
	}
	switch kind := parts[2]; {
	case kind == "data":
		_, err = r.pack(key, docData)
	case kind == "tree":
		_, err = r.pack(key, docTree)
	case kind == "backups":
		_, err = r.manifest(parts[1], parts[3])
	case kind == "wal":
		_, _, err = r.wal(parts[1], parts[len(parts)-1])
	case kind == "intents" && parts[4] != "intent":
		_, err = r.content(key, docCheckpoint)
	default:
		var content []byte
		if content, err = r.content(key, docDocument); err == nil && !json.Valid(content) {
			err = fmt.Errorf("its content is not JSON: %.100q", content)
		}
	}
	return parts[2], err
}

// entriesOf lists the file table of a backup, or the entries of a dead attempt's checkpoints.
func (r *docReader) entriesOf(cluster, id string) (entries []docEntry, err error) {
	if dead, ok := strings.CutPrefix(id, "run of "); ok {
		return r.run("clusters/" + cluster + "/intents/" + dead + "/run-000000")
	}
	m, err := r.manifest(cluster, id)
	if err != nil {
		return nil, err
	}
	for i := range m.Table.Pages {
		first, ref, err := m.page(i)
		if err != nil {
			return nil, err
		}
		plain, err := r.read(cluster, docTree, ref)
		if err != nil {
			return nil, err
		}
		page, err := r.page(plain)
		if err != nil || page[0].path != first {
			return nil, fmt.Errorf("page %d from %q: %w", i, first, err)
		}
		entries = append(entries, page...)
	}
	if !slices.IsSortedFunc(entries, func(a, b docEntry) int { return strings.Compare(a.path, b.path) }) || len(entries) != m.Table.Files {
		return nil, fmt.Errorf("%d entries, not %d in order", len(entries), m.Table.Files)
	}
	return entries, nil
}

// run lists the entries of a checkpoint (section 10).
func (r *docReader) run(key string) (entries []docEntry, err error) {
	content, err := r.content(key, docCheckpoint)
	if err != nil {
		return nil, err
	}
	for f := (&fields{content}); len(f.b) > 0; {
		page, err := r.page([]byte(f.str()))
		if err != nil {
			return nil, err
		}
		entries = append(entries, page...)
	}
	return entries, nil
}

// file reads a file's content (section 8, for every offset).
func (r *docReader) file(cluster string, e docEntry) ([]byte, error) {
	switch e.form {
	case 0:
		return nil, nil
	case 1:
		return r.read(cluster, docData, e.root)
	}
	return r.node(cluster, docChild{e.root, e.size}, e.level)
}

func (r *docReader) node(cluster string, n docChild, level byte) (out []byte, err error) {
	plain, err := r.read(cluster, docTree, n.ref)
	if err != nil {
		return nil, err
	}
	if level > 0 {
		children, err := r.index(plain, level)
		if err != nil {
			return nil, err
		}
		for _, c := range children {
			part, err := r.node(cluster, c, level-1)
			if err != nil {
				return nil, err
			}
			out = append(out, part...)
		}
	} else if out, err = r.leafContent(cluster, plain); err != nil {
		return nil, err
	}
	if uint64(len(out)) != n.span {
		return nil, fmt.Errorf("a node of level %d covers %d bytes, not %d", level, len(out), n.span)
	}
	return out, nil
}

func (r *docReader) leafContent(cluster string, plain []byte) (out []byte, err error) {
	extents, err := r.leaf(plain)
	if err != nil {
		return nil, err
	}
	for _, x := range extents {
		chunk, err := r.read(cluster, docData, x.chunk)
		if err != nil {
			return nil, err
		}
		if crc32c(chunk) != x.crc {
			return nil, fmt.Errorf("a chunk has another CRC")
		}
		out = append(out, chunk[x.offset:x.offset+x.length]...)
	}
	return out, nil
}

// TestFormatDocument_Example reads the worked example, by the document's rules and by the package.
func TestFormatDocument_Example(t *testing.T) {
	doc, err := os.ReadFile(formatDocument)
	if err != nil {
		t.Fatal(err)
	}
	object, err := hex.DecodeString(strings.Join(strings.Fields(fenced(t, doc, "hex")), ""))
	if err != nil {
		t.Fatal(err)
	}
	const key, want = "clusters/demo/reports/example", `{"hello":"world"}`
	store := mem.New()
	ctx := context.Background()
	for k, body := range map[string][]byte{"lifeboat.json": []byte(fenced(t, doc, "json")), key: object} {
		if err := blob.PutBytes(ctx, store, k, body); err != nil {
			t.Fatal(err)
		}
	}
	d, err := openDoc(ctx, store)
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.content(key, docDocument)
	if err != nil || string(got) != want {
		t.Errorf("by the document: %q, %v", got, err)
	}
	if id := hex.EncodeToString(d.name(got)); !bytes.Contains(doc, []byte(id)) {
		t.Errorf("the document does not name the ID %s", id)
	}
	r, err := repo.Open(ctx, store)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]string
	if err := r.GetDocument(ctx, "demo", "reports/example", &v); err != nil || v["hello"] != "world" {
		t.Errorf("by the package: %v, %v", v, err)
	}
}

// fenced returns the first block of a language in a Markdown text.
func fenced(t *testing.T, doc []byte, language string) string {
	t.Helper()
	_, rest, ok := strings.Cut(string(doc), "\n```"+language+"\n")
	block, _, closed := strings.Cut(rest, "\n```")
	if !ok || !closed {
		t.Fatalf("no %s block in the document", language)
	}
	return block
}
