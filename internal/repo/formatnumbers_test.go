package repo

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// formatTable returns the rows of the table in docs/repository-format.md whose first column has the given heading, as
// cells by column: the nth such table of the section.
func formatTable(t *testing.T, section, heading string, nth int) [][]string {
	t.Helper()
	doc, err := os.ReadFile("../../docs/repository-format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(doc), "\n## "+section)
	if !ok {
		t.Fatalf("no section %q", section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	var rows [][]string
	in, table := false, false
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case !strings.HasPrefix(line, "|"):
			if in {
				return rows
			}
			table = false
		case !table: // the line of headings
			if table = true; cells[0] == heading {
				nth--
				in = nth == 0
			}
		case in && !strings.HasPrefix(cells[0], "---"):
			rows = append(rows, cells)
		}
	}
	if !in {
		t.Fatalf("section %q has no table that begins with %q", section, heading)
	}
	return rows
}

// columns maps one column of a table to another.
func columns(rows [][]string, from, to int) map[string]string {
	out := map[string]string{}
	for _, r := range rows {
		out[r[from]] = r[to]
	}
	return out
}

func checkNumbers(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	for k, v := range want {
		if got[k] != v {
			t.Errorf("%s: the document says %q for %q, the code %q", what, got[k], k, v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: the document has %d lines, the code %d", what, len(got), len(want))
	}
}

func num(n int) string { return strconv.Itoa(n) }

// TestFormatDocument_NumbersMatchCode compares the document's tables with the constants that the code writes by.
func TestFormatDocument_NumbersMatchCode(t *testing.T) {
	checkNumbers(t, "container header", columns(formatTable(t, "3. ", "offset", 1), 0, 1), map[string]string{
		"0": num(len(magic)), "8": "1", "9": "1", "10": "1", "11": "5", num(saltOffset): num(len(PackID{})),
		num(headerTagOffset): num(tagSize),
	})
	if headerTagOffset+tagSize != headerSize {
		t.Error("the tag does not end the header")
	}
	// The second such table of the section is what a tag covers; its last line begins where the fixed part ends.
	aad := formatTable(t, "3. ", "offset", 2)
	checkNumbers(t, "tag", columns(aad, 0, 1), map[string]string{
		"0": num(len(magic)), "8": "1", "9": "1", "10": "1", "11": "1",
		"12": num(len(ID{})), "44": num(len(PackID{})), "76": "8", "84": "2", "86": "-",
	})

	// What the document calls ID, NAME and so on is any part of a key.
	part := regexp.MustCompile(`[A-Z]{2,}`)
	keys := map[string]string{}
	for key, kind := range columns(formatTable(t, "2. ", "key", 1), 0, 1) {
		if below, ok := strings.CutPrefix(strings.Trim(key, "`"), "clusters/C/"); ok && !strings.HasPrefix(below, "NAME/") {
			keys[part.ReplaceAllString(below, "*")] = kind
		}
	}
	want := map[string]string{}
	for _, p := range places {
		want[p.Pattern] = p.Kind.String()
	}
	checkNumbers(t, "keys", keys, want)

	kinds := map[string]string{}
	for k := KindData; !strings.HasPrefix(k.String(), "kind "); k++ {
		kinds[num(int(k))] = k.String()
	}
	checkNumbers(t, "kinds", columns(formatTable(t, "3. ", "kind", 1), 0, 1), kinds)
	codecs := columns(formatTable(t, "3. ", "codec", 1), 0, 1)
	for codec, word := range map[int]string{codecNone: "plain", codecZstd: "Zstandard", codecS2: "S2"} {
		if !strings.Contains(codecs[num(codec)], word) {
			t.Errorf("codec %d: the document says %q", codec, codecs[num(codec)])
		}
	}
	checkNumbers(t, "nodes", columns(formatTable(t, "5. ", "node", 1), 0, 1),
		map[string]string{"leaf": num(nodeLeaf), "index": num(nodeIndex)})
	checkNumbers(t, "entries", columns(formatTable(t, "6. ", "entry", 1), 0, 1),
		map[string]string{"file": num(int(TypeFile)), "directory": num(int(TypeDir)), "symbolic link": num(int(TypeSymlink))})
	checkNumbers(t, "roots", columns(formatTable(t, "6. ", "root", 1), 0, 1),
		map[string]string{"empty": num(rootEmpty), "chunk": num(rootChunk), "node": num(rootNode)})
	index := formatTable(t, "4. ", "offset", 1)
	last := index[len(index)-1]
	if at, _ := strconv.Atoi(last[0]); num(packIndexEntry-at) != last[1] {
		t.Errorf("the last field of a pack's index entry is at %s with %s bytes, the entry has %d", last[0], last[1], packIndexEntry)
	}
}

// TestFormatDocument_Defaults compares the header's fields and defaults, and the manifest's fields, with the code.
func TestFormatDocument_Defaults(t *testing.T) {
	h := defaultHeader()
	checkNumbers(t, "header", columns(formatTable(t, "2. ", "field", 1), 0, 2), map[string]string{
		"`format`": num(Format), "`id`": "random", "`createdAt`": "now", "`namingKey`": "random", "`chunkSize`": num(h.ChunkSize),
		"`leafSpan`": num(h.LeafSpan), "`fanOut`": num(h.FanOut), "`packSize`": num(h.PackSize), "`check`": "computed",
	})

	plain, err := encodeJSON("x", Manifest{
		ParentID: "p", WorkflowID: "w", Tablespaces: []Tablespace{{}}, RelationSegmentBlocks: 1, PageCheck: &PageCheck{}, Configuration: &Configuration{},
	})
	if err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile("`([A-Za-z]+)`")
	var documented []string
	for _, row := range formatTable(t, "7. ", "field", 1) {
		for _, m := range name.FindAllStringSubmatch(row[0], -1) {
			documented = append(documented, m[1])
		}
	}
	slices.Sort(documented)
	if got := topLevelKeys(t, plain); !slices.Equal(got, documented) {
		t.Errorf("manifest fields: code %v, document %v", got, documented)
	}
}

// TestFormatDocument_Configuration compares the fields of the source's configuration, and the places of its files.
func TestFormatDocument_Configuration(t *testing.T) {
	plain, err := encodeJSON("x", Configuration{
		DirectoryMode: "0700", Settings: map[string]int32{"a": 1}, Files: []ConfigFile{{}}, References: []ConfigReference{{}},
		Unread: []UnreadFile{{}}, Grants: []string{"g"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range formatTable(t, "7. ", "part", 1) {
		documented = append(documented, strings.Trim(row[0], "`"))
	}
	slices.Sort(documented)
	if got := topLevelKeys(t, plain); !slices.Equal(got, documented) {
		t.Errorf("configuration fields: code %v, document %v", got, documented)
	}
	if doc := string(formatText(t)); !strings.Contains(doc, "`"+ConfigDir+"/files/`") || !strings.Contains(doc, "`"+ConfigDir+"/settings.conf`") {
		t.Errorf("the document does not tell of %s", ConfigDir)
	}
}

func formatText(t *testing.T) []byte {
	t.Helper()
	doc, err := os.ReadFile("../../docs/repository-format.md")
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestFormatDocument_Limits looks for the limits that the document states in its text.
func TestFormatDocument_Limits(t *testing.T) {
	doc, err := os.ReadFile("../../docs/repository-format.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(doc)), " ")
	for _, sentence := range []string{
		fmt.Sprintf("n is at most %d (64 MiB) and at least %d", maxFrame, tagSize),
		fmt.Sprintf("pieces of %d bytes (1 MiB)", frameSize),
		fmt.Sprintf("in order, %d bytes:", packIndexEntry),
		fmt.Sprintf("a header of %d bytes", headerSize),
		fmt.Sprintf("stored is more than %d, and neither stored nor raw is more than %d", tagSize, maxFrame),
		fmt.Sprintf("when the entries take %d bytes or more, or when the low 8 bits", pageBytes),
		fmt.Sprintf("link targets have at most %d bytes", maxPath),
		fmt.Sprintf("over %d seconds after `expires`", leaseSkew/time.Second),
	} {
		if !strings.Contains(text, sentence) {
			t.Errorf("the document does not say %q", sentence)
		}
	}
	if pageMask != 1<<8-1 {
		t.Errorf("pages end at paths of mask %#x, the document says the low 8 bits", pageMask)
	}
}
