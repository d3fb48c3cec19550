package repo_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/blob"
	"lifeboat/internal/blob/fault"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// damageFixture is a repository with two objects of every kind, and all that can be asked of it.
type damageFixture struct {
	store *mem.Store
	asks  map[string]func(ctx context.Context, r *repo.Repository) (any, error)
	want  map[string]string
}

func newDamageFixture(t *testing.T) *damageFixture {
	t.Helper()
	fx := &damageFixture{store: mem.New(), asks: map[string]func(context.Context, *repo.Repository) (any, error){}, want: map[string]string{}}
	r, err := repo.OpenOrCreate(t.Context(), fx.store)
	if err != nil {
		t.Fatal(err)
	}
	for i, cluster := range []string{"c1", "c2"} {
		fx.fill(t, r, cluster, uint64(i))
	}
	for name, ask := range fx.asks {
		got, err := ask(t.Context(), r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		fx.want[name] = say(got)
	}
	return fx
}

func (fx *damageFixture) fill(t *testing.T, r *repo.Repository, cluster string, seed uint64) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	must(r.ClaimIdentity(ctx, cluster, repo.Identity{SystemID: pg.SystemID(7 + seed), WALSegmentSize: pg.DefaultSegmentSize}))
	_, err := r.AcquireLease(ctx, cluster, "backup", "owner"+cluster, "h", time.Hour)
	must(err)
	must(r.PutDocument(ctx, cluster, "reports/r", "report of "+cluster))
	id := repo.NewBackupID(time.Unix(1_700_000_000, 0), repo.Full)
	must(r.PutIntent(ctx, cluster, repo.Intent{BackupID: id, Host: cluster}))
	w := newWriter(t, r, repo.WriterOptions{Cluster: cluster, BackupID: id, CheckpointEvery: time.Hour})
	files := map[string][]byte{"one": random(seed, 700), "compressed": bytes.Repeat([]byte("abc"+cluster), 300), "tree": random(seed+9, 128<<10+300)}
	writeFiles(t, w, files)
	repo.Checkpoint(t, w)
	table, err := w.Finish()
	must(err)
	must(r.PutManifest(ctx, &repo.Manifest{Cluster: cluster, BackupID: id, Type: repo.Full, Table: table}))
	for _, name := range []string{"000000010000000000000001", "00000002.history"} {
		_, err := r.PutWAL(ctx, cluster, repo.WALHeader{Name: name, SystemID: 7}, random(seed, 900), repo.Zstd)
		must(err)
		fx.asks[cluster+" WAL "+name] = func(ctx context.Context, r *repo.Repository) (any, error) {
			w, err := r.OpenWAL(ctx, cluster, name)
			if err != nil {
				return nil, err
			}
			defer w.Close()
			var out bytes.Buffer
			if _, err := w.WriteTo(&out); err != nil {
				return nil, err
			}
			return out.Bytes(), nil
		}
	}
	fx.asks[cluster+" identity"] = func(ctx context.Context, r *repo.Repository) (any, error) { return r.Identity(ctx, cluster) }
	fx.asks[cluster+" intents"] = func(ctx context.Context, r *repo.Repository) (any, error) {
		list, err := r.Intents(ctx, cluster)
		for _, in := range list {
			err = errors.Join(err, in.Damage)
		}
		return list, err
	}
	fx.asks[cluster+" document"] = func(ctx context.Context, r *repo.Repository) (any, error) {
		var v string
		err := r.GetDocument(ctx, cluster, "reports/r", &v)
		return v, err
	}
	fx.asks[cluster+" lease"] = func(ctx context.Context, r *repo.Repository) (any, error) {
		_, err := r.AcquireLease(ctx, cluster, "backup", "somebody", "h", time.Hour)
		if busy := (*repo.BusyError)(nil); errors.As(err, &busy) {
			return busy.Owner, busy.Damage
		}
		return nil, err
	}
	for path := range files {
		fx.asks[cluster+" file "+path] = func(ctx context.Context, r *repo.Repository) (any, error) {
			snap, err := r.OpenBackup(ctx, cluster, id)
			if err != nil {
				return nil, err
			}
			return snap.ReadFile(ctx, path, 1<<20)
		}
	}
}

