package repo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"lifeboat/internal/blob"
	"lifeboat/internal/pg"
)

// BackupType tells how a backup was made. All types of physical backups restore alike.
type BackupType string

// The types of backups.
const (
	Full        BackupType = "full"
	Incremental BackupType = "incremental"
)

// Manifest makes a backup visible, and tells all about it but the files' places, which its table's pages hold.
type Manifest struct {
	Format     int        `json:"format"`
	Cluster    string     `json:"cluster"`
	BackupID   string     `json:"backupId"`
	Type       BackupType `json:"type"`
	ParentID   string     `json:"parentId,omitempty"`
	WorkflowID string     `json:"workflowId,omitempty"`
	Program    string     `json:"program"` // and version that wrote it
	Epoch      int64      `json:"epoch"`   // of the intent (R12)

	SystemID       pg.SystemID    `json:"systemIdentifier"`
	PostgresMajor  int            `json:"postgresMajor"`
	PostgresText   string         `json:"postgresVersion"` // as the server says: "15.18 (Debian …)"
	WALSegmentSize pg.SegmentSize `json:"walSegmentSize"`  // bytes
	DataChecksums  bool           `json:"dataChecksums"`
	Superuser      string         `json:"superuser"` // name of the bootstrap superuser, for checks of a restored server

	// Timeline, StartLSN and StopLSN are the WAL that makes the files consistent: replay begins at the redo point
	// StartLSN and must reach StopLSN.
	Timeline pg.Timeline `json:"timeline"`
	StartLSN pg.LSN      `json:"startLsn"`
	StopLSN  pg.LSN      `json:"stopLsn"`

	// Times by the clock of the host that took the backup. For people: recovery goes by LSN (R15).
	StartedAt  time.Time `json:"startedAt"`
	FinishedAt time.Time `json:"finishedAt"`

	// Settings that a restored server needs at least as high (R4), from pg_control.
	MaxConnections     int32 `json:"maxConnections"`
	MaxWorkerProcesses int32 `json:"maxWorkerProcesses"`
	MaxWALSenders      int32 `json:"maxWalSenders"`
	MaxPreparedXacts   int32 `json:"maxPreparedTransactions"`
	MaxLocksPerXact    int32 `json:"maxLocksPerTransaction"`

	Tablespaces []Tablespace `json:"tablespaces,omitempty"`
	// Configuration of the source (R4); nil in backups that do not know it.
	Configuration *Configuration `json:"configuration,omitempty"`
	// ServerManifest tells that the file table holds the server's own backup_manifest (R9), SynthesizedManifest that it
	// holds one that Lifeboat made of what it read, because no server sent the files.
	ServerManifest      bool `json:"serverManifest"`
	SynthesizedManifest bool `json:"synthesizedManifest,omitempty"`

	SourceBytes  int64   `json:"sourceBytes"`
	ChangedBytes int64   `json:"changedBytes"`
	StoredBytes  int64   `json:"storedBytes"`
	Chunks       int64   `json:"chunks"`
	NewChunks    int64   `json:"newChunks"`
	Files        int64   `json:"files"`
	Seconds      float64 `json:"seconds"`

	// RelationSegmentBlocks is how many blocks of a fork one file holds; 0 is pg.DefaultSegmentBlocks.
	RelationSegmentBlocks uint32 `json:"relationSegmentBlocks,omitempty"`
	// PageCheck is nil of a backup whose pages were not checked: without data checksums there is nothing to check.
	PageCheck *PageCheck `json:"pageCheck,omitempty"`

	Table Table `json:"table"`
}

// HasBackupManifest tells whether the file table holds a backup_manifest, whoever made it.
func (m *Manifest) HasBackupManifest() bool { return m.ServerManifest || m.SynthesizedManifest }

// Tablespace is one beside pg_default and pg_global.
type Tablespace struct {
	OID      uint32 `json:"oid"`
	Location string `json:"location"` // on the source's host
}

// NewBackupID makes a name that sorts by time: 20261123T074501Z-full-1f3a9c.
func NewBackupID(at time.Time, t BackupType) string {
	var random [3]byte
	_, _ = rand.Read(random[:])
	return at.UTC().Format("20060102T150405Z") + "-" + string(t) + "-" + hex.EncodeToString(random[:])
}

// CheckBackupID tells whether id could name a backup.
func CheckBackupID(id string) error {
	parts := strings.Split(id, "-")
	if len(parts) == 3 && len(parts[0]) == 16 && len(parts[2]) == 6 && only(parts[1], "abcdefghijklmnopqrstuvwxyz") && only(parts[2], "0123456789abcdef") {
		if _, err := time.Parse("20060102T150405Z", parts[0]); err == nil {
			return nil
		}
	}
	return fmt.Errorf("invalid backup id %q: it looks like 20261123T074501Z-full-1f3a9c; `lifeboat backups` lists them", id)
}

// only tells whether s is 1 to 32 of the given characters.
func only(s, of string) bool { return s != "" && len(s) <= 32 && strings.Trim(s, of) == "" }

// ErrNotFound says that the repository has no object of that name: blob.ErrNotFound, for those who do not know stores.
var ErrNotFound = blob.ErrNotFound

// ErrNoBackup says that there is no visible backup of that name.
var ErrNoBackup = errors.New("no such backup")

