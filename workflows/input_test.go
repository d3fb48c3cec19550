package workflows

import (
	"strings"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"

	"lifeboat/internal/contract"
)

// mistyped is what people get wrong in the UI, and what they are told.
func mistyped() []mistake {
	long := strings.Repeat("x", 256)
	return []mistake{
		{"typo in a key", "Backup", []string{`{"clutser":"orders"}`}, `unknown field "clutser"`},
		{"typo in a nested key", "Restore", []string{`{"cluster":"c","targetDir":"/t","host":"h","target":{"knid":"time"}}`}, `unknown field "knid"`},
		{"wrong type", "Backup", []string{`{"cluster":7}`}, `"cluster" must be a string`},
		{"array", "Backup", []string{`[{"cluster":"orders"}]`}, "one JSON object"},
		{"text", "Drill", []string{`"orders"`}, "one JSON object"},
		{"empty", "Backup", []string{``}, `"cluster" is required`},
		{"no argument", "Backup", nil, `"cluster" is required`},
		{"empty object", "Restore", []string{`{}`}, `"cluster" is required`},
		{"null", "Drill", []string{`null`}, `"cluster" is required`},
		{"two values in one", "Backup", []string{`{"cluster":"a"} {"cluster":"b"}`}, "more after it"},
		{"two arguments", "Backup", []string{`{"cluster":"a"}`, `{"cluster":"b"}`}, "several arguments"},
		{"broken JSON", "Backup", []string{`{"cluster":"a"`}, "unexpected EOF"},
		{"backup type", "Backup", []string{`{"cluster":"a","type":"fulll"}`}, `"type" is "fulll"`},
		{"no host", "Restore", []string{`{"cluster":"c","targetDir":"/t"}`}, `"host" is required`},
		{"relative directory", "Restore", []string{`{"cluster":"c","targetDir":"t","host":"h"}`}, `"targetDir"`},
		{"time without a zone", "Restore", []string{`{"cluster":"c","targetDir":"/t","host":"h","target":{"kind":"time","value":"2026-11-23 07:45:00"}}`}, "has no zone"},
		{"bad time of the disaster", "Drill", []string{`{"cluster":"c","disasterAt":"yesterday"}`}, `"disasterAt"`},
		{"unknown scenario", "Drill", []string{`{"cluster":"c","scenario":"fire"}`}, `scenario "fire"`},
		{"long cluster, backup", "Backup", []string{`{"cluster":"` + long + `"}`}, "256 bytes"},
		{"long cluster, restore", "Restore", []string{`{"cluster":"` + long + `","targetDir":"/t","host":"h"}`}, "256 bytes"},
		{"long cluster, drill", "Drill", []string{`{"cluster":"` + long + `"}`}, "256 bytes"},
		{"long host", "Restore", []string{`{"cluster":"c","targetDir":"/t","host":"` + long + `"}`}, "256 bytes"},
		{"level", "Verify", []string{`{"cluster":"a","level":6}`}, `"level" is 6`},
		{"negative level", "Verify", []string{`{"cluster":"a","level":-1}`}, `"level" is -1`},
		{"level in words", "Verify", []string{`{"cluster":"a","level":"two"}`}, `"level" must be`},
		{"typo in a key, verify", "Verify", []string{`{"cluster":"a","lvl":2}`}, `unknown field "lvl"`},
		{"no cluster, verify", "Verify", []string{`{"backup":"all"}`}, `"cluster" is required`},
		{"long cluster, verify", "Verify", []string{`{"cluster":"` + long + `"}`}, "256 bytes"},
		{"typo in a key, health", "HealthCheck", []string{`{"cluster":"a","previus":{}}`}, `unknown field "previus"`},
		{"no cluster, health", "HealthCheck", []string{`{}`}, `"cluster" is required`},
		{"long cluster, health", "HealthCheck", []string{`{"cluster":"` + long + `"}`}, "256 bytes"},
		{"unknown workflow type", "Bakcup", []string{`{"cluster":"orders"}`}, `"Bakcup": use Backup, Restore, Drill, Verify`},
		{"no such unit", "Restore", []string{`{"cluster":"c","targetDir":"/t","host":"h","target":{"kind":"time","value":"5 parsecs ago"}}`}, "5 parsecs ago"},
		{"a number for an object", "Drill", []string{`{"cluster":"c","target":5}`}, `"target" must be`},
		{"an object for a list", "Drill", []string{`{"cluster":"c","checks":{"name":"x"}}`}, `"checks" must be`},
		{"a text for a truth", "Restore", []string{`{"cluster":"c","targetDir":"/t","host":"h","start":"yes"}`}, `"start" must be`},
		{"unknown kind of target", "Drill", []string{`{"cluster":"c","target":{"kind":"yesterday"}}`}, `"yesterday"`},
		{"number", "Verify", []string{`7`}, "one JSON object"},
		{"unknown type and no input", "Frobnicate", nil, `"Frobnicate": use Backup`},
	}
}

