package recovery

import (
	"context"
	"time"

	"lifeboat/internal/pg"
	"lifeboat/internal/repo"
	"lifeboat/internal/wal"
)

// WaitArchived waits until the repository holds the segment that ends at lsn on the newest timeline, so that a restore
// can be planned up to there. It fails with *wal.MissingError after patience.
func WaitArchived(ctx context.Context, r *repo.Repository, cluster string, lsn pg.LSN, patience time.Duration) error {
	inv, err := wal.List(ctx, r, cluster)
	if err != nil {
		return err
	}
	return wal.Wait(ctx, wal.WaitOptions{
		Repo: r, Cluster: cluster, Timeline: max(inv.Newest(), 1), From: max(lsn, 1) - 1, To: lsn,
		SegmentSize: inv.SegmentSize, Patience: patience,
	})
}
