package main

import "lifeboat/internal/repo"

// printConfiguration lists what a backup holds of the source's configuration, what it holds by name only, and what it
// could not read (R4).
func printConfiguration(p *printer, c *repo.Configuration) {
	if c == nil {
		return
	}
	for _, f := range c.Files {
		p.line("configuration\t%s", f.Path)
	}
	for _, r := range c.References {
		p.line("by name only\t%s = %s", r.Setting, r.Value)
	}
	for _, u := range c.Unread {
		p.line("not stored\t%s: %s", u.Path, u.Reason)
	}
	for _, g := range c.Grants {
		p.line("to store it, run\t%s;", g)
	}
}