type mistake struct {
	name, workflow string
	inputs         []string
	text           string
}

// What people mistype into the UI fails at once, with the field's name, and no activity runs.
func TestInvalidInput(t *testing.T) {
	for _, c := range mistyped() {
		t.Run(c.name, func(t *testing.T) {
			r := newRun(t, Options{})
			r.execute(c.workflow, c.inputs...)
			r.failure(contract.ErrorInvalidInput, c.text)
			if calls := r.fakes.where(); len(calls) != 0 {
				t.Errorf("activities ran: %q", calls)
			}
		})
	}
}

func TestInputMustBeJSON(t *testing.T) {
	r := newRun(t, Options{})
	r.ExecuteWorkflow(contract.BackupWorkflow, converter.NewRawValue(&commonpb.Payload{
		Metadata: map[string][]byte{converter.MetadataEncoding: []byte("binary/plain")},
		Data:     []byte(`{"cluster":"orders"}`),
	}))
	r.failure(contract.ErrorInvalidInput, `"binary/plain"`)
}

// A Go program passes the contract's struct, and nil is an empty input.
func TestInputFromGo(t *testing.T) {
	r := newRun(t, Options{})
	r.ExecuteWorkflow(contract.BackupWorkflow, contract.BackupInput{Cluster: "orders"})
	resultOf[contract.BackupResult](r)

	r = newRun(t, Options{})
	r.ExecuteWorkflow(contract.BackupWorkflow, nil)
	r.failure(contract.ErrorInvalidInput, `"cluster" is required`)
}

// A relative time means the moment at which the run started, also for the tenth attempt an hour later.
func TestRelativeTimeIsMadeAbsolute(t *testing.T) {
	r := newRun(t, Options{})
	r.fakes.before[contract.PlanRestoreActivity] = failing(3, errOutage)
	r.execute(contract.RestoreWorkflow, `{"cluster":"orders","targetDir":"/t","host":"db1","target":{"kind":"time","value":"5 minutes ago"}}`)
	want := contract.Target{Kind: "time", Value: start.Add(-5 * time.Minute).Format(time.RFC3339)}
	if in := inputOf[contract.PlanRestoreInput](t, r.fakes, contract.PlanRestoreActivity); in.Target != want {
		t.Errorf("planned for %v, want %v", in.Target, want)
	}
	if out := resultOf[contract.RestoreResult](r); out.Target != want {
		t.Errorf("result says %v, want %v", out.Target, want)
	}

	r = newRun(t, Options{})
	r.execute(contract.DrillWorkflow, `{"cluster":"orders","target":{"kind":"time","value":"1 hour ago"}}`)
	want.Value = start.Add(-time.Hour).Format(time.RFC3339)
	if in := inputOf[contract.PrepareDrillInput](t, r.fakes, contract.PrepareDrillActivity); in.Target != want {
		t.Errorf("prepared for %v, want %v", in.Target, want)
	}
}
