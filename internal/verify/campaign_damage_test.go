package verify_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"lifeboat/internal/repo"
	"lifeboat/internal/verify"
)

// damage is a way to spoil an object. spoil returns nil where it does not apply.
type damage struct {
	name  string
	spoil func(v *victim) []byte
}

// containerHead is the length of a container's header; the first frame's length word follows (repository-format.md, 3).
const containerHead = 64

func damages() []damage {
	var out []damage
	add := func(name string, spoil func(v *victim) []byte) { out = append(out, damage{name, spoil}) }
	for _, at := range []int{0, 3, 7, 8, 9, 10, 13, 16, 47, 48, 63, 64, 67, 68, 72, 73} { // each field of the head, and of the first frame
		add(fmt.Sprintf("byte %d flipped", at), flipAt(func(int) int { return at }))
	}
	for _, part := range []int{1, 2, 3} {
		add(fmt.Sprintf("byte at %d/4 flipped", part), flipAt(func(n int) int { return n * part / 4 }))
	}
	for _, back := range []int{40, 17, 16, 2, 1} { // the list of a pack, and the last tag
		add(fmt.Sprintf("byte %d from the end flipped", back), flipAt(func(n int) int { return n - back }))
	}
	for _, n := range []int{0, 1, 63, 64, 67} {
		add(fmt.Sprintf("cut to %d bytes", n), func(v *victim) []byte { return v.sound[:min(n, len(v.sound)-1)] })
	}
	add("cut to two thirds", func(v *victim) []byte { return v.sound[:len(v.sound)*2/3] })
	add("cut by one byte", func(v *victim) []byte { return v.sound[:len(v.sound)-1] })
	add("longer by a zero", func(v *victim) []byte { return slices.Concat(v.sound, []byte{0}) })
	add("longer by 4096 zeros", func(v *victim) []byte { return slices.Concat(v.sound, make([]byte, 4096)) })
	add("twice itself", func(v *victim) []byte { return slices.Concat(v.sound, v.sound) })
	for i, name := range []string{"head", "middle", "end"} {
		add("a block of zeros at the "+name, func(v *victim) []byte {
			data, n := bytes.Clone(v.sound), min(512, len(v.sound))
			clear(data[(len(data)-n)*i/2:][:n])
			return data
		})
	}
	add("all zeros", func(v *victim) []byte { return make([]byte, len(v.sound)) })
	add("another of its kind", func(v *victim) []byte { return v.other })
	add("of another repository", func(v *victim) []byte { return v.foreign })
	return out
}

func flipAt(at func(n int) int) func(*victim) []byte {
	return func(v *victim) []byte {
		i := at(len(v.sound))
		if i < 0 || i >= len(v.sound) {
			return nil
		}
		data := bytes.Clone(v.sound)
		data[i] ^= 0x10
		return data
	}
}

// spoilAll tries every damage on each of some victims at once, and then what is not damage of their bytes: an older
// version, and deletion.
func (c *campaign) spoilAll(t *testing.T, group []*victim) {
	for _, d := range damages() {
		spoiled := map[*victim][]byte{}
		for _, v := range group {
			data := d.spoil(v)
			switch {
			case data == nil || v.key == repo.HeaderKey && sameHeader(t, v.sound, data):
			case bytes.Equal(data, v.sound):
				t.Errorf("%s changes nothing of %s", d.name, v.key)
			default:
				spoiled[v] = data
				c.put(t, v.key, data)
			}
		}
		if len(spoiled) > 0 {
			c.mustName(t, d.name, spoiled)
		}
		for v := range spoiled {
			c.put(t, v.key, v.sound)
		}
	}
	for _, v := range group {
		if v.tried < 25 {
			t.Errorf("only %d damages of a %s were tried", v.tried, v.kind)
		}
		c.checkOlder(t, v)
		c.checkDeleted(t, v)
	}
}

// mustName verifies all, and looks for each spoiled object and its place.
func (c *campaign) mustName(t *testing.T, what string, spoiled map[*victim][]byte) {
	t.Helper()
	reports := c.verified(t, what)
	said := text(reports...)
	for v, data := range spoiled {
		v.tried++
		if outcome(reports) != verify.Failed || !names(reports, v.key) {
			t.Errorf("%s: %s is not named: %s", what, v.key, said)
		}
		if frame, ok := frameOf(v, data); ok && !strings.Contains(said, fmt.Sprintf("object=%s file= block=-1: damaged at frame %d:", v.key, frame)) {
			t.Errorf("%s: the place in %s is frame %d, which is not said: %s", what, v.key, frame, said)
		}
	}
}