// say makes an answer comparable; bytes are not printed, which would take most of the test's time.
func say(answer any) string {
	if b, ok := answer.([]byte); ok {
		return string(b)
	}
	return fmt.Sprint(answer)
}

// check asks everything of the repository as it stands now: each answer is the right one, or a DamageError that names
// key. It tells how many were errors.
func (fx *damageFixture) check(t *testing.T, what, key string) (refused int) {
	t.Helper()
	r, err := repo.Open(t.Context(), fx.store)
	if err != nil {
		if key != "lifeboat.json" {
			t.Fatalf("%s: Open: %v", what, err)
		}
		return 1
	}
	for name, ask := range fx.asks {
		if strings.HasPrefix(key, "clusters/") && !strings.HasPrefix(name, "c1 ") {
			continue // another cluster's objects are not touched
		}
		got, err := ask(t.Context(), r)
		switch {
		case err == nil && say(got) != fx.want[name]:
			t.Errorf("%s: %s gives wrong bytes", what, name)
		case err != nil:
			refused++
			if !repo.IsDamage(err) || !strings.Contains(err.Error(), key) {
				t.Errorf("%s: %s: %v", what, name, err)
			}
		}
	}
	return refused
}

func (fx *damageFixture) put(t *testing.T, key string, body []byte) {
	t.Helper()
	if err := blob.PutBytes(t.Context(), fx.store, key, body); err != nil {
		t.Fatal(err)
	}
}

// places chooses which bytes of an object are tried: all of the first and last, and some between.
func places(n int) []int {
	var out []int
	for at := 0; at < n; at++ {
		if at < 130 || at >= n-60 || at%(n/40+1) == 0 {
			out = append(out, at)
		}
	}
	return out
}

// readByAsks tells whether a byte of an object is read by the questions of the fixture: restoring needs neither the
// header nor the index frame of a pack, nor the lengths between frames. verify reads those.
func readByAsks(t *testing.T, d *docReader, key string) func(at int) bool {
	t.Helper()
	kind := byte(0)
	switch {
	case strings.Contains(key, "/data/"):
		kind = docData
	case strings.Contains(key, "/tree/"):
		kind = docTree
	default:
		return func(int) bool { return true }
	}
	_, frames, err := d.object(key, kind)
	if err != nil {
		t.Fatal(err)
	}
	return func(at int) bool {
		return slices.ContainsFunc(frames, func(f docFrame) bool { return !f.last && at >= f.offset && at < f.offset+f.stored })
	}
}

func TestDamage_EveryKindOfObject(t *testing.T) {
	fx := newDamageFixture(t)
	d := mustOpenDoc(t, fx.store)
	tried := map[string]int{}
	for key, sound := range objects(t, fx.store, "") {
		if strings.HasPrefix(key, "clusters/c2/") || strings.Contains(key, "/run-") { // checkpoints: see resume_test.go
			continue
		}
		reads := readByAsks(t, d, key)
		step := 1
		if raceFactor() > 1 {
			step = 5
		}
		for i, at := range places(len(sound)) {
			if i%step != 0 {
				continue
			}
			body := bytes.Clone(sound)
			body[at] ^= 1 << (at % 8)
			fx.put(t, key, body)
			what := fmt.Sprintf("%s with byte %d of %d flipped", key, at, len(sound))
			refused := fx.check(t, what, key)
			if harmless := key == "lifeboat.json" && equalHeaders(t, sound, body); refused == 0 && reads(at) && !harmless {
				t.Errorf("%s: nobody noticed", what)
			}
			tried[strings.Join(strings.Split(key, "/")[:min(3, strings.Count(key, "/")+1)], "/")]++
		}
		for _, n := range []int{0, 1, 63, 64, 67, 70, len(sound) / 2, len(sound) - 1} {
			if n < len(sound) {
				fx.put(t, key, sound[:n])
				fx.check(t, fmt.Sprintf("%s of %d bytes, truncated to %d", key, len(sound), n), key)
			}
		}
		if !strings.Contains(key, "/data/") && !strings.Contains(key, "/tree/") && key != "lifeboat.json" {
			fx.put(t, key, append(bytes.Clone(sound), 0))
			if fx.check(t, key+" with a byte more", key) == 0 {
				t.Errorf("%s with a byte more: nobody noticed", key)
			}
		}
		fx.put(t, key, sound)
		if t.Failed() {
			t.FailNow()
		}
	}
	t.Log("bytes flipped:", tried)
}

