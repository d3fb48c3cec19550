// Package config loads, completes and checks lifeboat.yaml.
//
// What the package promises to those who write the file:
//
//   - Nothing is ignored. An unknown key, a key written twice and a value of the wrong type are errors, each with its
//     line and column; all of them are reported at once.
//   - Nothing is pretended. A setting that this version cannot honour is refused where ignoring it could cost data or
//     secrecy (encryption, S3, the streaming receiver), and otherwise named by Config.NotYet, so that `lifeboat check`
//     can say it.
//   - Values from the environment stay values. ${NAME} is expanded after the YAML was parsed, inside one text value
//     at a time: what a variable holds cannot add a key, close a quote or start a comment. $${NAME} is the literal
//     text. Keys are never expanded.
//   - Secrets stay inside. A connection string is a DSN, which hides its password from fmt, JSON, slog and
//     text; errors quote neither source lines nor values that came from the environment.
//
// Anchors, aliases, tags and merge keys of YAML are refused. The file is read in the worst hour of its owner's year:
// each cluster is to be understood where it stands. Refusing them also leaves nothing that could expand without bound.
//
// The parser is goccy/go-yaml's; the mapping to Go values is our own (decode.go), because that library's decoder turns
// numbers into texts in silence and quotes the source in its errors, passwords included.
//
// The package is no engine: it may read the environment, yet only through the function that the caller passes.
package config
