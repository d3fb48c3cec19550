package dbcore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// ConnectCode is the class of a failure to connect.
type ConnectCode string

// The classes of ConnectError.
const (
	CodeRefused         ConnectCode = "refused"              // nothing listens there
	CodeUnreachable     ConnectCode = "unreachable"          // no route to the host
	CodeTimeout         ConnectCode = "timeout"              // no answer in time
	CodeCanceled        ConnectCode = "canceled"             // the caller's context was cancelled
	CodeDNS             ConnectCode = "dns"                  // the host's name does not resolve
	CodeTLS             ConnectCode = "tls"                  // no TLS, or a certificate that is not accepted
	CodeAuth            ConnectCode = "auth"                 // wrong password, unknown role, other authentication failures
	CodeNoHBAEntry      ConnectCode = "no_hba_entry"         // pg_hba.conf has no line for it, or one that rejects
	CodeNoDatabase      ConnectCode = "no_database"          // the database does not exist
	CodePermission      ConnectCode = "permission"           // the role may not connect, or not replicate
	CodeStarting        ConnectCode = "starting"             // the server starts, stops or recovers
	CodeTooMany         ConnectCode = "too_many_connections" // all slots are taken
	CodeWrongServerRole ConnectCode = "wrong_server_role"    // target_session_attrs found no fitting server
	CodeOther           ConnectCode = "other"
)

// ConnectError says why no connection could be made. Nothing was sent that could have changed data, so connecting
// again is always safe; whether it can help depends on Code.
//
// It never holds the password: unlike pgx's error it keeps no configuration.
type ConnectError struct {
	// Code is the class, for programs.
	Code ConnectCode
	// Hint is what a person can do about it; it may be empty.
	Hint string
	// SQLState is the server's error code, if it was the server that refused.
	SQLState string
	// Host, Port, DBName and User are what was asked for (of several hosts, the first).
	Host   string
	Port   int
	DBName string
	User   string

	err error
}

// Error names host, database and user, the cause, and the hint.
func (e *ConnectError) Error() string {
	t := target{host: e.Host, port: e.Port, dbName: e.DBName, user: e.User}
	text := fmt.Sprintf("connect to %s: %s", t, oneLine(e.err.Error()))
	if e.Hint != "" {
		text += " (hint: " + e.Hint + ")"
	}
	return text
}

// Unwrap returns the cause.
func (e *ConnectError) Unwrap() error { return e.err }

// target is where a connection goes, for error texts.
type target struct {
	host        string
	port        int
	dbName      string
	user        string
	replication bool
}

func (s *settings) target() target {
	c := s.pool.ConnConfig
	return target{host: c.Host, port: int(c.Port), dbName: c.Database, user: c.User}
}

func (t target) String() string {
	return fmt.Sprintf("host=%s port=%d dbname=%s user=%s", t.host, t.port, t.dbName, t.user)
}

// connectError turns an error of pgx's connect functions into a *ConnectError.
func (t target) connectError(err error) error {
	e := &ConnectError{Host: t.host, Port: t.port, DBName: t.dbName, User: t.user, err: err}
	// pgx's own wrapper carries the configuration, password included; its content does not.
	var pgxErr *pgconn.ConnectError
	if errors.As(err, &pgxErr) {
		e.err = pgxErr.Unwrap()
	}
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) {
		e.SQLState = pgErr.Code
		e.Code, e.Hint = t.classifyServer(pgErr)
	} else {
		e.Code, e.Hint = t.classifyNetwork(err)
	}
	return e
}

