package health

import (
	"fmt"
	"time"
)

var diskRules = []Rule{{
	ID: "disk_space", Area: AreaDisk, Severities: []Severity{Critical, Warning}, Open: openDoubt, Close: closeDoubt,
	When: "a file system that this host sees, of the data directory, of pg_wal or of the repository, has less than 10 % and 50 GiB free (critical: 3 % and 5 GiB)",
	Remedy: "free space, or move to a larger disk. Never delete files in pg_wal: see the findings on archiving and slots, which keep WAL there. " +
		"On the repository's disk, a server whose archive_command fails keeps its WAL",
	judge: func(s *Snapshot, l Limits) []sight {
		var out []sight
		for _, d := range s.Disks {
			below := func(share float64, bytes int64) bool {
				return float64(d.Free) < share*float64(d.Total) && d.Free < bytes
			}
			var severity Severity
			switch {
			case below(l.DiskShareCritical, l.DiskBytesCritical):
				severity = Critical
			case below(l.DiskShare, l.DiskBytes):
				severity = Warning
			default:
				continue
			}
			out = append(out, sight{d.Role, severity, fmt.Sprintf("%s of %s are free on the file system of the %s, %s", size(d.Free), size(d.Total), d.Role, d.Path), ""})
		}
		return out
	},
}}

var repositoryRules = []Rule{
	{
		ID: "repository_unreachable", Area: AreaRepository, Severities: []Severity{Critical}, Open: openDoubt, Close: closeSure,
		When:   "the repository cannot be opened",
		Remedy: "mend the way to it (mount, network, credentials); `lifeboat check` tries it",
		judge: func(s *Snapshot, _ Limits) []sight {
			if s.Repository.Failed == nil {
				return nil
			}
			return one(Critical, s.Repository.Failed.Remedy, "%s", s.Repository.Failed.Problem)
		},
	},
	{
		ID: "repository_write", Area: AreaStore, Severities: []Severity{Critical}, Open: openDoubt, Close: closeSure,
		When:   "an object cannot be written to the repository, read, listed and removed again, each as backups need it (R12, R14)",
		Remedy: "give the worker's user write access, and see that the file system is neither full nor read-only",
		judge: func(s *Snapshot, _ Limits) []sight {
			if s.Repository.Broken == nil {
				return nil
			}
			return one(Critical, s.Repository.Broken.Remedy, "%s", s.Repository.Broken.Problem)
		},
	},
}

var exposureRules = []Rule{{
	ID: "exposure", Area: AreaExposure, Severities: []Severity{Critical}, Open: openDoubt, Close: closeSure,
	When:   "commits older than the RPO are not in the repository yet (R18)",
	Remedy: "see the findings on archiving; `lifeboat wal-status CLUSTER` shows the frontier and its gaps. A gap is closed only by a new backup: `lifeboat backup CLUSTER`",
	judge: func(s *Snapshot, _ Limits) []sight {
		if s.Exposure == nil || s.RPO == 0 || seconds(*s.Exposure) <= s.RPO {
			return nil
		}
		return one(Critical, "", "commits of up to %s would be lost now, the RPO allows %s", ago(seconds(*s.Exposure)), ago(s.RPO))
	},
}}

var backupRules = []Rule{
	{
		ID: "backup_missing", Area: AreaBackups, Severities: []Severity{Critical}, Open: openSure, Close: closeSure,
		When:   "there is no backup",
		Remedy: "take one: `lifeboat backup CLUSTER`",
		judge: func(s *Snapshot, _ Limits) []sight {
			if len(s.Backups) > 0 {
				return nil
			}
			return one(Critical, "", "the repository has no backup of %s", s.Cluster)
		},
	},
	{
		ID: "backup_age", Area: AreaBackups, Severities: []Severity{Critical, Warning}, Open: openSure, Close: closeSure,
		When:   "the newest backup is older than 36 hours (critical: 8 days)",
		Remedy: "take one: `lifeboat backup CLUSTER`; see why the scheduled ones fail or do not run",
		judge: withNewest(func(s *Snapshot, b Backup, l Limits) []sight {
			age := s.At.Sub(b.FinishedAt)
			switch {
			case age > l.BackupAgeCritical:
				return one(Critical, "", "the newest backup, %s, is %s old", b.ID, ago(age))
			case age > l.BackupAge:
				return one(Warning, "", "the newest backup, %s, is %s old", b.ID, ago(age))
			}
			return nil
		}),
	},
	{
		ID: "backup_corrupt", Area: AreaBackups, Severities: []Severity{Critical}, Open: openSure, Close: closeSure,
		When:   "the newest backup holds pages that fail their checksum (R7): the server's own disk is rotten",
		Remedy: "`lifeboat show CLUSTER BACKUP` names the pages. Keep the last clean backup, and restore what is damaged from it; then take a backup",
		judge: withNewest(func(_ *Snapshot, b Backup, _ Limits) []sight {
			if b.Corrupt == 0 {
				return nil
			}
			return one(Critical, "", "the newest backup, %s, holds %d corrupt pages", b.ID, b.Corrupt)
		}),
	},
	{
		ID: "verification_failed", Area: AreaBackups, Severities: []Severity{Critical}, Open: openSure, Close: closeSure,
		When:   "the newest verification or drill, of any backup, said FAIL",
		Remedy: "`lifeboat verify CLUSTER` tells what is wrong; take a new full backup, and verify it",
		judge: func(s *Snapshot, _ Limits) []sight {
			b := newestProof(s.Backups, func(*Proof) bool { return true })
			if b == nil || !b.Proof.Failed {
				return nil
			}
			return one(Critical, "", "backup %s failed its verification %s ago", b.ID, ago(s.At.Sub(b.Proof.At)))
		},
	},
	{
		ID: "verification_age", Area: AreaBackups, Severities: []Severity{Warning}, Open: openSure, Close: closeSure,
		When:   "no backup was verified with PASS in the last 72 hours, and the oldest one is older than that",
		Remedy: "verify one: `lifeboat verify CLUSTER`, or better `lifeboat drill CLUSTER`",
		judge: func(s *Snapshot, l Limits) []sight {
			if len(s.Backups) == 0 || s.At.Sub(s.Backups[0].FinishedAt) <= l.VerifiedAge {
				return nil
			}
			b := newestProof(s.Backups, func(p *Proof) bool { return p.Passed })
			switch {
			case b == nil:
				return one(Warning, "", "no backup was ever verified with PASS; the oldest is %s old", ago(s.At.Sub(s.Backups[0].FinishedAt)))
			case s.At.Sub(b.Proof.At) > l.VerifiedAge:
				return one(Warning, "", "the last verification that passed, of backup %s, was %s ago", b.ID, ago(s.At.Sub(b.Proof.At)))
			}
			return nil
		},
	},
}

// withNewest judges the newest backup.
func withNewest(judge func(*Snapshot, Backup, Limits) []sight) func(*Snapshot, Limits) []sight {
	return func(s *Snapshot, l Limits) []sight {
		if len(s.Backups) == 0 {
			return nil
		}
		return judge(s, s.Backups[len(s.Backups)-1], l)
	}
}

// newestProof is the backup with the newest proof of a kind; nil: there is none.
func newestProof(backups []Backup, kind func(*Proof) bool) *Backup {
	var newest *Backup
	var at time.Time
	for i := range backups {
		if p := backups[i].Proof; p != nil && kind(p) && (newest == nil || p.At.After(at)) {
			newest, at = &backups[i], p.At
		}
	}
	return newest
}
