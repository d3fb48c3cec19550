//go:build !cgo

package migrate

import "github.com/wasilibs/go-pgquery/parser"

func parseToProtobuf(sql string) ([]byte, error) { return parser.ParseToProtobuf(sql) }
func scanToProtobuf(sql string) ([]byte, error)  { return parser.ScanToProtobuf(sql) }
