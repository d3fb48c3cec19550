//go:build cgo

package migrate

import "github.com/pganalyze/pg_query_go/v6/parser"

func parseToProtobuf(sql string) ([]byte, error) { return parser.ParseToProtobuf(sql) }
func scanToProtobuf(sql string) ([]byte, error)  { return parser.ScanToProtobuf(sql) }