// equalHeaders tells whether two header objects say the same: white space, the date and the case of names do not count.
func equalHeaders(t *testing.T, a, b []byte) bool {
	t.Helper()
	var headers []repo.Header
	for _, body := range [][]byte{a, b} {
		store := mem.New()
		if err := blob.PutBytes(t.Context(), store, "lifeboat.json", body); err != nil {
			t.Fatal(err)
		}
		r, err := repo.Open(t.Context(), store)
		if err != nil {
			return false
		}
		h := r.Header()
		h.CreatedAt = time.Time{}
		headers = append(headers, h)
	}
	return headers[0] == headers[1]
}

// TestDamage_SwappedObjects puts one sound object under the key of another of its kind.
func TestDamage_SwappedObjects(t *testing.T) {
	fx := newDamageFixture(t)
	all := objects(t, fx.store, "")
	swapped := 0
	for a, bodyA := range all {
		other := strings.Replace(a, "clusters/c1/", "clusters/c2/", 1)
		if a == other || strings.Contains(a, "/run-") {
			continue
		}
		for b, bodyB := range all {
			same := b == other || strings.Contains(a, "/data/") && strings.Contains(b, "c2/data/") || strings.Contains(a, "/tree/") && strings.Contains(b, "c2/tree/") ||
				strings.Contains(a, "/backups/") && strings.Contains(b, "c2/backups/") || strings.Contains(a, "/intents/") && strings.HasSuffix(b, "/intent") ||
				strings.Contains(a, "c1/wal/") && strings.Contains(b, "c1/wal/")
			if !same || a == b {
				continue
			}
			swapped++
			fx.put(t, a, bodyB)
			if fx.check(t, a+" holds what belongs to "+b, a) == 0 {
				t.Errorf("%s holds what belongs to %s: nobody noticed", a, b)
			}
			fx.put(t, a, bodyA)
		}
	}
	if swapped < 7 {
		t.Errorf("only %d swaps were tried", swapped)
	}
}

// TestDamage_FramesSwappedInAPack exchanges two frames of equal length: each has its own number in its tag.
func TestDamage_FramesSwappedInAPack(t *testing.T) {
	store := mem.New()
	r := newSmall(t, store)
	files := map[string][]byte{"f": random(1, 16<<10)}
	snap, _ := backup(t, r, files, repo.WriterOptions{Compression: repo.NoCompression})
	for key, body := range objects(t, store, "clusters/c1/data/") {
		_, frames, err := mustOpenDoc(t, store).object(key, docData)
		if err != nil || len(frames) != 3 || frames[0].stored != frames[1].stored {
			t.Fatalf("%d frames, %v", len(frames), err)
		}
		mixed := bytes.Clone(body)
		copy(mixed[frames[0].offset:], body[frames[1].offset:frames[1].offset+frames[1].stored])
		copy(mixed[frames[1].offset:], body[frames[0].offset:frames[0].offset+frames[0].stored])
		if err := blob.PutBytes(t.Context(), store, key, mixed); err != nil {
			t.Fatal(err)
		}
		if _, err := snap.ReadFile(t.Context(), "f", 1<<20); !repo.IsDamage(err) || !strings.Contains(err.Error(), key) {
			t.Errorf("ReadFile: %v", err)
		}
	}
}

// TestDamage_OtherRepository reads an object that belongs to a repository with other keys.
func TestDamage_OtherRepository(t *testing.T) {
	a, b := newDamageFixture(t), newDamageFixture(t)
	const key = "clusters/c1/reports/r"
	a.put(t, key, objects(t, b.store, key)[key])
	if a.check(t, "a document of another repository", key) != 1 {
		t.Error("nobody noticed")
	}
}

