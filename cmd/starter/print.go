package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"lifeboat/internal/contract"
)

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// note prints a line for people, to stderr.
func (a *app) note(format string, args ...any) {
	if !a.quiet && !a.json {
		fmt.Fprintf(a.stderr, format+"\n", args...)
	}
}

// printer collects the first error of many prints.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

// table prints rows of tab-separated cells in columns.
func (a *app) table(rows func(p *printer)) error {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	p := &printer{w: w}
	rows(p)
	if p.err != nil {
		return p.err
	}
	return w.Flush()
}

// lines prints lines as they are.
func (a *app) lines(print func(p *printer)) error {
	p := &printer{w: a.stdout}
	print(p)
	return p.err
}

// size puts bytes into words, in units of 1000.
func size(n int64) string {
	switch {
	case n >= 1e12:
		return fmt.Sprintf("%.2f TB", float64(n)/1e12)
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

// when is a time to the second, in UTC; "-" for none.
func when(t *time.Time) string {
	if t == nil || t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// span puts seconds into words; "unknown" for none.
func span(seconds *float64) string {
	if seconds == nil {
		return "unknown"
	}
	if *seconds < 60 {
		return fmt.Sprintf("%.1f s", *seconds)
	}
	return time.Duration(*seconds * float64(time.Second)).Round(time.Second).String()
}

// isTerminal tells whether somebody looks at w as it is written.
func (a *app) isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	term, _ := a.env("TERM")
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && term != "" && term != "dumb"
}

// paint colours a verdict on a terminal. Columns of a table must not be painted: the escapes would count as width.
func (a *app) paint(v contract.Verdict) string {
	_, plain := a.env("NO_COLOR")
	if a.noColor || plain || !a.isTerminal(a.stdout) {
		return string(v)
	}
	color := "33" // yellow
	switch v {
	case contract.Pass:
		color = "32"
	case contract.Fail:
		color = "31"
	}
	return "\x1b[1;" + color + "m" + string(v) + "\x1b[0m"
}
