package basebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"lifeboat/dbcore"
	"lifeboat/internal/pg"
)

// filePages reads pages from the server's own files, beside which this process runs.
type filePages struct{ dir string }

func (p *filePages) page(_ context.Context, file string, offset int64) ([]byte, error) {
	f, err := os.Open(filepath.Join(p.dir, filepath.FromSlash(file)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	page := make([]byte, pg.BlockSize)
	n, err := f.ReadAt(page, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return page[:n], nil
}

func (*filePages) close() {}

// sqlPages reads pages by SQL: another way than the stream's, through another process of the server.
type sqlPages struct {
	server dbcore.Config
	conn   *dbcore.Conn
	denied error
}

// page asks the server for one page. A role without the privilege is not asked again.
func (p *sqlPages) page(ctx context.Context, file string, offset int64) ([]byte, error) {
	if p.denied != nil {
		return nil, p.denied
	}
	var err error
	for range 3 { // a connection may have been cut since the last page
		if p.conn == nil {
			if p.conn, err = dbcore.Connect(ctx, p.server); err != nil {
				continue
			}
		}
		var page []byte
		page, err = dbcore.One[[]byte](ctx, p.conn, "select pg_read_binary_file($1, $2, 8192, true)", file, offset)
		if err == nil {
			return page, nil
		}
		if dbcore.SQLState(err) == "42501" { // insufficient_privilege
			p.denied = errors.New("the role may not: GRANT EXECUTE ON FUNCTION pg_read_binary_file(text, bigint, bigint, boolean) TO it, " +
				"in the database of the cluster's dsn")
			return nil, p.denied
		}
		p.close()
	}
	return nil, fmt.Errorf("read page at %d of %s again: %w", offset, file, err)
}

func (p *sqlPages) close() {
	if p.conn != nil {
		_ = p.conn.Close()
		p.conn = nil
	}
}
