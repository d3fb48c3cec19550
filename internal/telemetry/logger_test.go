package telemetry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

type inner struct{ Address string }

type outer struct {
	Name  string
	Inner *inner
}

// valuer stands for a type that chooses how it is logged.
type valuer struct{ value slog.Value }

func (v valuer) LogValue() slog.Value { return v.value }

type stringer struct{ address string }

func (s stringer) String() string { return s.address }

type marshaler struct{ address string }

func (m marshaler) MarshalText() ([]byte, error) { return []byte(m.address), nil }

const address = "postgres://u:hunter2@h/db"

var encoded = base64.StdEncoding.EncodeToString([]byte(address))

func newLogger(t *testing.T, format string, level slog.Leveler) (*slog.Logger, *bytes.Buffer) {
	t.Helper()
	var b bytes.Buffer
	logger, err := NewLogger(&b, LogOptions{Format: format, Level: level})
	if err != nil {
		t.Fatal(err)
	}
	return logger, &b
}

// Whatever the way in which a secret gets into a record, it does not get out.
func TestLogger_RedactsEverywhere(t *testing.T) {
	ways := map[string]func(*slog.Logger){
		"password":            func(l *slog.Logger) { l.Info("m", "db_password", "hunter2") },
		"bytes under token":   func(l *slog.Logger) { l.Info("m", "token", []byte("hunter2")) },
		"dsn":                 func(l *slog.Logger) { l.Info("m", "dsn", "host=h password=hunter2") },
		"error under dsn":     func(l *slog.Logger) { l.Info("m", "dsn", errors.New("hunter2")) },
		"with":                func(l *slog.Logger) { l.With("secret", "hunter2").Info("m") },
		"in a group":          func(l *slog.Logger) { l.WithGroup("g").Info("m", slog.Group("h", "password", "hunter2")) },
		"under a group":       func(l *slog.Logger) { l.Info("m", slog.Group("secret", slog.Group("a", "b", "hunter2"))) },
		"under WithGroup":     func(l *slog.Logger) { l.WithGroup("dsn").Info("m", "b", "hunter2") },
		"valuer under key":    func(l *slog.Logger) { l.Info("m", "token", valuer{slog.GroupValue(slog.String("a", "hunter2"))}) },
		"valuer with key":     func(l *slog.Logger) { l.Info("m", "a", valuer{slog.GroupValue(slog.String("password", "hunter2"))}) },
		"valuer with address": func(l *slog.Logger) { l.Info("m", "a", valuer{slog.StringValue(address)}) },
		"message":             func(l *slog.Logger) { l.Info("dial " + address) },
		"text":                func(l *slog.Logger) { l.Info("m", "at", "dial "+address+" failed") },
		"error":               func(l *slog.Logger) { l.Info("m", "err", fmt.Errorf("dial %s: %w", address, errors.New("refused"))) },
		"stringer":            func(l *slog.Logger) { l.Info("m", "a", stringer{address}) },
		"marshaler":           func(l *slog.Logger) { l.Info("m", "a", marshaler{address}) },
		"bytes":               func(l *slog.Logger) { l.Info("m", "a", []byte(address)) },
		"list":                func(l *slog.Logger) { l.Info("m", "a", []string{"x", address}) },
		"map":                 func(l *slog.Logger) { l.Info("m", "a", map[string]any{"b": map[string]string{"c": address}}) },
		"struct":              func(l *slog.Logger) { l.Info("m", "a", outer{"n", &inner{address}}) },
		"pointer":             func(l *slog.Logger) { l.Info("m", "a", &outer{address, nil}) },
		"what JSON cannot":    func(l *slog.Logger) { l.Info("m", "a", []any{func() {}, address}) },
	}
	for _, format := range []string{FormatText, FormatJSON} {
		for name, log := range ways {
			t.Run(format+"/"+name, func(t *testing.T) {
				logger, out := newLogger(t, format, nil)
				log(logger)
				if out.Len() == 0 {
					t.Fatal("nothing was logged")
				}
				if strings.Contains(out.String(), "hunter2") || strings.Contains(out.String(), encoded) {
					t.Errorf("a secret shows in: %s", out)
				}
				if format == FormatJSON && !json.Valid(out.Bytes()) {
					t.Errorf("no JSON: %s", out)
				}
			})
		}
	}
}

// What is no secret is written as slog writes it.
func TestLogger_LeavesTheRestAlone(t *testing.T) {
	args := []any{
		"cluster", "orders", "bytes", 5, "ok", true, "err", errors.New("no such file"), "list",
		[]string{"a", "b"},
		"struct",
		outer{"n", &inner{"http://localhost:8233/backup@orders"}},
		slog.Group("g", "seconds", 1.5),
	}
	for _, format := range []string{FormatText, FormatJSON} {
		var plain bytes.Buffer
		reference := slog.New(slog.NewTextHandler(&plain, nil))
		if format == FormatJSON {
			reference = slog.New(slog.NewJSONHandler(&plain, nil))
		}
		reference.Info("backup finished", args[:10]...)
		logger, out := newLogger(t, format, nil)
		logger.Info("backup finished", args[:10]...)
		if got, want := withoutTime(t, format, out.String()), withoutTime(t, format, plain.String()); got != want {
			t.Errorf("logged %s\nwant   %s", got, want)
		}
		logger.Info("m", args...)
		if strings.Contains(out.String(), redacted) {
			t.Errorf("redacted without a secret: %s", out)
		}
	}
}

func withoutTime(t *testing.T, format, line string) string {
	t.Helper()
	separator := " "
	if format == FormatJSON {
		separator = ","
	}
	first, rest, found := strings.Cut(line, separator)
	if !found || !strings.Contains(first, "time") {
		t.Fatalf("no time in %s", line)
	}
	return rest
}

func TestLogger_ShowsWhereSomethingWasHidden(t *testing.T) {
	logger, out := newLogger(t, FormatJSON, nil)
	logger.Info("m", "dsn", "host=h", "at", address, "list", []string{address + "?a=1&b=2"})
	var record map[string]any
	if err := json.Unmarshal(out.Bytes(), &record); err != nil {
		t.Fatal(err)
	}
	if record["dsn"] != "[redacted]" || record["at"] != "postgres://u:[redacted]@h/db" || record["msg"] != "m" ||
		record["list"] != `["postgres://u:[redacted]@h/db?a=1&b=2"]` {
		t.Errorf("record is %v", record)
	}
}

func TestLogger_Levels(t *testing.T) {
	logger, out := newLogger(t, "", nil)
	logger.Debug("quiet")
	logger.Info("heard")
	if got := out.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "level=INFO msg=heard") {
		t.Errorf("by default it logs %q", got)
	}
	level := new(slog.LevelVar)
	level.Set(slog.LevelError)
	logger, out = newLogger(t, FormatText, level)
	logger.Warn("quiet")
	level.Set(slog.LevelDebug)
	logger.Debug("heard")
	if got := out.String(); strings.Contains(got, "quiet") || !strings.Contains(got, "heard") {
		t.Errorf("with a changed level it logs %q", got)
	}
}

func TestNewLogger_UnknownFormat(t *testing.T) {
	_, err := NewLogger(&bytes.Buffer{}, LogOptions{Format: "xml"})
	if want := `unknown log format "xml": it is text or json`; err == nil || err.Error() != want {
		t.Errorf("NewLogger: %v, want %s", err, want)
	}
}
