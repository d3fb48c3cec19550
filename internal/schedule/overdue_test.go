package schedule

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"lifeboat/internal/contract"
)

func TestOverdue(t *testing.T) {
	const daily, minutely = "0 2 * * *", "1m"
	for _, c := range []struct {
		name, when, zone string
		created, updated string
		started          []string // when they were due, jitter included
		running, paused  bool
		now              string
		want             string // kind since count
		jitter           time.Duration
	}{
		{name: "ran", when: daily, started: []string{"2026-11-26T02:03:00Z"}, now: "2026-11-26T12:00:00Z"},
		{name: "not run", when: daily, started: []string{"2026-11-25T02:03:00Z"}, now: "2026-11-26T12:00:00Z", want: "overdue 2026-11-26T02:00:00Z 1"},
		{name: "never run", when: daily, now: "2026-11-26T12:00:00Z", want: "overdue 2026-11-02T02:00:00Z 25"},
		{name: "within jitter and grace", when: daily, jitter: 5 * time.Minute, started: []string{"2026-11-25T02:03:00Z"}, now: "2026-11-26T02:09:59Z"},
		{name: "after jitter and grace", when: daily, jitter: 5 * time.Minute, started: []string{"2026-11-25T02:03:00Z"}, now: "2026-11-26T02:10:00Z", want: "overdue 2026-11-26T02:00:00Z 1"},
		{name: "several", when: daily, started: []string{"2026-11-23T02:03:00Z"}, now: "2026-11-26T12:00:00Z", want: "overdue 2026-11-24T02:00:00Z 3"},
		{name: "triggered by hand since", when: daily, started: []string{"2026-11-25T02:03:00Z", "2026-11-26T09:00:00Z"}, now: "2026-11-26T12:00:00Z"},
		{name: "triggered by hand before", when: daily, started: []string{"2026-11-25T02:03:00Z", "2026-11-26T01:00:00Z"}, now: "2026-11-26T12:00:00Z", want: "overdue 2026-11-26T02:00:00Z 1"},
		{name: "created since", when: daily, created: "2026-11-26T08:00:00Z", now: "2026-11-26T12:00:00Z"},
		{name: "changed or resumed since", when: daily, updated: "2026-11-26T08:00:00Z", started: []string{"2026-11-20T02:03:00Z"}, now: "2026-11-26T12:00:00Z"},
		{name: "resumed, and not run since", when: daily, updated: "2026-11-25T08:00:00Z", started: []string{"2026-11-20T02:03:00Z"}, now: "2026-11-26T12:00:00Z", want: "overdue 2026-11-26T02:00:00Z 1"},
		{name: "paused", when: daily, paused: true, now: "2026-11-26T12:00:00Z"},
		{name: "still running", when: daily, running: true, started: []string{"2026-11-24T02:03:00Z"}, now: "2026-11-26T12:00:00Z", want: "overrun 2026-11-25T02:00:00Z 2"},
		{name: "running in time", when: daily, running: true, started: []string{"2026-11-26T02:03:00Z"}, now: "2026-11-26T12:00:00Z"},
		{
			name: "a hole", when: daily, now: "2026-11-26T12:00:00Z", want: "missed 2026-11-22T02:00:00Z 3",
			started: []string{"2026-11-20T02:03:00Z", "2026-11-21T02:01:00Z", "2026-11-25T02:03:00Z", "2026-11-26T02:03:00Z"},
		},
		{
			name: "a hole, in any order, and overdue", when: daily, now: "2026-11-26T12:00:00Z", want: "overdue 2026-11-26T02:00:00Z 1; missed 2026-11-22T02:00:00Z 2",
			started: []string{"2026-11-25T02:03:00Z", "2026-11-21T02:03:00Z", "2026-11-24T02:03:00Z"},
		},
		{name: "a hole before the change", when: daily, updated: "2026-11-24T08:00:00Z", started: []string{"2026-11-20T02:03:00Z", "2026-11-25T02:03:00Z", "2026-11-26T02:03:00Z"}, now: "2026-11-26T12:00:00Z"},
		{name: "a zone", when: daily, zone: "America/New_York", started: []string{"2026-11-25T07:03:00Z"}, now: "2026-11-26T06:59:00Z"},
		{name: "a zone, late", when: daily, zone: "America/New_York", started: []string{"2026-11-25T07:03:00Z"}, now: "2026-11-26T07:05:00Z", want: "overdue 2026-11-26T07:00:00Z 1"},
		{name: "no such time that day", when: "30 2 * * *", zone: "Europe/Berlin", started: []string{"2026-03-28T01:30:00Z"}, now: "2026-03-29T12:00:00Z"},
		{name: "interval", when: minutely, started: []string{"2026-11-26T11:58:03Z"}, now: "2026-11-26T12:00:30Z"},
		{name: "interval, late", when: minutely, started: []string{"2026-11-26T11:56:03Z"}, now: "2026-11-26T12:00:30Z", want: "overdue 2026-11-26T11:57:00Z 2"},
		{name: "interval, long ago", when: minutely, started: []string{"2026-11-20T11:56:03Z"}, now: "2026-11-26T12:00:30Z", want: "overdue 2026-11-25T19:19:00Z 1000"},
		{name: "quarterly", when: "0 6 1 1,4,7,10 *", created: "2026-02-01T00:00:00Z", started: []string{"2026-07-01T06:10:00Z"}, now: "2026-11-26T12:00:30Z", want: "overdue 2026-10-01T06:00:00Z 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Schedule{Mark: Mark{"orders", Verify, "lifeboat"}, TimeZone: c.zone, Jitter: c.jitter}
			if every, err := time.ParseDuration(c.when); err == nil {
				s.When.Every = every
			} else if s.When.Calendar, err = ParseCron(c.when); err != nil {
				t.Fatal(err)
			}
			seen := Seen{CreatedAt: at(t, "2026-11-01T12:00:00Z"), Paused: c.paused}
			if c.created != "" {
				seen.CreatedAt = at(t, c.created)
			}
			if c.updated != "" {
				seen.UpdatedAt = at(t, c.updated)
			}
			for _, text := range c.started {
				seen.Started = append(seen.Started, Started{ScheduledAt: at(t, text)})
			}
			if c.running {
				seen.Running = []string{"run-1"}
			}
			var got []string
			for _, f := range Overdue(s, seen, at(t, c.now)) {
				got = append(got, fmt.Sprintf("%s %s %d", f.Kind, f.Since.UTC().Format(time.RFC3339), f.Count))
				if f.Text == "" || f.Urgent() == (f.Kind == FindingMissed) || (f.Kind == FindingOverrun) != strings.Contains(f.Text, "run-1") {
					t.Errorf("finding %+v", f)
				}
			}
			if text := strings.Join(got, "; "); text != c.want {
				t.Errorf("found %q, want %q", text, c.want)
			}
		})
	}
}

