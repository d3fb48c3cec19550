package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a configuration. No field holds a secret.
type Problem struct {
	// Line and Column count from 1 and say where; 0 where that is unknown, as for a Config that was built by hand.
	Line, Column int
	// Path names the setting: clusters.orders.checks[0].sql; "" for the file as a whole.
	Path string
	// Text says what is wrong, and where it can what to write instead.
	Text string
}

// Error is what Parse, Load and Validate return for a configuration that they refuse. Problems is never empty, and in
// the order of the file.
type Error struct {
	// File is the path as it was given, "" for a Config that was built by hand.
	File     string
	Problems []Problem
}

// Error returns one line for each problem: FILE:LINE:COLUMN: PATH: TEXT.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		var b strings.Builder
		if e.File != "" {
			b.WriteString(e.File + ":")
		}
		if p.Line > 0 {
			fmt.Fprintf(&b, "%d:%d:", p.Line, p.Column)
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		if p.Path != "" {
			b.WriteString(p.Path + ": ")
		}
		b.WriteString(p.Text)
		lines[i] = b.String()
	}
	return strings.Join(lines, "\n")
}

func newError(file string, problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Error{File: file, Problems: problems}
}

// quote shows what a person wrote, if it is short and cannot be a secret that went astray.
func quote(s string) string {
	connection := strings.Contains(s, "=") && secretParameter(s)
	if len(s) > 64 || strings.Contains(s, "://") || connection {
		return redacted
	}
	return fmt.Sprintf("%q", s)
}

// nearest returns the candidate that is so close to s that a slip of the finger explains it, else "".
func nearest(s string, candidates []string) string {
	best, limit := "", max(1, len(s)/3)+1
	for _, candidate := range candidates {
		if len(s) > 64 {
			break
		}
		if d := distance(strings.ToLower(s), candidate); d < limit {
			best, limit = candidate, d
		}
	}
	return best
}

// distance is the number of bytes to insert, delete, replace or swap with their neighbour that turns a into b (optimal
// string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			rows[i][j] = min(change, rows[i-1][j]+1, rows[i][j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
