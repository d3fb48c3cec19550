package migrate

import "fmt"

// problems compares files and database. It is a pure function of both. Problems that an option accepts are left out.
func (m *Migrator) problems(s *state) []Problem {
	var list []Problem
	byVersion := map[int64]*file{}
	for _, f := range m.files {
		byVersion[f.version] = f
	}
	if !m.opts.AllowGaps {
		for _, v := range gaps(m.files) {
			list = append(list, problem(ErrGap, v, "the number before it is missing", "add the file that was forgotten, or allow gaps"))
		}
	}
	list = append(list, dirtyProblems(s)...)
	for _, v := range s.appliedVersions() {
		r, f := s.applied[v], byVersion[v]
		if f == nil {
			list = append(list, problem(ErrMissing, v, "it was applied as "+r.Title, "bring its file back; it may be on another branch"))
		} else if f.up.checksum != r.Checksum {
			list = append(list, problem(ErrEdited, v, fmt.Sprintf("%s has checksum %.12s, applied was %.12s", f.up.name, f.up.checksum, r.Checksum),
				"restore the file and write a new migration instead, or accept the edit by repair"))
		}
	}
	if s.adopt && byVersion[s.version] == nil {
		list = append(list, problem(ErrMissing, s.version, "the version table names it", "bring its file back; it may be on another branch"))
	}
	if !s.adopt && s.open == nil && s.version != s.current() {
		list = append(list, problem(ErrMismatch, s.version, fmt.Sprintf("the version table says %s, the history ends at %s", versionText(s.version), versionText(s.current())),
			"another tool or hand has migrated: run repair to see what it was"))
	}
	if !m.opts.AllowOutOfOrder {
		for _, f := range m.files {
			if f.version < s.current() && !s.isApplied(f.version) && (s.open == nil || s.open.Version != f.version) {
				list = append(list, problem(ErrOutOfOrder, f.version, fmt.Sprintf("%s is not applied, version %d is", f.up.name, s.current()),
					"give it a number above, or allow out-of-order files"))
			}
		}
	}
	return list
}

// dirtyProblems are those that Repair must look at. A file that stopped between two statements, or at one that the server
// refused, is none: what it did is known, and Apply goes on there.
func dirtyProblems(s *state) []Problem {
	switch r := s.open; {
	case r != nil && r.State == "running" && r.StatementStarted > r.StatementsDone:
		return []Problem{problem(ErrDirty, r.Version, openText(r), "run repair: it asks the catalogs what became of the statement")}
	case r == nil && s.dirty:
		return []Problem{problem(ErrDirty, s.version, "golang-migrate marked it dirty and left no history", "run repair")}
	}
	return nil
}

func openText(r *record) string {
	switch {
	case r.State == "failed":
		text := fmt.Sprintf("%s stopped after %d of %d statements, statement %d failed", r.Direction, r.StatementsDone, r.Statements, r.StatementsDone+1)
		if r.Error != nil {
			text += ": " + *r.Error
		}
		return text
	case r.StatementStarted > r.StatementsDone:
		return fmt.Sprintf("%s: %d of %d statements are done, statement %d was started and nobody knows how it ended", r.Direction, r.StatementsDone, r.Statements, r.StatementStarted)
	}
	return fmt.Sprintf("%s: %d of %d statements are done, no other was started", r.Direction, r.StatementsDone, r.Statements)
}

func versionText(v int64) string {
	if v == noVersion {
		return "nothing"
	}
	return fmt.Sprint(v)
}

func problemsOf(list []Problem) error {
	if len(list) == 0 {
		return nil
	}
	return &StateError{Problems: list}
}
