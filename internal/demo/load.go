package demo

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"lifeboat/dbcore"
)

// load writes orders, one after the other, until it is stopped.
type load struct {
	db      *dbcore.DB
	written atomic.Int64
	quiet   sync.RWMutex // held for writing: nobody writes
	stop    func()
	err     atomic.Pointer[error]
}

// startLoad creates the table, fills it, and begins to write.
func (d *demo) startLoad(ctx context.Context) (*load, error) {
	db, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	exists, err := dbcore.One[bool](ctx, db, "select to_regclass('orders') is not null")
	if err == nil && !exists {
		err = fill(ctx, db, d.opts.Rows)
		d.say("table orders has %d rows; customers go on ordering", d.opts.Rows)
	}
	if err != nil {
		db.Close()
		return nil, err
	}
	l := &load{db: db}
	ctx, cancel := context.WithCancel(ctx)
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() { l.write(ctx) })
	}
	l.stop = sync.OnceFunc(func() { cancel(); writers.Wait(); db.Close() })
	return l, nil
}

func fill(ctx context.Context, db *dbcore.DB, rows int) error {
	for _, sql := range []string{
		"create table orders (id bigserial primary key, customer text not null, item text not null, placed_at timestamptz not null default clock_timestamp())",
		"create table note (text text primary key)",
	} {
		if _, err := db.Exec(ctx, sql); err != nil {
			return err
		}
	}
	_, err := db.Exec(ctx, `insert into orders (customer, item)
		select md5((g % 5000)::text), 'item ' || repeat(md5(g::text), 4) from generate_series(1, $1::int) g`, rows)
	return err
}

func (l *load) write(ctx context.Context) {
	for ctx.Err() == nil {
		l.quiet.RLock()
		_, err := l.db.Exec(context.WithoutCancel(ctx), "insert into orders (customer, item) values (md5(random()::text), 'ordered under load')")
		l.quiet.RUnlock()
		if err != nil {
			l.err.Store(&err)
			return
		}
		l.written.Add(1)
		select {
		case <-time.After(loadPause):
		case <-ctx.Done():
		}
	}
}

func (l *load) failed() error {
	if err := l.err.Load(); err != nil {
		return *err
	}
	return nil
}
