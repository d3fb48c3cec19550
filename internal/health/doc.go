// Package health judges whether a cluster could be recovered if disaster came now, and says what to mend.
//
// It has three parts, which callers put together:
//
//   - Collect looks at a cluster: its server, its repository, and what this host sees of their disks. What it finds is a
//     Snapshot, a plain value. What cannot be looked at is named in it and is never taken for sound.
//   - Judge applies the rules of Rules to a Snapshot. It is a pure function; each rule has an id that stays the same, a
//     severity, and a remedy. `lifeboat check` judges settings by the same rules.
//   - Memory.Step remembers from check to check. Findings open after several sightings in a row and close after several
//     checks without one, so that what comes and goes does not page twice. It is a pure function, too: where a Memory is
//     kept is the caller's choice.
//
// docs/health.md lists all rules; it is made from them (Table).
package health
