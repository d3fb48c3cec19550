package repo

import (
	"fmt"
	"path"
	"slices"
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

// Place is where objects of one purpose stand. Pattern is of their keys below clusters/CLUSTER/, for path.Match.
type Place struct {
	Name, Pattern string
	Kind          Kind
}

// places are those that this package writes itself (docs/repository-format.md, section 2). Everything else below a
// cluster is a document of an engine.
var places = []Place{
	{"identity", "identity", KindDocument},
	{"manifest", "backups/*", KindManifest},
	{"intent", "intents/*/intent", KindDocument},
	{"checkpoint", "intents/*/run-*", KindRun},
	{"lease", "leases/*/*", KindDocument},
	{"WAL", "wal/segments/*/*", KindWAL},
	{"history", "wal/history/*", KindWAL},
	{"data pack", "data/*/*", KindData},
	{"tree pack", "tree/*/*", KindTree},
}

// Places lists what this package stores for a cluster, beside the documents of engines.
func Places() []Place { return slices.Clone(places) }

// placeOf tells where a key stands. Of a document, or of a key that makes no sense, the name is the first part below
// the cluster.
func placeOf(key string) Place {
	_, below, _ := strings.Cut(strings.TrimPrefix(key, "clusters/"), "/")
	for _, p := range places {
		if ok, _ := path.Match(p.Pattern, below); ok {
			return p
		}
	}
	first, _, _ := strings.Cut(below, "/")
	return Place{Name: first, Kind: KindDocument}
}

// isReserved tells whether the first part of a document's name is this package's own.
func isReserved(first string) bool {
	return slices.ContainsFunc(places, func(p Place) bool { return strings.HasPrefix(p.Pattern+"/", first+"/") })
}

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
