package main

import (
	"log/slog"
	"strings"
	"testing"

	"lifeboat/activities"
	"lifeboat/dbcore"
	"lifeboat/internal/pgtest"
)

// TestKeepWatching: a worker tells of a server that is not there yet, that comes, dies, comes back and is promoted.
func TestKeepWatching(t *testing.T) {
	s := pgtest.New(t, pgtest.Options{})
	standby := s.Standby(t)
	standby.Stop(t)
	cfg, err := dbcore.ParseDSN(standby.DSN(""))
	if err != nil {
		t.Fatal(err)
	}
	log := &buffer{}
	stop := keepWatching(t.Context(), map[string]activities.Cluster{"orders": {Server: cfg}}, slog.New(slog.NewTextHandler(log, nil)))
	from := 0
	told := func(text string) {
		t.Helper()
		waitFor(t, text, func() bool {
			i := strings.Index(log.String()[from:], text)
			if i >= 0 {
				from += i + len(text)
			}
			return i >= 0
		})
	}
	defer func() {
		stop()
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	told(`level=WARN msg="the server cannot be reached; it is tried again" cluster=orders in=5s`)
	standby.StartStandby(t)
	told(`level=INFO msg="the server is a standby" cluster=orders was=unknown`)
	told(`level=INFO msg="the server is up" cluster=orders was=unknown`)
	standby.Kill(t)
	told(`level=WARN msg="the server is suspect" cluster=orders was=up`)
	told(`level=ERROR msg="the server is down" cluster=orders was=suspect`)
	standby.StartStandby(t)
	told(`level=INFO msg="the server is up" cluster=orders was=down`)
	standby.Promote(t)
	told(`level=WARN msg="the server is a primary" cluster=orders was=standby`)
}
