package walrecord

import (
	"encoding/json"
	"reflect"
	"testing"
)

// viaJSON sends a value through JSON and back, which must not change it.
func viaJSON[T any](t testing.TB, v *T) *T {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	out := new(T)
	if err := json.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(v, out) {
		t.Fatalf("JSON changed\n%+v into\n%+v", v, out)
	}
	return out
}

// compareSegmentFacts works out from the events of whole records what the facts of
// their segment must be.
func compareSegmentFacts(t *testing.T, f *Facts, events []Event) {
	t.Helper()
	want := Facts{
		SystemID: f.SystemID, Timeline: f.Timeline, LastTimeline: f.LastTimeline, SegmentSize: f.SegmentSize,
		PageMagic: f.PageMagic, StartLSN: f.StartLSN, Head: f.Head, Tail: f.Tail, Stop: f.Stop,
	}
	for _, ev := range events {
		if want.Records == 0 {
			want.FirstRecordLSN = ev.LSN
		}
		want.Records++
		want.LastRecordLSN, want.LastRecordEnd = ev.LSN, ev.End
		if tx := ev.Transaction; tx != nil {
			if tx.Abort {
				want.Aborts++
			} else {
				want.Commits++
			}
			if want.First == nil {
				want.First = tx
			}
			want.Last = tx
			if want.Earliest == nil || tx.Time < want.Earliest.Time {
				want.Earliest = tx
			}
			if want.Latest == nil || tx.Time > want.Latest.Time {
				want.Latest = tx
			}
		}
		if ev.Switch {
			want.SwitchLSN = ev.LSN
		}
		appendIf(&want.RestorePoints, ev.RestorePoint)
		appendIf(&want.Checkpoints, ev.Checkpoint)
		appendIf(&want.EndsOfRecovery, ev.EndOfRecovery)
		appendIf(&want.BackupEnds, ev.BackupEnd)
		appendIf(&want.Tablespaces, ev.Tablespace)
		appendIf(&want.ParameterChanges, ev.ParameterChange)
	}
	if !reflect.DeepEqual(*f, want) {
		a, _ := json.Marshal(f)
		b, _ := json.Marshal(want)
		t.Errorf("facts of the segment at %s:\n got %s\nwant %s", f.StartLSN, a, b)
	}
}

func appendIf[T any](list *[]T, v *T) {
	if v != nil {
		*list = append(*list, *v)
	}
}
