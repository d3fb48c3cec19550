package config

import (
	"iter"
	"strings"
	"time"
	_ "time/tzdata" // hosts without a zone database check schedules like all others
)

// Cron is the schedule if it is five cron fields, whatever they say, and "" if it is not.
func (s Schedule) Cron() string {
	if len(strings.Fields(string(s))) != 5 {
		return ""
	}
	return string(s)
}

// Every is the interval; 0 if the schedule is none.
func (s Schedule) Every() time.Duration {
	every, err := ParseDuration(string(s))
	if err != nil {
		return 0
	}
	return every
}

// All gives each schedule by its key, also the empty ones, in ascending order of the keys.
func (s Schedules) All() iter.Seq2[string, Schedule] {
	return func(yield func(string, Schedule) bool) {
		for _, one := range []struct {
			key      string
			schedule Schedule
		}{
			{"backup_full", s.BackupFull},
			{"backup_incremental", s.BackupIncremental},
			{"backup_logical", s.BackupLogical},
			{"drill_disaster", s.DrillDisaster},
			{"drill_restore", s.DrillRestore},
			{"drill_table", s.DrillTable},
			{"health", s.Health},
			{"verify", s.Verify},
		} {
			if !yield(one.key, one.schedule) {
				return
			}
		}
	}
}
