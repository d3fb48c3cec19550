package assemble

import (
	"strings"

	"lifeboat/internal/config"
	"lifeboat/internal/schedule"
)

// Schedules are what a configuration asks for, by cluster in ascending order of names.
func Schedules(cfg *config.Config) []schedule.Cluster {
	var out []schedule.Cluster
	for _, name := range cfg.ClusterNames() {
		out = append(out, schedules(name, cfg.Clusters[name].Schedules))
	}
	return out
}

func schedules(cluster string, s config.Schedules) schedule.Cluster {
	c := schedule.Cluster{Name: cluster, TimeZone: s.TimeZone}
	for key, when := range s.All() {
		c.Wishes = append(c.Wishes, schedule.Wish{Verb: ScheduleVerb(key), Cron: when.Cron(), Every: when.Every(), Text: string(when)})
	}
	return c
}

// ScheduleVerb takes a verb as the configuration or as a schedule's id writes it.
func ScheduleVerb(text string) schedule.Verb {
	return schedule.Verb(strings.ReplaceAll(text, "_", "-"))
}