func TestRun_Verdict(t *testing.T) {
	for _, c := range []struct {
		run     Run
		verdict contract.Verdict
		reason  string
	}{
		{Run{contract.BackupWorkflow, Running, nil, ""}, "", ""},
		{Run{"", Gone, nil, ""}, "", "no longer in Temporal"},
		{Run{contract.BackupWorkflow, Completed, []byte(`{"backupId":"b"}`), ""}, contract.Pass, ""},
		{Run{contract.BackupWorkflow, Completed, []byte(`{"backupId":"b","corruptPages":2,"unsurePages":1}`), ""}, contract.Fail, "2 corrupt pages"},
		{Run{contract.BackupWorkflow, Completed, []byte(`{"backupId":"b","unsurePages":1}`), ""}, contract.Partial, "may be corrupt"},
		{Run{contract.BackupWorkflow, Completed, []byte(`{"skipped":"busy: x"}`), ""}, contract.Skipped, "busy: x"},
		{Run{contract.BackupWorkflow, Completed, []byte(`{}`), ""}, contract.CouldNotVerify, "no verdict"},
		{Run{contract.BackupWorkflow, Completed, []byte(`[`), ""}, contract.CouldNotVerify, "cannot be read"},
		{Run{contract.BackupWorkflow, Failed, nil, "no space"}, contract.Fail, "no space"},
		{Run{contract.BackupWorkflow, Canceled, nil, ""}, contract.Fail, "cancelled"},
		{Run{contract.VerifyWorkflow, Completed, []byte(`{"verdict":"PASS"}`), ""}, contract.Pass, ""},
		{Run{contract.VerifyWorkflow, Completed, []byte(`{"verdict":"FAIL"}`), ""}, contract.Fail, ""},
		{Run{contract.VerifyWorkflow, Completed, []byte(`{"verdict":"SKIPPED","skipped":"busy: y"}`), ""}, contract.Skipped, "busy: y"},
		{Run{contract.VerifyWorkflow, Completed, []byte(`{"backupId":"b"}`), ""}, contract.CouldNotVerify, "no verdict"},
		{Run{contract.DrillWorkflow, Failed, nil, "no worker"}, contract.CouldNotVerify, "no worker"},
		{Run{contract.DrillWorkflow, Terminated, nil, ""}, contract.CouldNotVerify, "terminated"},
		{Run{contract.DrillWorkflow, TimedOut, nil, ""}, contract.CouldNotVerify, "timed out"},
	} {
		if v, reason := c.run.Verdict(); v != c.verdict || !strings.Contains(reason, c.reason) || (c.reason == "") != (reason == "") {
			t.Errorf("%+v: %s, %q; want %s, %q", c.run, v, reason, c.verdict, c.reason)
		}
	}
}
