package dbcore_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"lifeboat/dbcore"
)

func ExampleHealthMonitor() {
	ctx := context.Background()
	cfg, _ := dbcore.ParseDSN(exampleDSN())
	db, err := dbcore.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	monitor, err := dbcore.NewHealthMonitor(db, 0, dbcore.DefaultHealthThresholds())
	if err != nil {
		log.Fatal(err)
	}
	up := make(chan struct{})
	monitor.OnChange(func(e dbcore.HealthEvent) {
		if e.Kind == dbcore.EventState {
			fmt.Printf("the server was %s and is %s\n", e.From, e.To)
			close(up)
		}
	})
	if err := monitor.Start(); err != nil {
		log.Fatal(err)
	}
	<-up
	monitor.Stop()

	s := monitor.Snapshot()
	fmt.Println(s.State, s.Role, s.Pool.Open, "open of at most", s.Pool.MaxOpen, len(s.Alerts), "alerts")

	// Settings that would find out too late are refused.
	_, err = dbcore.NewHealthMonitor(db, time.Minute, dbcore.DefaultHealthThresholds())
	fmt.Println(errors.Is(err, dbcore.ErrInvalidConfig))
	// Output:
	// the server was unknown and is up
	// up primary 1 open of at most 25 0 alerts
	// true
}

func ExampleDuplicateIndexes() {
	ctx := context.Background()
	cfg, _ := dbcore.ParseDSN(exampleDSN())
	db, err := dbcore.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(ctx, "drop table if exists orders; create table orders (id int primary key, customer int, day date); "+
		"create index orders_customer on orders (customer); create index orders_customer_day on orders (customer, day)"); err != nil {
		log.Fatal(err)
	}

	list, err := dbcore.DuplicateIndexes(ctx, db)
	if err != nil {
		log.Fatal(err)
	}
	for _, i := range list {
		if i.Table == "orders" {
			fmt.Println(i.Index, "is covered by", i.CoveredBy)
			fmt.Println(i.Definition)
		}
	}
	// Output:
	// orders_customer is covered by orders_customer_day
	// CREATE INDEX orders_customer ON public.orders USING btree (customer)
}
