// Package basebackup brings a cluster's files into the repository.
//
// The protocol that it keeps (R6): every attempt is a new backup with a new start LSN. It holds the cluster's backup
// lease, announces itself by an intent, streams BASE_BACKUP, reads and hashes every byte, and stores what the
// repository does not hold yet; what an earlier attempt stored before it died is not stored again. Then it waits until
// the repository itself, not the server's opinion of it, has every WAL segment from start to stop LSN. Only then is the
// manifest written, and the backup visible.
package basebackup
