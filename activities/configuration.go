package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"lifeboat/internal/repo"
)

// configurationName is the document with the copy of a cluster's configuration.
const configurationName = "configuration/lifeboat.yaml"

// StoredConfiguration is the copy of a cluster's configuration that its repository keeps, for the day when the
// repository is all that is left (R5).
type StoredConfiguration struct {
	SavedAt time.Time `json:"savedAt"` // when it was last found changed, UTC
	Program string    `json:"program"`
	// YAML is a lifeboat.yaml with this cluster and its repository, without secrets.
	YAML string `json:"yaml"`
}

// keepConfiguration stores text unless the repository has it already. It may be repeated.
func keepConfiguration(ctx context.Context, r *repo.Repository, cluster, text, program string) error {
	if text == "" {
		return nil
	}
	have, err := ReadConfiguration(ctx, r, cluster)
	if err == nil && have.YAML == text {
		return nil
	}
	// A copy that is damaged, or of a newer program, is replaced like one that is missing.
	return r.PutDocument(ctx, cluster, configurationName, StoredConfiguration{time.Now().UTC(), program, text})
}

// ReadConfiguration reads the copy; the error wraps repo.ErrNotFound if the repository has none.
func ReadConfiguration(ctx context.Context, r *repo.Repository, cluster string) (StoredConfiguration, error) {
	var c StoredConfiguration
	err := r.GetDocument(ctx, cluster, configurationName, &c)
	if errors.Is(err, repo.ErrNotFound) {
		return c, fmt.Errorf("%s holds no configuration of cluster %s, which the first backup by this version stores: %w", r, cluster, err)
	}
	return c, err
}