// classifyServer judges a refusal by the server. The codes are those of src/backend/libpq/auth.c and
// src/backend/utils/init/postinit.c.
func (t target) classifyServer(e *pgconn.PgError) (ConnectCode, string) {
	switch e.Code {
	case "28P01":
		return CodeAuth, "check the password in the DSN, PGPASSWORD or the password file"
	case "28000":
		return t.classifyAuthorization(e)
	case "3D000":
		return CodeNoDatabase, fmt.Sprintf("create database %q, or name another", t.dbName)
	case "42501":
		if t.replication {
			return CodePermission, fmt.Sprintf("run: ALTER ROLE %q REPLICATION", t.user)
		}
		return CodePermission, fmt.Sprintf("run: GRANT CONNECT ON DATABASE %q TO %q", t.dbName, t.user)
	case "53300":
		if t.replication {
			return CodeTooMany, "raise max_wal_senders, or end other replication connections"
		}
		return CodeTooMany, "raise max_connections, or lower MaxOpenConns here or elsewhere"
	case "57P03":
		return CodeStarting, "wait until the server accepts connections"
	}
	return CodeOther, ""
}

func (t target) classifyAuthorization(e *pgconn.PgError) (ConnectCode, string) {
	// ClientAuthentication reports missing and rejecting lines of pg_hba.conf; other routines report roles and methods.
	if e.Routine == "ClientAuthentication" || strings.Contains(e.Message, "pg_hba.conf") {
		database := t.dbName
		if t.replication {
			database = "replication"
		}
		return CodeNoHBAEntry, fmt.Sprintf("add a line for database %s and user %s from this client's address to the server's pg_hba.conf "+
			"(of type host or hostssl with TLS, hostnossl without, local for a unix socket) and reload", database, t.user)
	}
	return CodeAuth, fmt.Sprintf("check that role %q exists and may log in, and the method that pg_hba.conf asks for", t.user)
}

// classifyNetwork judges a failure before the server had its say.
func (t target) classifyNetwork(err error) (ConnectCode, string) {
	var dnsErr *net.DNSError
	var certErr *tls.CertificateVerificationError
	var authorityErr x509.UnknownAuthorityError
	var hostErr x509.HostnameError
	switch {
	case errors.Is(err, context.Canceled):
		return CodeCanceled, ""
	case errors.As(err, &dnsErr):
		return CodeDNS, fmt.Sprintf("check the host name %q and the resolver", t.host)
	case errors.As(err, &certErr), errors.As(err, &authorityErr), errors.As(err, &hostErr):
		return CodeTLS, "check sslrootcert, and that the certificate names this host (verify-full)"
	case strings.Contains(err.Error(), "server refused TLS connection"):
		return CodeTLS, "set ssl=on and a certificate on the server, or sslmode=disable if the network may read everything"
	case errors.Is(err, syscall.ECONNREFUSED), t.onSocket() && errors.Is(err, fs.ErrNotExist):
		return CodeRefused, t.refusedHint()
	case errors.Is(err, fs.ErrPermission):
		return CodePermission, "check the permissions of the socket's directory, or the firewall"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return CodeUnreachable, "check the address, the route and the firewall"
	case errors.Is(err, pgconn.ErrReadOnlyConnection), errors.Is(err, pgconn.ErrReadWriteConnection),
		errors.Is(err, pgconn.ErrPrimaryConnection), errors.Is(err, pgconn.ErrStandbyConnection):
		return CodeWrongServerRole, "no host fits target_session_attrs; check which server is the primary"
	case isTimeout(err):
		return CodeTimeout, "check that the host is up and a firewall does not drop packets; ConnectTimeout sets the patience"
	case strings.Contains(err.Error(), "tls error"):
		return CodeTLS, "check the TLS settings of both sides"
	}
	return CodeOther, ""
}

func (t target) onSocket() bool { return strings.HasPrefix(t.host, "/") }

func (t target) refusedHint() string {
	if t.onSocket() {
		return fmt.Sprintf("start the server, or check that it has unix_socket_directories with %s and port %d", t.host, t.port)
	}
	return fmt.Sprintf("start the server, or check that it listens on this address (listen_addresses) and port %d", t.port)
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &netErr) && netErr.Timeout()
}