// TestDamage_WrongReplies lets the store serve sound objects wrongly. A flipped bit in a reply looks like damage; a
// reply that ends early is not damage, since the object is whole.
func TestDamage_WrongReplies(t *testing.T) {
	fx := newDamageFixture(t)
	sizes := map[string]int{}
	for key, body := range objects(t, fx.store, "clusters/c1/") {
		if !strings.Contains(key, "/run-") {
			sizes[key] = len(body)
		}
	}
	for key, size := range sizes {
		for _, at := range []int{0, 30, 66, 90, size / 2, size - 1} {
			for _, do := range []fault.Action{fault.Flip(), fault.Truncate(), fault.Fail(nil)} {
				store := fault.New(fx.store, fault.Rule{Op: fault.GetRead, Key: fault.Exactly(key), At: int64(at), Count: fault.Forever, Do: do})
				r, err := repo.Open(t.Context(), store)
				if err != nil {
					t.Fatal(err)
				}
				for name, ask := range fx.asks {
					got, err := ask(t.Context(), r)
					if err == nil && say(got) != fx.want[name] {
						t.Errorf("%s at %d of %s: %s gives wrong bytes", store.Unused(), at, key, name)
					}
					if err != nil && (!strings.Contains(err.Error(), key) || repo.IsDamage(err) && !flips(do)) {
						t.Errorf("byte %d of %s: %s: %v", at, key, name, err)
					}
				}
			}
		}
	}
}

func flips(a fault.Action) bool { return fmt.Sprint(a) == fmt.Sprint(fault.Flip()) }

// TestDamage_MissingPack says which object is missing, as an error of its own: it may be elsewhere.
func TestDamage_MissingPack(t *testing.T) {
	fx := newDamageFixture(t)
	for _, kind := range []string{"data", "tree"} {
		all := objects(t, fx.store, "clusters/c1/"+kind+"/")
		key := slices.Collect(maps.Keys(all))[0]
		if err := fx.store.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		r, err := repo.Open(t.Context(), fx.store)
		if err != nil {
			t.Fatal(err)
		}
		_, err = fx.asks["c1 file tree"](t.Context(), r)
		if !errors.Is(err, blob.ErrNotFound) || !strings.Contains(err.Error(), key) || repo.IsDamage(err) {
			t.Errorf("without %s: %v", key, err)
		}
		fx.put(t, key, all[key])
	}
}

// TestDamage_NewerVersion tells an object of a later container version from a rotten one.
func TestDamage_NewerVersion(t *testing.T) {
	fx := newDamageFixture(t)
	const key = "clusters/c1/reports/r"
	body := objects(t, fx.store, key)[key]
	body[8] = 2
	body[60] ^= 1 // a later version would have another tag
	fx.put(t, key, body)
	r, err := repo.Open(t.Context(), fx.store)
	if err != nil {
		t.Fatal(err)
	}
	var v string
	err = r.GetDocument(t.Context(), "c1", "reports/r", &v)
	if err == nil || repo.IsDamage(err) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("GetDocument: %v", err)
	}
}

// TestWALReader_ReadThenWriteTo reads some bytes one way and the rest the other: none may be lost.
func TestWALReader_ReadThenWriteTo(t *testing.T) {
	r, _ := newRepo(t)
	const name = "000000010000000000000001"
	data := random(1, 3<<20)
	if _, err := r.PutWAL(t.Context(), "c1", repo.WALHeader{Name: name, SystemID: 1}, data, repo.S2); err != nil {
		t.Fatal(err)
	}
	w, err := r.OpenWAL(t.Context(), "c1", name)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	got := make([]byte, 100)
	if _, err := io.ReadFull(w, got); err != nil {
		t.Fatal(err)
	}
	rest := bytes.NewBuffer(got)
	if n, err := w.WriteTo(rest); n != int64(len(data)-100) || err != nil || !bytes.Equal(rest.Bytes(), data) {
		t.Errorf("WriteTo: %d bytes, %v", n, err)
	}
}
