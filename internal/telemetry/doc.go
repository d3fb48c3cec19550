// Package telemetry makes the loggers of Lifeboat's programs.
//
// It keeps one promise: secrets do not reach the log (invariant 9). Redaction here is the net under the trapeze, not the
// trapeze: code that holds a secret keeps it in a type that hides it (config.DSN), and logs names and digests. The net
// catches
//
//   - values of attributes, and of all attributes in groups, whose key has the word password, secret, token or dsn in it
//     ("db_password", "apiToken", "source.dsn"): the whole value is replaced;
//   - passwords in the user part of URLs, wherever they stand in a message, an error or another value:
//     postgres://u:[redacted]@host.
//
// It knows nothing else: not the password of a key=value connection string in the middle of a text, and not the fields of
// a struct that is logged as a whole, unless they hold such a URL.
//
// Engines do not import this package: they take a *slog.Logger.
package telemetry
