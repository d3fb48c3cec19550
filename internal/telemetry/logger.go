package telemetry

import (
	"fmt"
	"io"
	"log/slog"
)

// Values of LogOptions.Format.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// LogOptions tell NewLogger what to write.
type LogOptions struct {
	// Format is "text" (logfmt, also if empty) or "json" (one object a line).
	Format string
	// Level is the least severe level that is written; nil: slog.LevelInfo. A *slog.LevelVar may change it later.
	Level slog.Leveler
}

// NewLogger returns a logger that writes redacted records to w, each by one call of Write. It is safe for concurrent
// use; like slog itself it drops what w refuses. The error names an unknown format.
func NewLogger(w io.Writer, o LogOptions) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: o.Level}
	switch o.Format {
	case "", FormatText:
		options.ReplaceAttr = redactor(renderText)
		return slog.New(slog.NewTextHandler(w, options)), nil
	case FormatJSON:
		options.ReplaceAttr = redactor(renderJSON)
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("unknown log format %q: it is %s or %s", o.Format, FormatText, FormatJSON)
}
