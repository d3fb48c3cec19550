package verify

import "testing"

func TestFullXID_NearTheWrapOfAnEpoch(t *testing.T) {
	const e = 1 << 32
	for _, tt := range []struct {
		name string
		next uint64
		xid  uint32
		want uint64
	}{
		{"first epoch", 800, 790, 790},
		{"not there yet", 800, 805, 805},
		{"the same epoch", 5*e + 800, 790, 5*e + 790},
		{"the present one has just begun", 5*e + 3, 0xFFFFFFF0, 5*e - 16},
		{"the next one is about to begin", 5*e - 16, 5, 5*e + 5},
		{"exactly at the wrap", 5 * e, 0xFFFFFFFF, 5*e - 1},
		{"the oldest that can live", 5*e + 1<<31, 3, 5*e + 3},
		{"before the first wrap", e - 1, 7, e + 7},
		{"nothing is older than the first epoch", 10, 0xFFFFFFF0, 0xFFFFFFF0},
	} {
		if got := fullXID(tt.next, tt.xid); got != tt.want {
			t.Errorf("%s: xid %d with next %d is %d, want %d", tt.name, tt.xid, tt.next, got, tt.want)
		}
	}
}
