package migrate

type lintContext struct {
	major     int
	direction Direction
}

func isRule(name string) bool { return true }

func lintScript(s *script, c lintContext) (findings, ignored []Finding) { return nil, nil }
