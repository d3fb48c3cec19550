package dbcore_test

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"

	"lifeboat/dbcore"
)

// exampleDSN is a connection string of the server that the tests have started.
func exampleDSN() string {
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres password=unused", srv.socket, srv.port)
}

func Example() {
	ctx := context.Background()
	cfg, err := dbcore.ParseDSN(exampleDSN())
	if err != nil {
		log.Fatal(err)
	}
	db, err := dbcore.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	type planet struct {
		Name  string
		Moons int
	}
	planets, err := dbcore.Collect[planet](ctx, db,
		"select * from (values ('Earth', 1), ('Mars', 2), ('Venus', 0)) p(name, moons) where moons >= $1 order by name", 1)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range planets {
		fmt.Println(p.Name, p.Moons)
	}
	// Output:
	// Earth 1
	// Mars 2
}

func ExampleDB_RunTx() {
	ctx := context.Background()
	cfg, _ := dbcore.ParseDSN(exampleDSN())
	db, err := dbcore.Open(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(ctx, "drop table if exists accounts; create table accounts (id int primary key, amount int check (amount >= 0)); insert into accounts values (1, 100), (2, 0)"); err != nil {
		log.Fatal(err)
	}

	transfer := func(amount int) error {
		return db.RunTx(ctx, dbcore.TxOptions{Isolation: dbcore.Serializable}, func(ctx context.Context, tx *dbcore.Tx) error {
			if _, err := tx.Exec(ctx, "update accounts set amount = amount + $1 where id = 2", amount); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, "update accounts set amount = amount - $1 where id = 1", amount)
			return err
		})
	}
	for _, amount := range []int{70, 70} {
		switch err := transfer(amount); {
		case err == nil:
			fmt.Println("done")
		case errors.Is(err, dbcore.ErrCommitAmbiguous):
			fmt.Println("look first, it may be done")
		default:
			fmt.Println("not done, SQLSTATE", dbcore.SQLState(err))
		}
	}
	amounts, _ := dbcore.Collect[int](ctx, db, "select amount from accounts order by id")
	fmt.Println(amounts)
	// Output:
	// done
	// not done, SQLSTATE 23514
	// [30 70]
}

func ExampleReplicationConn_BaseBackup() {
	ctx := context.Background()
	cfg, _ := dbcore.ParseDSN(exampleDSN())
	conn, err := dbcore.ConnectReplication(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	stream, err := conn.BaseBackup(ctx, dbcore.BaseBackupOptions{Label: "example", FastCheckpoint: true})
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Close()
	for {
		archive, err := stream.Next(ctx)
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		files := tar.NewReader(stream)
		for {
			file, err := files.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				log.Fatal(err)
			}
			if file.Name == "PG_VERSION" || file.Name == "global/pg_control" {
				fmt.Println(archive.Name, file.Name, file.Size)
			}
		}
	}
	stop, err := stream.Finish(ctx)
	fmt.Println(stop.LSN > stream.StartLSN, err)
	// Output:
	// base.tar PG_VERSION 3
	// base.tar global/pg_control 8192
	// true <nil>
}

func ExampleConfig_Redacted() {
	cfg, err := dbcore.ParseDSN("postgres://app:hunter2@db1.example.com/orders?application_name=backup")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(cfg.Redacted())
	fmt.Println(cfg.Password)
	withoutTime := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	slog.New(slog.NewTextHandler(os.Stdout, withoutTime)).Info("open", "password", cfg.Password)
	// Output:
	// postgres://app@db1.example.com:5432/orders?application_name=backup&sslmode=require
	// [redacted]
	// level=INFO msg=open password=[redacted]
}
