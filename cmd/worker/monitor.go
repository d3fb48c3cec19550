package main

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"lifeboat/activities"
	"lifeboat/dbcore"
)

const (
	// watchEvery is how often a worker probes the server of each of its clusters: one that is dead counts as down within
	// 8 s. A health check comes once a minute.
	watchEvery = 2 * time.Second
	// watchAgain is the pause before a server that could not be reached at the start is tried again.
	watchAgain = 5 * time.Second
)

// keepWatching watches the servers of all clusters, and tells the log when one goes, comes back or changes its role, until
// stopped. It takes one connection of each server.
func keepWatching(ctx context.Context, clusters map[string]activities.Cluster, logger *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for name, c := range clusters {
		wg.Go(func() { watch(ctx, c.Server, logger.With("cluster", name)) })
	}
	return func() { cancel(); wg.Wait() }
}

// watch watches one server until ctx ends.
func watch(ctx context.Context, server dbcore.Config, logger *slog.Logger) {
	db := openWatched(ctx, server, logger)
	if db == nil {
		return
	}
	defer db.Close()
	// The pool serves nobody: only its server matters.
	m, err := dbcore.NewHealthMonitor(db, watchEvery, dbcore.HealthThresholds{IdleShare: -1, MinOpen: -1, Wait: -1})
	if err != nil {
		logger.Error("the server is not watched", "error", err)
		return
	}
	defer m.OnChange(func(e dbcore.HealthEvent) { logChange(logger, e) })()
	if err := m.Run(ctx); err != nil {
		logger.Error("the server is not watched", "error", err)
	}
}

// openWatched opens a pool of one connection, as soon as the server can be reached; nil: ctx has ended.
func openWatched(ctx context.Context, server dbcore.Config, logger *slog.Logger) *dbcore.DB {
	server.MaxOpenConns, server.MaxIdleConns = 1, 1
	tick := time.NewTicker(watchAgain)
	defer tick.Stop()
	for told := false; ; told = true {
		db, err := dbcore.Open(ctx, server)
		if err == nil {
			return db
		}
		if ctx.Err() == nil && !told {
			logger.Warn("the server cannot be reached; it is tried again", "in", watchAgain, "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// logChange tells what a monitor saw, as loud as it is bad.
func logChange(logger *slog.Logger, e dbcore.HealthEvent) {
	switch e.Kind {
	case dbcore.EventState:
		level := slog.LevelInfo
		switch e.To {
		case dbcore.ServerDown:
			level = slog.LevelError
		case dbcore.ServerSuspect:
			level = slog.LevelWarn
		}
		_, why, _ := strings.Cut(e.Text, ": ") // behind the state itself
		logger.Log(context.Background(), level, "the server is "+e.To.String(), "was", e.From.String(), "why", why)
	case dbcore.EventRole:
		level := slog.LevelWarn
		if e.FromRole == dbcore.RoleUnknown {
			level = slog.LevelInfo
		}
		logger.Log(context.Background(), level, "the server is a "+e.ToRole.String(), "was", e.FromRole.String())
	case dbcore.EventRaised:
		logger.Warn("the server is slow or behind", "alert", e.Alert.Kind, "why", e.Alert.Text)
	case dbcore.EventCleared:
		logger.Info("the server is quick again", "alert", e.Alert.Kind)
	}
}
