package dbcore_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"lifeboat/dbcore"
)

// Writes go to the primary, and reads to a standby that is fresh enough. The cluster of this example has no standby, so
// the primary serves both.
func ExampleOpenCluster() {
	ctx := context.Background()
	node, err := dbcore.ParseDSN(exampleDSN())
	if err != nil {
		log.Fatal(err)
	}
	cluster, err := dbcore.OpenCluster(ctx, dbcore.ClusterConfig{Nodes: []dbcore.Config{node}})
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()

	// Runs again as a whole on the new primary if there is a failover before COMMIT.
	err = cluster.RunTx(ctx, dbcore.TxOptions{}, func(ctx context.Context, tx *dbcore.Tx) error {
		_, err := tx.Exec(ctx, "drop table if exists orders; create table orders (id int); insert into orders values (1), (2)")
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	report := cluster.Op("orders.report").OnReplica(dbcore.MaxLag(5 * time.Second))
	n, err := dbcore.One[int](ctx, report, "select count(*) from orders")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n, "orders")
	for _, node := range cluster.Nodes() {
		fmt.Println(node.Role, node.Primary)
	}
	// Output:
	// 2 orders
	// primary true
}

// A read that must show what was just written, wherever it runs.
func ExampleAfterLSN() {
	ctx := context.Background()
	node, _ := dbcore.ParseDSN(exampleDSN())
	cluster, err := dbcore.OpenCluster(ctx, dbcore.ClusterConfig{Nodes: []dbcore.Config{node}})
	if err != nil {
		log.Fatal(err)
	}
	defer cluster.Close()

	if _, err := cluster.Exec(ctx, "drop table if exists notes; create table notes (text text); insert into notes values ('written')"); err != nil {
		log.Fatal(err)
	}
	position, err := cluster.LSN(ctx) // after the COMMIT; keep it with the user's session
	if err != nil {
		log.Fatal(err)
	}
	text, err := dbcore.One[string](ctx, cluster.Op("notes.read").OnReplica(dbcore.AfterLSN(position)), "select text from notes")
	fmt.Println(text, err)
	// Output: written <nil>
}
