package config

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
)

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// CheckName tells whether name can name a cluster or a repository. Names become parts of object keys, workflow ids and
// folder names, so that they are as narrow as a DNS label.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("bad name %s: a name has 1 to 63 characters of a-z, 0-9 and -, and does not begin with -", quote(name))
	}
	return nil
}

// FilePath returns the absolute, clean folder that a file:// URL names. Errors show no more of the URL than its scheme,
// as S3 URLs may carry keys.
func FilePath(repositoryURL string) (string, error) {
	scheme, _, found := strings.Cut(repositoryURL, "://")
	switch {
	case !found:
		return "", errors.New("no URL of a repository: write file:///ABSOLUTE/FOLDER")
	case scheme == "s3":
		return "", errors.New("s3:// is not available in this version: only file:///ABSOLUTE/FOLDER works yet")
	case scheme != "file":
		return "", fmt.Errorf("unknown kind of repository %s: only file:///ABSOLUTE/FOLDER works yet", quote(scheme))
	}
	u, err := url.Parse(repositoryURL)
	if err != nil {
		return "", errors.New("malformed file:// URL: write file:///ABSOLUTE/FOLDER, % as %25")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(repositoryURL, "#") {
		return "", errors.New("a file:// URL has a path only: write ? as %3F, # as %23, @ behind the third slash")
	}
	if u.Host != "" && u.Host != "localhost" {
		return "", errors.New("a file:// URL names no host: write three slashes, file:///ABSOLUTE/FOLDER")
	}
	if !filepath.IsAbs(u.Path) || strings.ContainsRune(u.Path, 0) {
		return "", errors.New("a file:// URL needs an absolute path: file:///ABSOLUTE/FOLDER")
	}
	clean := filepath.Clean(u.Path)
	if clean == "/" {
		return "", errors.New("the root folder cannot be a repository: name a folder in it")
	}
	return clean, nil
}

// Validate checks a complete configuration: names, references between parts, ranges, and that it asks for nothing that
// this version cannot honour. It does no I/O. The error is an *Error that holds everything that is wrong.
func (c *Config) Validate() error {
	return newError(c.file, c.validate(nil))
}

// validate returns what is wrong, leaving out the paths that failed to decode and what lies below them.
func (c *Config) validate(failed map[string]bool) []Problem {
	v := &validator{config: c, failed: failed}
	v.all()
	return v.problems
}

type validator struct {
	config   *Config
	failed   map[string]bool
	problems []Problem
}

// add reports a problem at the place of path, or of what holds it.
func (v *validator) add(path, format string, args ...any) {
	p := Problem{Path: path, Text: fmt.Sprintf(format, args...)}
	for at := path; at != ""; at = at[:max(0, strings.LastIndexAny(at, ".["))] {
		if v.failed[at] {
			return
		}
		if m, ok := v.config.marks[at]; ok && p.Line == 0 {
			p.Line, p.Column = m.line, m.column
		}
	}
	v.problems = append(v.problems, p)
}

// shown quotes a value as it was written: never what came from the environment.
func (v *validator) shown(path, value string) string {
	if m := v.config.marks[path]; m.fromEnv {
		return quote(m.raw)
	}
	return quote(value)
}

// written tells whether the file has the key at path.
func (c *Config) written(path string) bool {
	_, ok := c.marks[path]
	return ok
}

func (v *validator) all() {
	c := v.config
	if c.Version != Version {
		v.add("version", "version %d is not known to this program: it knows version %d", c.Version, Version)
	}
	for _, name := range c.RepositoryNames() {
		v.repository("repositories."+name, name, c.Repositories[name])
	}
	for _, name := range c.ClusterNames() {
		v.cluster("clusters."+name, name, c.Clusters[name])
	}
	v.worker()
}

func (v *validator) repository(path, name string, r *Repository) {
	if err := CheckName(name); err != nil {
		v.add(path, "%v", err)
	}
	if r == nil {
		v.add(path, "is empty")
		return
	}
	if _, err := FilePath(r.URL); err != nil {
		v.add(path+".url", "%v", err)
	}
	if r.Encryption != nil || v.config.written(path+".encryption") {
		v.add(path+".encryption", "encryption is not available in this version, which refuses to store in plain what was to be "+
			"encrypted: take the key out only if an unencrypted repository will do")
	}
	v.oneOf(path+".compression", r.Compression, CompressionZstd, CompressionS2, CompressionNone)
}

func (v *validator) oneOf(path, value string, allowed ...string) {
	if slices.Contains(allowed, value) {
		return
	}
	hint := ""
	if near := nearest(value, allowed); near != "" && !v.config.marks[path].fromEnv {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	v.add(path, "unknown value %s: it is one of %s%s", v.shown(path, value), strings.Join(allowed, ", "), hint)
}

func (v *validator) cluster(path, name string, c *Cluster) {
	if err := CheckName(name); err != nil {
		v.add(path, "%v", err)
	}
	if c == nil {
		v.add(path, "is empty")
		return
	}
	v.dsn(path+".dsn", c.DSN)
	v.repositoryName(path+".repository", c.Repository)
	v.absolute(path+".data_directory", c.DataDirectory)
	v.hosts(path, c)
	switch c.WAL.Mode {
	case WALArchive:
	case WALStream, WALBoth:
		v.add(path+".wal.mode", "%s is not available in this version: use %s", c.WAL.Mode, WALArchive)
	default:
		v.oneOf(path+".wal.mode", c.WAL.Mode, WALArchive)
	}
	v.positive(path+".objectives.rto", int64(c.Objectives.RTO))
	v.positive(path+".objectives.rpo", int64(c.Objectives.RPO))
	v.positive(path+".retention.full_days", int64(c.Retention.FullDays))
	v.positive(path+".retention.min_verified", int64(c.Retention.MinVerified))
	v.schedules(path+".schedules", c.Schedules)
	v.checks(path+".checks", c.Checks)
}

func (v *validator) dsn(path string, d DSN) {
	if problem := d.check(); problem != "" {
		v.add(path, "%s", problem)
	}
}

func (v *validator) repositoryName(path, name string) {
	c := v.config
	switch known := c.RepositoryNames(); {
	case v.failed["repositories"]: // a name may be missing for that reason
	case len(known) == 0:
		v.add(path, "no repository is configured: add one under repositories")
	case name == "":
		v.add(path, "must name one of the repositories: %s", strings.Join(known, ", "))
	case c.Repositories[name] == nil && c.marks[path].fromEnv:
		v.add(path, "unknown repository %s: repositories has %s", v.shown(path, name), strings.Join(known, ", "))
	case c.Repositories[name] == nil:
		v.add(path, "unknown repository %s: %s", quote(name), knownNames("repositories", name, known))
	}
}

func (v *validator) absolute(path, folder string) {
	switch {
	case folder == "":
	case !filepath.IsAbs(folder):
		v.add(path, "%s is no absolute path", v.shown(path, folder))
	case strings.ContainsFunc(folder, unicode.IsControl):
		v.add(path, "contains a control character")
	}
}

func (v *validator) hosts(path string, c *Cluster) {
	if len(c.Hosts) > 0 && c.DataDirectory != "" {
		v.add(path+".hosts", "data_directory and hosts exclude each other: give each host its own data_directory")
	}
	for i, h := range c.Hosts {
		at := fmt.Sprintf("%s.hosts[%d]", path, i)
		v.dsn(at+".dsn", h.DSN)
		v.absolute(at+".data_directory", h.DataDirectory)
		v.queue(at+".queue", h.Queue)
	}
}

func (v *validator) queue(path, queue string) {
	if strings.ContainsFunc(queue, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		v.add(path, "the name of a task queue contains no space or control character")
	}
}

func (v *validator) positive(path string, n int64) {
	if n <= 0 {
		v.add(path, "must be greater than zero")
	}
}

func (v *validator) schedules(path string, s Schedules) {
	for name, schedule := range s.All() {
		text := string(schedule)
		if schedule == "" || schedule.Cron() != "" {
			continue // `lifeboat schedule apply` reads the fields
		}
		if schedule.Every() <= 0 {
			v.add(path+"."+name, "bad schedule %s: write five cron fields (\"0 2 * * *\") or an interval (\"1m\")",
				v.shown(path+"."+name, text))
		}
	}
	if _, err := time.LoadLocation(s.TimeZone); err != nil || s.TimeZone == "Local" {
		v.add(path+".time_zone", "unknown time zone %s: write an IANA name such as Europe/Berlin; empty is UTC",
			v.shown(path+".time_zone", s.TimeZone))
	}
}

func (v *validator) checks(path string, checks []Check) {
	first := map[string]int{}
	for i, check := range checks {
		at := fmt.Sprintf("%s[%d]", path, i)
		if check.Name == "" {
			v.add(at+".name", "is empty")
		}
		if strings.TrimSpace(check.SQL) == "" {
			v.add(at+".sql", "is empty")
		}
		if other, twice := first[check.Name]; twice && check.Name != "" {
			v.add(at+".name", "is the name of checks[%d] too", other)
			continue
		}
		first[check.Name] = i
	}
}

func (v *validator) worker() {
	w := v.config.Worker
	v.absolute("worker.work_dir", w.WorkDir)
	for i, folder := range w.PostgresBin {
		path := fmt.Sprintf("worker.postgres_bin[%d]", i)
		if folder == "" {
			v.add(path, "is empty")
		}
		v.absolute(path, folder)
	}
	if w.TaskQueue == "" {
		v.add("worker.task_queue", "is empty")
	}
	v.queue("worker.task_queue", w.TaskQueue)
}
