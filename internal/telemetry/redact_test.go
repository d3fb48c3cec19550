package telemetry

import "testing"

func TestRedactURLs(t *testing.T) {
	tests := []struct{ text, want string }{
		{"postgres://u:p@h:5432/db", "postgres://u:[redacted]@h:5432/db"},
		{"dial postgres://u:p@h/db: refused", "dial postgres://u:[redacted]@h/db: refused"},
		{"postgres://u:12345@h", "postgres://u:[redacted]@h"},
		{"postgres://u:p:q@h", "postgres://u:[redacted]@h"},
		{"postgres://u:it's@h", "postgres://u:[redacted]@h"},
		{"postgres://u:p@ss/w@h/db", "postgres://u:[redacted]@h/db"},
		{"postgres://u:p/w@h/db", "postgres://u:[redacted]@h/db"},
		{"postgres://bob@corp:p@h/db", "postgres://bob@corp:[redacted]@h/db"},
		{"postgres://:p@h", "postgres://:[redacted]@h"},
		{"postgres://u:p@a:1,b:2/db", "postgres://u:[redacted]@a:1,b:2/db"},
		{"a postgres://u:p@h, b http://v:q@i", "a postgres://u:[redacted]@h, b http://v:[redacted]@i"},
		{`{"a":"http://h:80","b":"x@y","c":"http://v:q@i"}`, `{"a":"http://h:80","b":"x@y","c":"http://v:[redacted]@i"}`},
		{"http://x:80,postgres://u:p@h", "http://x:80,postgres://u:[redacted]@h"},
		{"https://u:ü€@h", "https://u:[redacted]@h"},
		{"postgres://u@h/db", "postgres://u@h/db"},
		{"http://localhost:8233/namespaces/default/workflows/backup@orders", "http://localhost:8233/namespaces/default/workflows/backup@orders"},
		{"http://h:8080?a=b@c", "http://h:8080?a=b@c"},
		{"http://[::1]:8233/a@b", "http://[::1]:8233/a@b"},
		{"postgres://a:1,b:2/db?x=y@z", "postgres://a:1,b:2/db?x=y@z"},
		{"file:///var/lib/lifeboat: mail bob@example.org", "file:///var/lib/lifeboat: mail bob@example.org"},
		{"queue lifeboat@db1: gone", "queue lifeboat@db1: gone"},
		{"://", "://"},
		{"", ""},
	}
	for _, test := range tests {
		if got := redactURLs(test.text); got != test.want {
			t.Errorf("redactURLs(%q) is %q, want %q", test.text, got, test.want)
		}
	}
}

func TestSensitiveKey(t *testing.T) {
	for _, key := range []string{
		"password", "Password", "PASSWORD", "db_password", "dbPassword", "DBPassword", "secret", "client-secret", "secrets",
		"token", "apiToken", "api.token", "tokens", "token2fa_secret", "dsn", "DSN", "sourceDSN", "dsn_of_source",
	} {
		if !sensitiveKey(key) {
			t.Errorf("key %q is not sensitive", key)
		}
	}
	for _, key := range []string{"", "pass", "cluster", "tokenizer", "secretary", "passwordless", "adsn", "host", "keys"} {
		if sensitiveKey(key) {
			t.Errorf("key %q is sensitive", key)
		}
	}
}
