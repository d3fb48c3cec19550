package basebackup

import (
	"strings"
	"time"
)

// SetLeaseTTL changes how long a silent backup keeps others out, and returns the former value. No backup may run.
func SetLeaseTTL(d time.Duration) time.Duration {
	old := leaseTTL
	leaseTTL = d
	return old
}

// WithoutSecrets is for its test.
var WithoutSecrets = withoutSecrets

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
