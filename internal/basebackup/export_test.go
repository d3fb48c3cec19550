package basebackup

import (
	"context"
	"strings"
	"time"
)

// SetLeaseTTL changes how long a silent backup keeps others out, and returns the former value. No backup may run.
func SetLeaseTTL(d time.Duration) time.Duration {
	old := leaseTTL
	leaseTTL = d
	return old
}

// SetPingEvery changes how often the session that holds backup mode is asked, and returns the former value.
func SetPingEvery(d time.Duration) time.Duration {
	old := pingEvery
	pingEvery = d
	return old
}

// SetPatience changes how long something is looked at again, and returns the former value.
func SetPatience(d time.Duration) time.Duration {
	old := patience
	patience = d
	return old
}

// ReadControl is readControl without its result.
func ReadControl(ctx context.Context, dir string) error {
	_, err := readControl(ctx, dir)
	return err
}

// IncludesOf is includesOf as text.
func IncludesOf(access bool, file, content string) string {
	kind := serverConfig
	if access {
		kind = accessConfig
	}
	var out []string
	for _, in := range includesOf(kind, file, []byte(content)) {
		s := in.path
		if in.dir {
			s += " dir"
		}
		if in.optional {
			s += " optional"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}
