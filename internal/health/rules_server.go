package health

import (
	"fmt"
	"strings"
	"time"

	"lifeboat/internal/basebackup"
	"lifeboat/internal/pg"
)

var serverRules = []Rule{
	{
		ID: "server_unreachable", Area: AreaServer, Severities: []Severity{Critical}, Open: openDoubt, Close: closeSure,
		When:   "the server of the dsn cannot be connected to",
		Remedy: "start the server, or mend the way to it: `lifeboat check CLUSTER` names what is in the way. If its host is lost, restore: `lifeboat restore CLUSTER --plan`",
		judge: func(s *Snapshot, _ Limits) []sight {
			if s.Unreachable == nil {
				return nil
			}
			return one(Critical, s.Unreachable.Remedy, "%s", s.Unreachable.Problem)
		},
	},
	{
		ID: "server_version", Area: AreaRole, Severities: []Severity{Critical}, Open: openSure, Close: closeSure,
		When:   "the server's major version is not supported",
		Remedy: "use a server of a supported version, or a newer Lifeboat",
		judge: withServer(func(_ *Snapshot, v *Server, _ Limits) []sight {
			if err := pg.CheckMajor(pg.Version(v.VersionNum).Major()); err != nil {
				return one(Critical, "", "%v", err)
			}
			return nil
		}),
	},
	{
		ID: "server_standby", Area: AreaRole, Severities: []Severity{Critical}, Open: openDoubt, Close: closeSure,
		When:   "the dsn leads to a standby, as after a failover",
		Remedy: "use the primary's dsn",
		judge: withServer(func(_ *Snapshot, v *Server, _ Limits) []sight {
			if !v.InRecovery {
				return nil
			}
			return one(Critical, "", "PostgreSQL %s is a standby; this version backs up primaries only", v.Version)
		}),
		good: func(s *Snapshot) string {
			if s.Server == nil || pg.CheckMajor(pg.Version(s.Server.VersionNum).Major()) != nil {
				return ""
			}
			return fmt.Sprintf("PostgreSQL %s, a primary", s.Server.Version)
		},
	},
	{
		ID: "server_identity", Area: AreaIdentity, Severities: []Severity{Critical}, Open: openSure, Close: closeSure,
		When:   "the server is another one than the repository's backups and WAL are of",
		Remedy: "point the dsn at the server that is protected; for a new server, choose another cluster name",
		judge: withServer(func(s *Snapshot, v *Server, _ Limits) []sight {
			id := s.Repository.Identity
			if id == nil || id.SystemID.String() == v.SystemID {
				return nil
			}
			return one(Critical, "", "the server has system identifier %s, the repository's backups of %s have %s", v.SystemID, s.Cluster, id.SystemID)
		}),
	},
}

// withServer judges a server that was asked.
func withServer(judge func(*Snapshot, *Server, Limits) []sight) func(*Snapshot, Limits) []sight {
	return func(s *Snapshot, l Limits) []sight {
		if s.Server == nil {
			return nil
		}
		return judge(s, s.Server, l)
	}
}

// setting is a rule on the server's settings.
func setting(id string, severities []Severity, when, remedy string, judge func(*Snapshot, *Server, Limits) []sight, good func(*Snapshot, *Server) string) Rule {
	return Rule{
		ID: id, Area: AreaSettings, Severities: severities, Open: openSure, Close: closeSure, When: when, Remedy: remedy,
		judge: withServer(judge),
		good: func(s *Snapshot) string {
			if s.Server == nil {
				return ""
			}
			return good(s, s.Server)
		},
	}
}

func on(*Snapshot, *Server) string { return "on" }

