package pgtest

import (
	"os"
	"strconv"
	"testing"
)

// Scale is how many times its usual size a test may have: the environment variable LIFEBOAT_TEST_SCALE, 1 if that is not
// set.
func Scale(t testing.TB) int {
	t.Helper()
	text := os.Getenv("LIFEBOAT_TEST_SCALE")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("pgtest: LIFEBOAT_TEST_SCALE is %q, want a whole number from 1", text)
	}
	return n
}
