package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// suggestFlag adds the nearest flag to an error about an unknown one.
func suggestFlag(cmd *cobra.Command, err error) error {
	_, name, ok := strings.Cut(err.Error(), "unknown flag: --")
	if !ok {
		return err
	}
	best, limit := "", 3
	for candidate := range strings.FieldsSeq(cmd.Flags().FlagUsages()) {
		candidate, long := strings.CutPrefix(candidate, "--")
		if !long {
			continue
		}
		if d := distance(name, candidate); d < limit || strings.HasPrefix(candidate, name) && best == "" {
			best, limit = candidate, min(limit, d)
		}
	}
	if best == "" {
		return err
	}
	return fmt.Errorf("unknown flag --%s: did you mean --%s?", name, best)
}

// distance is Levenshtein's: how many letters to add, drop or change.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