// settingRules are those by which `lifeboat check` judges, too.
var settingRules = []Rule{
	setting("wal_level", []Severity{Critical}, "`wal_level` is `minimal`", "set wal_level = replica and restart the server",
		func(_ *Snapshot, v *Server, _ Limits) []sight {
			if v.WALLevel != "minimal" {
				return nil
			}
			return one(Critical, "", "wal_level is minimal: backups could not be recovered")
		}, func(_ *Snapshot, v *Server) string { return v.WALLevel }),
	setting("full_page_writes", []Severity{Critical}, "`full_page_writes` is off", "set full_page_writes = on and reload the configuration",
		func(_ *Snapshot, v *Server, _ Limits) []sight {
			if v.FullPageWrites {
				return nil
			}
			return one(Critical, "", "full_page_writes is off: a page that is written while a backup reads it may be torn, also after a crash")
		}, on),
	setting("fsync", []Severity{Warning}, "`fsync` is off", "set fsync = on and reload the configuration",
		func(_ *Snapshot, v *Server, _ Limits) []sight {
			if v.FSync {
				return nil
			}
			return one(Warning, "", "fsync is off: a crash of the server's host may destroy its data")
		}, on),
	setting("checksums", []Severity{Warning}, "data checksums are off", "pg_checksums --enable, while the server is stopped",
		func(_ *Snapshot, v *Server, _ Limits) []sight {
			if v.Checksums {
				return nil
			}
			return one(Warning, "", "page checksums are off: rot on the server's disk goes into backups unseen")
		}, on),
	setting("archive_mode", []Severity{Critical}, "`archive_mode` is off", "set archive_mode = on and archive_command = 'lifeboat wal-push %p --cluster CLUSTER', and restart the server",
		func(s *Snapshot, v *Server, _ Limits) []sight {
			if v.ArchiveMode != "off" {
				return nil
			}
			return one(Critical, push(s)+", and restart the server", "archive_mode is off: no WAL reaches the repository")
		}, func(_ *Snapshot, v *Server) string { return v.ArchiveMode }),
	setting("archive_command", []Severity{Critical, Warning}, "`archive_command` is empty (critical), or does not call `lifeboat wal-push` for this cluster, or `archive_library` takes its place",
		"set archive_command = 'lifeboat wal-push %p --cluster CLUSTER' and archive_library = '', and reload the configuration", judgeArchiveCommand,
		func(_ *Snapshot, v *Server) string {
			if v.ArchiveMode == "off" {
				return ""
			}
			return basebackup.WithoutSecrets(v.ArchiveCommand)
		}),
	setting("archive_timeout", []Severity{Critical}, "`archive_timeout` is 0 or above half of the RPO (R18)", "set archive_timeout to half of the RPO or less, and reload the configuration",
		judgeArchiveTimeout,
		func(s *Snapshot, v *Server) string {
			if v.ArchiveMode == "off" {
				return ""
			}
			return fmt.Sprintf("%v, for an RPO of %v", time.Duration(v.ArchiveTimeout)*time.Second, s.RPO)
		}),
	setting("max_slot_wal_keep_size", []Severity{Warning}, "`max_slot_wal_keep_size` is unlimited, and there are replication slots that nobody reads",
		"drop the slots that nobody reads, or set max_slot_wal_keep_size to what the server's disk can hold",
		func(_ *Snapshot, v *Server, _ Limits) []sight {
			if v.SlotKeepMB >= 0 || v.IdleSlots == 0 {
				return nil
			}
			return one(Warning, "", "%d replication slots are not read, and may keep WAL until the server's disk is full", v.IdleSlots)
		},
		func(_ *Snapshot, v *Server) string {
			if v.SlotKeepMB >= 0 {
				return fmt.Sprintf("replication slots keep at most %d MB of WAL", v.SlotKeepMB)
			}
			return "no bound, and no replication slot that nobody reads"
		}),
}

// push is how the server archives to the repository.
func push(s *Snapshot) string {
	text := "set archive_mode = on and archive_command = 'lifeboat wal-push %p --cluster " + s.Cluster
	if s.ConfigFile != "" {
		text += " --config " + s.ConfigFile
	}
	return text + "'"
}

func judgeArchiveCommand(s *Snapshot, v *Server, _ Limits) []sight {
	shown := basebackup.WithoutSecrets(v.ArchiveCommand)
	pushes := strings.Contains(v.ArchiveCommand, "wal-push")
	switch {
	case v.ArchiveMode == "off":
		return nil // told by archive_mode
	case v.ArchiveLibrary != "":
		return one(Warning, "set archive_library = '' and "+push(s), "archive_library is %s: the server does not call archive_command", v.ArchiveLibrary)
	case v.ArchiveCommand == "":
		return one(Critical, push(s), "archive_command is empty: no WAL reaches the repository")
	case pushes && strings.Contains(v.ArchiveCommand, s.Cluster):
		return nil
	case pushes:
		return one(Warning, push(s), "archive_command does not name cluster %s: %s", s.Cluster, shown)
	}
	return one(Warning, push(s), "archive_command does not call lifeboat wal-push: %q", shown)
}

// judgeArchiveTimeout demands that an idle server's last commits are archived well within the RPO (R18).
func judgeArchiveTimeout(s *Snapshot, v *Server, _ Limits) []sight {
	timeout, half := time.Duration(v.ArchiveTimeout)*time.Second, s.RPO/2
	if v.ArchiveMode == "off" || timeout > 0 && (s.RPO == 0 || timeout <= half) {
		return nil
	}
	remedy := fmt.Sprintf("set archive_timeout = %d (seconds) or less, and reload", max(1, int64(half/time.Second)))
	return one(Critical, remedy, "archive_timeout is %v: the RPO of %v needs a segment at least every %v", timeout, s.RPO, half)
}

var archivingRules = []Rule{
	{
		ID: "archiver", Area: AreaArchiving, Severities: []Severity{Critical}, Open: openDoubt, Close: closeDoubt,
		When:   "archiving a segment failed, and nothing was archived since (`pg_stat_archiver`)",
		Remedy: "the server's log has what wal-push said",
		judge: withServer(func(_ *Snapshot, v *Server, _ Limits) []sight {
			if v.ArchiveMode == "off" || v.LastFailed == nil || v.FailedFor == nil {
				return nil
			}
			return one(Critical, "", "archiving %s failed %.0f s ago, and nothing was archived since", *v.LastFailed, *v.FailedFor)
		}),
	},
	{
		ID: "archive_queue", Area: AreaArchiving, Severities: []Severity{Warning}, Open: openDoubt, Close: closeDoubt,
		When:   "more than 32 segments wait for archiving",
		Remedy: "see pg_stat_archiver and the server's log: archive_command fails, or is slower than the server writes",
		judge: func(s *Snapshot, l Limits) []sight {
			if s.Queue == nil || *s.Queue <= l.Queue {
				return nil
			}
			return one(Warning, "", "%d segments wait for archiving", *s.Queue)
		},
		good: func(s *Snapshot) string {
			if s.Queue == nil {
				return ""
			}
			return fmt.Sprintf("%d segments wait for archiving", *s.Queue)
		},
	},
}
