package pg

import "fmt"

// The oldest and the newest major version of PostgreSQL whose files are understood.
const (
	MinMajor = 15
	MaxMajor = 18
)

// Version is a server's server_version_num: 150004 is 15.4. Zero is unknown.
type Version int

// Major is the major version: 15 of 150004.
func (v Version) Major() int { return int(v) / 10000 }

// Minor is the minor version: 4 of 150004.
func (v Version) Minor() int { return int(v) % 10000 }

// String prints "15.4".
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major(), v.Minor()) }

// UnsupportedVersionError says that a major version is outside MinMajor..MaxMajor.
type UnsupportedVersionError struct {
	Major int
}

// Error gives the reason and the remedy.
func (e *UnsupportedVersionError) Error() string {
	const supported = "PostgreSQL %d to %d are supported"
	if e.Major > MaxMajor {
		return fmt.Sprintf("PostgreSQL %d is newer than this program knows ("+supported+"): its control file and WAL "+
			"may be laid out differently; use a newer release of this program", e.Major, MinMajor, MaxMajor)
	}
	return fmt.Sprintf("PostgreSQL %d is too old ("+supported+"): it lacks the backup functions and the WAL format "+
		"that are relied upon; upgrade the server", e.Major, MinMajor, MaxMajor)
}

// SupportedMajor reports whether files and servers of a major version are understood.
func SupportedMajor(major int) bool { return major >= MinMajor && major <= MaxMajor }

// CheckMajor is nil for a supported major version and an [*UnsupportedVersionError]
// for any other.
func CheckMajor(major int) error {
	if SupportedMajor(major) {
		return nil
	}
	return &UnsupportedVersionError{Major: major}
}