// verified runs `verify all` on the repository as it stands, in bounded memory: nothing that an object claims of itself
// may make a reader reserve more than sound objects need.
func (c *campaign) verified(t *testing.T, what string) []verify.BackupReport {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	reports, err := c.verifyAll(t)
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 600<<20 {
		t.Errorf("%s: %d MiB were allocated", what, got>>20)
	}
	return reports
}

// verifyAll is `verify all`, which also names the header that opens the repository (activities.VerifyBackups).
func (c *campaign) verifyAll(t *testing.T) ([]verify.BackupReport, error) {
	t.Helper()
	r, err := c.open(t)
	var damage *repo.DamageError
	if errors.As(err, &damage) {
		rep := verify.BackupReport{Problems: []verify.Problem{{Outcome: verify.Failed, Object: damage.Key, Block: -1, Text: err.Error()}}}
		rep.Levels[0] = verify.Failed
		return []verify.BackupReport{rep}, nil
	}
	if err != nil {
		return nil, err
	}
	opts := c.options(t, 2)
	opts.Repo = r
	return verify.All(t.Context(), opts)
}

func (c *campaign) put(t *testing.T, key string, data []byte) {
	t.Helper()
	file := filepath.Join(c.dir, key)
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o666); err != nil {
		t.Fatal(err)
	}
}

// frameOf tells in which frame's payload or tag the first changed byte lies, if the length is the old one: that is the
// place that must be named. Header and length words have no frame, or spoil what follows them.
func frameOf(v *victim, data []byte) (int, bool) {
	if len(data) != len(v.sound) || v.key == repo.HeaderKey {
		return 0, false
	}
	at := 0
	for data[at] == v.sound[at] {
		at++
	}
	for frame, pos := 0, containerHead; pos+4 <= len(v.sound); frame++ {
		n := int(binary.LittleEndian.Uint32(v.sound[pos:]) &^ (1 << 31))
		if at < pos+4 {
			return 0, false
		}
		if at < pos+4+n {
			return frame, true
		}
		pos += 4 + n
	}
	return 0, false
}

// sameHeader tells whether a changed header says the same: white space, the case of its words and its date do not count.
func sameHeader(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y repo.Header
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	x.CreatedAt = y.CreatedAt
	return x == y
}

// checkOlder puts an older version in the place of an object that is rewritten. It is sound, and says nothing of the
// newer one: this is the one change that is not found (repository-format.md, section 11). Only what no restore reads is
// ever rewritten.
func (c *campaign) checkOlder(t *testing.T, v *victim) {
	if v.older == nil {
		return
	}
	c.put(t, v.key, v.older)
	if reports := c.verified(t, "an older version"); outcome(reports) != verify.Passed {
		t.Errorf("an older version: %s", text(reports...))
	}
	c.put(t, v.key, v.sound)
	if v.kind != "lease" {
		t.Errorf("a %s is rewritten: is it one that a restore reads?", v.kind)
	}
}

// checkDeleted removes an object. What a backup needs is missed by name; the rest may go at any time.
func (c *campaign) checkDeleted(t *testing.T, v *victim) {
	file := filepath.Join(c.dir, v.key)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.WriteFile(file, v.sound, 0o666); err != nil {
			t.Fatal(err)
		}
	}()
	reports := c.verified(t, "deletion")
	switch v.kind {
	case "header", "identity", "data pack", "tree pack", "WAL segment", "timeline history file":
		if outcome(reports) != verify.Failed || !names(reports, v.key) {
			t.Errorf("deletion is not named: %s", text(reports...))
		}
	case "manifest": // the backup is not visible any more
		if len(reports) != 1 || outcome(reports) != verify.Passed {
			t.Errorf("without a manifest: %s", text(reports...))
		}
	default:
		if outcome(reports) != verify.Passed {
			t.Errorf("without a %s: %s", v.kind, text(reports...))
		}
	}
}

// table shows what was tried, and what became of restores.
func (c *campaign) table() string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KIND\tBYTES\tDAMAGES, EACH NAMED\tRESTORE OF BACKUP 1\tRESTORE OF BACKUP 2\tOBJECT")
	for _, v := range c.victims {
		restores := append(slices.Clone(v.restore), "-", "-")
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t%.60s\n", v.kind, len(v.sound), v.tried, restores[0], restores[1], v.key)
	}
	_ = w.Flush()
	return out.String()
}
