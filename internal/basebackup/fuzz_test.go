package basebackup

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"path"
	"runtime"
	"strings"
	"testing"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/blob/mem"
	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
)

// soundControl is a pg_control of PostgreSQL 15 that says little more than that its checksum holds.
func soundControl() []byte {
	b := make([]byte, 512) // the rest of the file is not read
	le := binary.LittleEndian
	le.PutUint64(b, 7)
	le.PutUint32(b[8:], 1300)
	le.PutUint32(b[12:], 202209061)
	le.PutUint32(b[228:], uint32(pg.DefaultSegmentSize))
	le.PutUint32(b[288:], crc32.Checksum(b[:288], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// tarMember is one of an archive in the making.
type tarMember struct {
	tar.Header
	content []byte
}

func reg(name string, content []byte) tarMember {
	return tarMember{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Format: tar.FormatUSTAR}, content}
}

func archived(t testing.TB, members ...tarMember) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range members {
		m.Size, m.ModTime = int64(len(m.content)), time.Unix(1_790_000_000, 0)
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(m.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func serverArchive(t testing.TB) []byte {
	return archived(t,
		reg("backup_label", []byte("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nSTART TIMELINE: 1\n")),
		tarMember{Header: tar.Header{Typeflag: tar.TypeDir, Name: "base/1/", Mode: 0o700}},
		reg("base/1/112", bytes.Repeat([]byte("page"), 100)), reg("base/1/113", nil),
		tarMember{Header: tar.Header{Typeflag: tar.TypeDir, Name: "./pg_tblspc", Mode: 0o700}},
		tarMember{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "pg_tblspc/16385", Linkname: "/space", Mode: 0o777}},
		tarMember{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: "pg_wal", Linkname: "/wal", Mode: 0o777}},
		reg("global/pg_control", soundControl()),
	)
}

// sparseArchive claims size bytes of zeroes in a file that takes some 3 kB, in one of two forms (GNU tar manual, "PAX
// Format, Versions 0.1 and 1.0").
func sparseArchive(size int64, old bool) []byte {
	pax := func(key, value string) string {
		n := len(key) + len(value) + 3
		for n != len(fmt.Sprint(n))+len(key)+len(value)+3 {
			n = len(fmt.Sprint(n)) + len(key) + len(value) + 3
		}
		return fmt.Sprintf("%d %s=%s\n", n, key, value)
	}
	block := func(name string, flag byte, content string) []byte {
		h := make([]byte, 512)
		copy(h, name)
		copy(h[100:], "0000600\x000000000\x000000000\x00")
		copy(h[124:], fmt.Sprintf("%011o\x0000000000000\x00        %c", len(content), flag))
		copy(h[257:], "ustar\x0000")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
		return append(append(h, content...), make([]byte, -len(content)&511)...)
	}
	records := pax("GNU.sparse.major", "1") + pax("GNU.sparse.minor", "0") + pax("GNU.sparse.name", "base/1/112") + pax("GNU.sparse.realsize", fmt.Sprint(size))
	m := fmt.Sprintf("1\n%d\n0\n", size)
	m += strings.Repeat("\x00", 512-len(m))
	if old {
		m = ""
		records = pax("GNU.sparse.size", fmt.Sprint(size)) + pax("GNU.sparse.numblocks", "1") + pax("GNU.sparse.map", fmt.Sprintf("%d,0", size))
	}
	return append(append(block("pax", 'x', records), block("base/1/112", '0', m)...), make([]byte, 1024)...)
}

// newReading makes an attempt that stores in memory, as far as the reading of archives needs one.
func newReading(t testing.TB) (a *attempt, r *repo.Repository) {
	t.Helper()
	r, err := repo.OpenOrCreate(t.Context(), mem.New())
	if err != nil {
		t.Fatal(err)
	}
	id := repo.NewBackupID(time.Now(), repo.Full)
	a = &attempt{
		started: time.Unix(1_790_000_000, 0).UTC(), opts: Options{Logger: slog.New(slog.DiscardHandler)},
		manifest: &repo.Manifest{Cluster: "c1", BackupID: id, Type: repo.Full, Tablespaces: []repo.Tablespace{{OID: 16385, Location: "/space"}}},
	}
	a.writer, err = r.NewWriter(t.Context(), repo.WriterOptions{Cluster: "c1", BackupID: id, Compression: repo.NoCompression, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	return a, r
}

// FuzzArchive reads hostile bytes as an archive of BASE_BACKUP, of the data directory and of a tablespace, into a
// repository. Every entry lies where the archive belongs, has the content that archive/tar reads by itself, and no
// member is kept in memory whole.
func FuzzArchive(f *testing.F) {
	f.Add(serverArchive(f))
	f.Add(archived(f, reg("PG_15_202209061/5/16384", []byte("x")), reg("./a", nil)))
	f.Add(archived(f, reg(".", []byte("x"))))
	f.Add(archived(f, reg("../base/1/112", []byte("x"))))
	f.Add(archived(f, reg("/etc/passwd", []byte("x")), reg("..", nil)))
	f.Add(archived(f, reg("global/pg_control", make([]byte, 8192))))
	f.Add(sparseArchive(1<<50, false))
	f.Add(sparseArchive(1<<50, true))
	f.Add(archived(f, tarMember{Header: tar.Header{Typeflag: tar.TypeReg, Name: strings.Repeat("long/", 60) + "x", Mode: 1 << 40}}, reg("a", nil), reg("a/b", nil)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, ar := range []dbcore.Archive{{Name: "base.tar"}, {Name: "16385.tar", TablespacePath: "/space"}} {
			a, r := newReading(t)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := a.archive(t.Context(), ar, bytes.NewReader(data))
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; got > uint64(16<<20+100*len(data)) {
				t.Fatalf("%d bytes were allocated for an archive of %d", got, len(data))
			}
			if err == nil {
				checkStored(t, a, r, ar, data)
			}
			a.writer.Close()
		}
	})
}

// checkStored compares what was stored of an archive with what archive/tar says is in it.
func checkStored(t *testing.T, a *attempt, r *repo.Repository, ar dbcore.Archive, data []byte) {
	t.Helper()
	prefix := ""
	if ar.TablespacePath != "" {
		prefix = "pg_tblspc/16385"
	}
	want := map[string][]byte{}
	for tr := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			content, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			want[path.Join(prefix, h.Name)] = content
		}
	}
	var err error
	if a.manifest.Table, err = a.writer.Finish(); err != nil {
		if !strings.Contains(err.Error(), "stands in it twice") {
			t.Fatal(err)
		}
		return
	}
	if err := r.PutManifest(t.Context(), a.manifest); err != nil {
		t.Fatal(err)
	}
	snap, err := r.OpenBackup(t.Context(), "c1", a.manifest.BackupID)
	if err != nil {
		t.Fatal(err)
	}
	for e, err := range snap.Entries(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if repo.CheckPath(e.Path) != nil || prefix != "" && e.Path != prefix && !strings.HasPrefix(e.Path, prefix+"/") {
			t.Fatalf("an archive of %q has stored %q", prefix, e.Path)
		}
		if e.Type != repo.TypeFile {
			continue
		}
		content, ok := want[e.Path]
		got := make([]byte, e.Size)
		if n, err := snap.ReadAt(t.Context(), &e, got, 0); err != nil && !errors.Is(err, io.EOF) || n != len(got) {
			t.Fatalf("read %s: %v", e.Path, err)
		}
		if !ok || !bytes.Equal(got, content) {
			t.Fatalf("%s is stored with %d bytes, the archive has %d", e.Path, len(got), len(content))
		}
		delete(want, e.Path)
	}
	if len(want) > 0 {
		t.Fatalf("%d files of the archive are not stored", len(want))
	}
}

// TestArchive_OfAHostileServer: an archive is refused as soon as a member is what PostgreSQL does not send.
func TestArchive_OfAHostileServer(t *testing.T) {
	tablespace := dbcore.Archive{Name: "16385.tar", TablespacePath: "/space"}
	for _, c := range []struct {
		name string
		ar   dbcore.Archive
		data []byte
		want string // part of the error; "" is success
	}{
		{"sound", dbcore.Archive{Name: "base.tar"}, serverArchive(t), ""},
		{"out of the data directory", dbcore.Archive{Name: "base.tar"}, archived(t, reg("../x", nil)), `a file named "../x"`},
		{"a file without a name", dbcore.Archive{Name: "base.tar"}, archived(t, reg(".", []byte("x"))), `a file named "."`},
		{"absolute", dbcore.Archive{Name: "base.tar"}, archived(t, reg("/x", nil)), `a file named "/x"`},
		{"out of a tablespace into the data directory", tablespace, archived(t, reg("../../global/1262", nil)), `a file named "../../global/1262"`},
		{"a tablespace without an OID", dbcore.Archive{Name: "x/y.tar", TablespacePath: "/space"}, serverArchive(t), "no OID"},
		{"a huge control file", dbcore.Archive{Name: "base.tar"}, archived(t, reg("global/pg_control", make([]byte, 1<<20))), "1048576 bytes"},
		{"a sparse file", dbcore.Archive{Name: "base.tar"}, sparseArchive(1<<40, false), "sparse file"},
		{"a sparse file of the older form", dbcore.Archive{Name: "base.tar"}, sparseArchive(1<<40, true), "sparse file"},
		{"a device", dbcore.Archive{Name: "base.tar"}, archived(t, tarMember{Header: tar.Header{Typeflag: tar.TypeChar, Name: "x"}}), "an entry of type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, _ := newReading(t)
			defer a.writer.Close()
			err := a.archive(t.Context(), c.ar, bytes.NewReader(c.data))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// FuzzLabel reads hostile bytes as a backup_label, and both of this program's readers of positions must agree on them.
func FuzzLabel(f *testing.F) {
	f.Add("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\n" +
		"BACKUP FROM: primary\nSTART TIME: 2026-11-23 07:45:01 UTC\nLABEL: lifeboat x\nSTART TIMELINE: 1\n")
	f.Add("START WAL LOCATION: 0/0 (file 000000000000000000000000)\nSTART TIMELINE: 0\n")
	f.Add("START WAL LOCATION: 123456789/1 (file 000000010000000000000002)\nSTART TIMELINE: 4294967296\n")
	f.Add("ffffffff/0")
	f.Fuzz(func(t *testing.T, text string) {
		one, err1 := pg.ParseLSN(text)
		two, err2 := dbcore.ParseLSN(text)
		if (err1 == nil) != (err2 == nil) || uint64(one) != uint64(two) || err1 == nil && one.String() != two.String() {
			t.Fatalf("%q is %v, %v and %v, %v", text, one, err1, two, err2)
		}
		start, timeline, err := parseLabel(text)
		if err != nil {
			return
		}
		if start == 0 || timeline == 0 {
			t.Fatalf("accepted %v on timeline %d", start, timeline)
		}
		segment := pg.SegmentOf(timeline, start, pg.DefaultSegmentSize).Name(pg.DefaultSegmentSize)
		made := fmt.Sprintf("START WAL LOCATION: %v (file %s)\nSTART TIMELINE: %d\n", start, segment, timeline)
		if again, tl, err := parseLabel(made); err != nil || again != start || tl != timeline {
			t.Fatalf("%q: %v, %d, %v", made, again, tl, err)
		}
	})
}

// FuzzMap reads hostile bytes as a tablespace_map. What is accepted is all of it: it comes out again when it is written.
func FuzzMap(f *testing.F) {
	f.Add("16385 /space\n16386 /with a\\\nline feed\\\\\n")
	f.Add("1 pg_tblspc/1\n1 /x\n")
	f.Add("1 \\")
	f.Fuzz(func(t *testing.T, text string) {
		spaces, err := parseMap(text)
		if err != nil {
			return
		}
		var made strings.Builder
		lines := 0
		for oid, location := range spaces {
			fmt.Fprintf(&made, "%s %s\n", oid, strings.NewReplacer(`\`, `\\`, "\n", "\\\n", "\r", "\\\r").Replace(location))
			lines += strings.Count(location, "\n") + 1
		}
		again, err := parseMap(made.String())
		if err != nil || fmt.Sprint(again) != fmt.Sprint(spaces) || lines != strings.Count(text, "\n") {
			t.Fatalf("%q: %q, then %q, %v", text, spaces, again, err)
		}
	})
}

// FuzzIncludes reads hostile bytes as configuration. Names come out absolute and few, however many there are, and a word
// ends where it seems to.
func FuzzIncludes(f *testing.F) {
	f.Add("include 'a.conf'\ninclude_if_exists = 'it''s \\' b' # c\nInclude_dir '/etc/x/'\n", false)
	f.Add("local all @users,\"@literal\" trust \\\n @more\n@\ninclude_dir ../d\n", true)
	f.Add(strings.Repeat("@a ", 3000), true)
	f.Add(strings.Repeat("include 'x'\n", 3000), false)
	f.Add("include '\\", false)
	f.Fuzz(func(t *testing.T, text string, access bool) {
		kind := serverConfig
		if access {
			kind = accessConfig
		}
		file := "/etc/" + strings.Repeat("long/", 100) + "postgresql.conf"
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		list := includesOf(kind, file, []byte(text))
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > uint64(4<<20+300*len(text)) {
			t.Fatalf("%d bytes were allocated for %d", got, len(text))
		}
		if len(list) > maxConfigNames+2 || len(list) > len(text)/2 {
			t.Fatalf("%d names in %d bytes", len(list), len(text))
		}
		for _, in := range list {
			if !path.IsAbs(in.path) || path.Clean(in.path) != in.path || in.dir && in.optional {
				t.Fatalf("names %+v", in)
			}
		}
		for line := range strings.Lines(text) {
			total := 0
			for _, w := range configWords(kind, line) {
				total += len(w.text)
			}
			if total > len(line) {
				t.Fatalf("words of %d bytes in a line of %d", total, len(line))
			}
		}
	})
}
