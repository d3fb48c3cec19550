//go:build cgo

package migrate

import "github.com/pganalyze/pg_query_go/v6/parser"

// parserName says which of the two builds of PostgreSQL's grammar is linked in (docs/decisions/0014).
const parserName = "libpg_query"

func parseToProtobuf(sql string) ([]byte, error) { return parser.ParseToProtobuf(sql) }
func scanToProtobuf(sql string) ([]byte, error)  { return parser.ScanToProtobuf(sql) }
