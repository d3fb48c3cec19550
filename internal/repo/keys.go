package repo

import (
	"fmt"
	"strings"
)

// headerKey is the object that makes a place a repository.
const headerKey = "lifeboat.json"

// Kind tells what an object holds. It is part of what each frame's tag binds, so an object of one kind can never be
// passed off as another.
type Kind byte

// The kinds of objects of format 1.
const (
	KindData     Kind = 1 // pack of file chunks
	KindTree     Kind = 2 // pack of nodes and file table pages
	KindManifest Kind = 3 // a backup's manifest
	KindWAL      Kind = 4 // one WAL segment, partial segment, history or backup history file
	KindDocument Kind = 5 // JSON: identity, intents, leases, reports
	KindRun      Kind = 6 // checkpoint of a backup that is being written
)

// String names the kind as messages and the format document do.
func (k Kind) String() string {
	switch k {
	case KindData:
		return "data pack"
	case KindTree:
		return "tree pack"
	case KindManifest:
		return "manifest"
	case KindWAL:
		return "WAL"
	case KindDocument:
		return "document"
	case KindRun:
		return "checkpoint"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// reserved are the names below a cluster that no document may take.
var reserved = []string{"identity", "backups", "intents", "leases", "wal", "data", "tree"}

func clusterPrefix(cluster string) string  { return "clusters/" + cluster + "/" }
func identityKey(cluster string) string    { return clusterPrefix(cluster) + "identity" }
func backupPrefix(cluster string) string   { return clusterPrefix(cluster) + "backups/" }
func backupKey(cluster, id string) string  { return backupPrefix(cluster) + id }
func intentPrefix(cluster string) string   { return clusterPrefix(cluster) + "intents/" }
func leasePrefix(cluster, n string) string { return clusterPrefix(cluster) + "leases/" + n + "/" }
func walPrefix(cluster string) string      { return clusterPrefix(cluster) + "wal/" }

func intentKey(cluster, id string) string { return intentPrefix(cluster) + id + "/intent" }
func runKey(cluster, id string, n int) string {
	return fmt.Sprintf("%s%s/run-%06d", intentPrefix(cluster), id, n)
}

// packKey spreads packs over 256 folders by the first byte of their name, so that no directory of a file system store
// becomes huge and S3 can partition by prefix.
func packKey(cluster string, kind Kind, id PackID) string {
	dir := "data/"
	if kind == KindTree {
		dir = "tree/"
	}
	name := id.String()
	return clusterPrefix(cluster) + dir + name[:2] + "/" + name
}

// walKey places a WAL file below its timeline and log number, so that ascending keys are ascending LSNs and a listing
// can begin at any segment. Timeline histories, which every recovery asks for, stand together.
func walKey(cluster, name string) string {
	if strings.HasSuffix(name, ".history") || len(name) < 16 {
		return walPrefix(cluster) + "history/" + name
	}
	return walPrefix(cluster) + "segments/" + name[:16] + "/" + name
}

// CheckName tells whether name may name a cluster or repository: 1 to 63 of a-z, 0-9 and hyphen, beginning with a
// letter or digit.
func CheckName(name string) error {
	ok := name != "" && len(name) <= 63 && name[0] != '-'
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if !ok {
		return fmt.Errorf("invalid name %q: use 1 to 63 of a-z, 0-9 and hyphen, beginning with a letter or digit", name)
	}
	return nil
}