// PutManifest makes a backup visible, last of all and only if there is none of its name; the error wraps
// blob.ErrExists if there is another. It sets m.Format. Everything that m names must be durable.
func (r *Repository) PutManifest(ctx context.Context, m *Manifest) error {
	if err := errors.Join(CheckName(m.Cluster), CheckBackupID(m.BackupID), m.Table.check()); err != nil {
		return err
	}
	m.Format = Format
	return r.putJSONIfAbsent(ctx, KindManifest, backupKey(m.Cluster, m.BackupID), m)
}

// Manifest reads one backup's manifest, or fails with ErrNoBackup.
func (r *Repository) Manifest(ctx context.Context, cluster, id string) (*Manifest, error) {
	if err := CheckBackupID(id); err != nil {
		return nil, err
	}
	var m Manifest
	key := backupKey(cluster, id)
	err := r.readJSON(ctx, KindManifest, key, &m)
	if errors.Is(err, blob.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s of cluster %s; `lifeboat backups %s` lists them", ErrNoBackup, id, cluster, cluster)
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest of backup %s: %w", id, err)
	}
	if m.Format != Format {
		return nil, fmt.Errorf("backup %s has format %d, this program knows format %d", id, m.Format, Format)
	}
	if m.Cluster != cluster || m.BackupID != id {
		return nil, &DamageError{Key: key, Frame: 0, Reason: "it describes backup " + m.BackupID + " of cluster " + m.Cluster}
	}
	if err := m.Table.check(); err != nil {
		return nil, &DamageError{Key: key, Frame: 0, Reason: err.Error()}
	}
	return &m, nil
}

// Manifests reads all visible backups of a cluster, oldest first. A damaged manifest fails the call: what it would
// say about restorable times must not be passed over.
func (r *Repository) Manifests(ctx context.Context, cluster string) ([]*Manifest, error) {
	var out []*Manifest
	prefix := backupPrefix(cluster)
	for info, err := range r.store.List(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list backups of %s: %w", cluster, err)
		}
		m, err := r.Manifest(ctx, cluster, strings.TrimPrefix(info.Key, prefix))
		if errors.Is(err, ErrNoBackup) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// Identity pins which server a cluster's name stands for. It is written by the first backup or WAL and never changed:
// another server under the same name is refused before it can mix its WAL in.
type Identity struct {
	SystemID       pg.SystemID    `json:"systemIdentifier"`
	WALSegmentSize pg.SegmentSize `json:"walSegmentSize"`
}

// IdentityError says that a server is not the one that the repository knows by the cluster's name.
type IdentityError struct {
	Cluster    string
	Want, Have Identity
}

// Error tells both identities and what to do.
func (e *IdentityError) Error() string {
	return fmt.Sprintf("cluster %s: the repository holds system identifier %s (WAL segments of %d bytes), the server or file has %s (%d); %s",
		e.Cluster, e.Want.SystemID, e.Want.WALSegmentSize, e.Have.SystemID, e.Have.WALSegmentSize, e.Remedy())
}

// Remedy is what to do about it.
func (e *IdentityError) Remedy() string {
	return "if this is another server, give it a cluster name of its own in lifeboat.yaml"
}

// Identity reads a cluster's identity; the error wraps blob.ErrNotFound if the repository does not know the cluster.
func (r *Repository) Identity(ctx context.Context, cluster string) (Identity, error) {
	var id Identity
	err := r.readJSON(ctx, KindDocument, identityKey(cluster), &id)
	return id, err
}

// ClaimIdentity checks have against the cluster's identity and pins it if there is none. It fails with *IdentityError
// if the name stands for another server; of servers that race for a new name, one wins.
func (r *Repository) ClaimIdentity(ctx context.Context, cluster string, have Identity) error {
	if err := CheckName(cluster); err != nil {
		return err
	}
	if err := have.WALSegmentSize.Validate(); err != nil || have.SystemID == 0 {
		return fmt.Errorf("identity of cluster %s: system identifier %s, WAL segments of %d bytes: the server did not say who it is",
			cluster, have.SystemID, have.WALSegmentSize)
	}
	want, err := r.Identity(ctx, cluster)
	if errors.Is(err, blob.ErrNotFound) {
		err = r.putJSONIfAbsent(ctx, KindDocument, identityKey(cluster), have)
		if want = have; errors.Is(err, blob.ErrExists) {
			want, err = r.Identity(ctx, cluster)
		}
	}
	if err != nil {
		return fmt.Errorf("check the identity of cluster %s: %w", cluster, err)
	}
	if want != have {
		return &IdentityError{Cluster: cluster, Want: want, Have: have}
	}
	return nil
}

// Clusters lists the clusters that the repository knows, ascending.
func (r *Repository) Clusters(ctx context.Context) ([]string, error) {
	var out []string
	after := ""
	for {
		name := ""
		for info, err := range r.store.List(ctx, "clusters/", after) {
			if err != nil {
				return nil, fmt.Errorf("list clusters: %w", err)
			}
			name, _, _ = strings.Cut(strings.TrimPrefix(info.Key, "clusters/"), "/")
			break
		}
		if name == "" {
			slices.Sort(out) // keys order "a-b/" before "a/"
			return out, nil
		}
		out = append(out, name)
		after = "clusters/" + name + "0" // 0 follows the slash: one listing a cluster, its many objects are skipped
	}
}
