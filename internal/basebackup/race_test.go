//go:build race

package basebackup_test

const raceEnabled = true
