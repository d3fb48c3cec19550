package dbcore

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// pingAfter is how long a connection may be idle before it is pinged when it is taken out of the pool, as in pgxpool.
const pingAfter = time.Second

// suspicion is what one lost connection says about the others of a pool: they may be as dead, and pgx would only ping
// those that were idle for long. Each connection carries the generation in which it was last seen alive, and one of an
// older generation is pinged before it is given out. Nothing is pinged while nothing is suspected.
type suspicion struct {
	generation atomic.Int64

	mu    sync.Mutex
	hooks []*func(reason string)
}

// suspect begins a new generation, and tells whoever listens.
func (s *suspicion) suspect(reason string) {
	s.generation.Add(1)
	s.mu.Lock()
	hooks := slices.Clone(s.hooks)
	s.mu.Unlock()
	for _, h := range hooks {
		(*h)(reason)
	}
}

// onSuspicion has fn called, in the middle of somebody's request, whenever the pool becomes suspect.
func (s *suspicion) onSuspicion(fn func(reason string)) (remove func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hooks = append(s.hooks, &fn)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hooks = slices.DeleteFunc(s.hooks, func(h *func(string)) bool { return h == &fn })
	}
}

// shouldPing is pgxpool's hook. A ping that fails costs the connection, so to mark it as seen beforehand is right.
func (s *suspicion) shouldPing(_ context.Context, p pgxpool.ShouldPingParams) bool {
	now, meta := s.generation.Load(), metaOf(p.Conn)
	if meta.generation == now {
		return p.IdleDuration > pingAfter
	}
	meta.generation = now
	return true
}

// Recycle closes all idle connections, and those in use when they are given back: after a failover or a change of
// credentials, for instance. Requests go on meanwhile, on new ones.
func (db *DB) Recycle(reason string) {
	db.policy.logger.Info("connections are replaced", "reason", reason, "target", db.target.String())
	db.pool.Reset()
}
