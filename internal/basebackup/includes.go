package basebackup

import (
	"path"
	"strings"
)

// configKind is how a configuration file names others.
type configKind int

const (
	serverConfig configKind = iota // postgresql.conf: include, include_if_exists, include_dir
	accessConfig                   // pg_hba.conf, pg_ident.conf: these since PostgreSQL 16, and @file
)

// include is one file, or for dir all of a directory's *.conf, that another file names.
type include struct {
	path     string
	dir      bool
	optional bool // it may be missing
}

// includesOf lists what a configuration file names, in order; relative names count from the file's own directory. It is
// lenient: what PostgreSQL would not understand names nothing. It stops at one more than is ever looked for: each name
// comes out with its directory, far longer than it is there.
func includesOf(kind configKind, file string, content []byte) []include {
	var out []include
	add := func(name string, dir, optional bool) {
		if !path.IsAbs(name) {
			name = path.Join(path.Dir(file), name)
		}
		out = append(out, include{path.Clean(name), dir, optional})
	}
	text := string(content)
	if kind == accessConfig {
		text = strings.ReplaceAll(text, "\\\n", " ") // a line that goes on in the next (hba.c, next_line)
	}
	for line := range strings.Lines(text) {
		words := configWords(kind, line)
		if len(words) == 0 {
			continue
		}
		if len(out) > maxConfigNames {
			return out
		}
		if len(words) > 1 && words[1].text != "" {
			switch strings.ToLower(words[0].text) {
			case "include":
				add(words[1].text, false, false)
			case "include_if_exists":
				add(words[1].text, false, true)
			case "include_dir":
				add(words[1].text, true, false)
			}
		}
		for _, w := range words {
			name, ok := strings.CutPrefix(w.text, "@")
			if ok && kind == accessConfig && !w.quoted && name != "" && len(out) <= maxConfigNames {
				add(name, false, false)
			}
		}
	}
	return out
}

// configWord is a word of a line.
type configWord struct {
	text   string
	quoted bool // from its beginning
}

// configWords takes a line apart: words parted by blanks, "=" or commas, quoted by ' in postgresql.conf (GUC_STRING,
// guc-file.l) and by " in the others (next_token, hba.c), up to a comment.
func configWords(kind configKind, line string) []configWord {
	quote, parting := byte('\''), " \t\r\n="
	if kind == accessConfig {
		quote, parting = '"', " \t\r\n,"
	}
	var words []configWord
	for i := 0; i < len(line); {
		switch c := line[i]; {
		case strings.IndexByte(parting, c) >= 0:
			i++
		case c == '#':
			return words
		default:
			w, n := configWordAt(line[i:], quote, parting)
			words = append(words, w)
			i += n
		}
	}
	return words
}

// configWordAt reads the word at the beginning of s, and tells how long it was there. Doubled quotes mean one; in
// postgresql.conf so does a backslash before the quote.
func configWordAt(s string, quote byte, parting string) (w configWord, n int) {
	var b strings.Builder
	inside := false
	for ; n < len(s); n++ {
		c := s[n]
		next := byte(0)
		if n+1 < len(s) {
			next = s[n+1]
		}
		switch {
		case inside && next != 0 && (c == quote && next == quote || c == '\\' && quote == '\''):
			b.WriteByte(next)
			n++
		case c == quote:
			w.quoted = w.quoted || n == 0
			inside = !inside
		case !inside && (strings.IndexByte(parting, c) >= 0 || c == '#'):
			w.text = b.String()
			return w, n
		default:
			b.WriteByte(c)
		}
	}
	w.text = b.String()
	return w, n
}
