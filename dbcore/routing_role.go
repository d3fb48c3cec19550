package dbcore

// Role is what a server is in its cluster.
type Role int

// The roles. The zero value is RoleUnknown: no probe was answered yet.
const (
	RoleUnknown Role = iota
	RolePrimary
	RoleStandby
)

// String returns unknown, primary or standby.
func (r Role) String() string {
	switch r {
	case RolePrimary:
		return "primary"
	case RoleStandby:
		return "standby"
	}
	return "unknown"
}
