package health

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"lifeboat/dbcore"
	"lifeboat/internal/repo"
)

// Options say what Collect looks at.
type Options struct {
	Cluster, ConfigFile string
	// Server is how to reach the server.
	Server dbcore.Config
	RPO    time.Duration
	// DataDirectory is the server's, if it is on this host; "" if not.
	DataDirectory string
	// RepositoryPath is the repository's folder, if it is one on this host; "" if not. RepositoryName names it for people.
	RepositoryPath, RepositoryName string
	// Open opens the repository, and makes none.
	Open func(context.Context) (*repo.Repository, error)
	// Proofs gives the newest verification of each backup that has one, by backup id.
	Proofs func(context.Context, *repo.Repository) (map[string]Proof, error)
	// Remedy says what to do about an error; nil: the rules say it.
	Remedy func(error) string
	// ServerTime and RepositoryTime bound the two parts; 0 is 15 s and a minute.
	ServerTime, RepositoryTime time.Duration
}

const (
	defaultServerTime     = 15 * time.Second
	defaultRepositoryTime = time.Minute
)

// Collect looks at a cluster. What it cannot look at is part of the snapshot; its only error is the end of ctx. The server
// is asked first, so that a position that the repository covers afterwards was safe when it was seen. It may be repeated;
// it changes nothing, but for a probe that it writes to the repository and removes.
func Collect(ctx context.Context, o Options) (*Snapshot, error) {
	s := &Snapshot{
		At: time.Now().UTC(), Cluster: o.Cluster, ConfigFile: o.ConfigFile, RPO: o.RPO,
		Repository: Repository{Name: o.RepositoryName},
	}
	if o.ServerTime == 0 {
		o.ServerTime = defaultServerTime
	}
	if o.RepositoryTime == 0 {
		o.RepositoryTime = defaultRepositoryTime
	}
	o.server(ctx, s)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	// A mount whose server is gone answers nothing at all, not even the end of a context. What hangs is left behind.
	part, err := within(ctx, o.RepositoryTime, func(ctx context.Context) *Snapshot {
		part := &Snapshot{Repository: Repository{Name: o.RepositoryName}} // shares nothing with what is given up
		o.disks(part)
		o.repository(ctx, part)
		return part
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		s.Repository.Failed = &Failure{fmt.Sprintf("repository %s: %v", o.RepositoryName, err), ""}
		s.cannotSee(Failure{"the repository did not answer", ""}, AreaDisk, AreaStore, AreaIdentity, AreaExposure, AreaBackups)
		return s, nil
	}
	s.Disks, s.Repository, s.Coverage, s.Backups = part.Disks, part.Repository, part.Coverage, part.Backups
	for _, u := range part.Unseen {
		s.cannotSee(u.Reason, u.Area)
	}
	if lsn, ok := s.position(); ok && s.Coverage != nil {
		s.Coverage.Server = &lsn
	}
	return s, nil
}

// errNoAnswer says that something did not end in its time.
var errNoAnswer = errors.New("no answer")

// within runs f for at most limit, and does not wait for one that does not heed its context.
func within[T any](ctx context.Context, limit time.Duration, f func(context.Context) T) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan T, 1)
	go func() { done <- f(ctx) }()
	grace := time.NewTimer(limit + limit/4)
	defer grace.Stop()
	select {
	case v := <-done:
		return v, nil
	case <-grace.C:
		var none T
		return none, fmt.Errorf("%w within %v", errNoAnswer, limit)
	}
}

// failure explains an error.
func (o *Options) failure(err error) Failure {
	f := Failure{Problem: err.Error()}
	if o.Remedy != nil {
		f.Remedy = o.Remedy(err)
	}
	for _, form := range []string{"; %s", ": %s", " (hint: %s)"} { // it is told by itself
		f.Problem = strings.TrimSuffix(f.Problem, fmt.Sprintf(form, f.Remedy))
	}
	return f
}
