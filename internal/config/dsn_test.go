package config

import "testing"

func TestDSN_HidesPasswords(t *testing.T) {
	const hidden = "[redacted]"
	tests := []struct{ dsn, shown, without string }{
		{"postgres://u:p@h:5432/db", "postgres://u:[redacted]@h:5432/db", "postgres://u@h:5432/db"},
		{"postgresql://u:@h", "postgresql://u:[redacted]@h", "postgresql://u@h"},
		{"postgres://u@h/db?sslmode=require", "postgres://u@h/db?sslmode=require", "postgres://u@h/db?sslmode=require"},
		{"postgres://u:p@a:1,b:2/db", "postgres://u:[redacted]@a:1,b:2/db", "postgres://u@a:1,b:2/db"},
		{"postgres://u:p:q@w@[::1]:5432/", "postgres://u:[redacted]@[::1]:5432/", "postgres://u@[::1]:5432/"},
		{"postgres://[::1]:5432/db", "postgres://[::1]:5432/db", "postgres://[::1]:5432/db"},
		{"postgres:///db?host=/run/x&password=p", "postgres:///db?host=/run/x&password=[redacted]", "postgres:///db?host=/run/x"},
		{"postgres://h/?sslpassword=p&a=b&pass%77ord=p", "postgres://h/?sslpassword=[redacted]&a=b&pass%77ord=[redacted]", "postgres://h/?a=b"},
		{"postgres://h/?oauth_client_secret=p", "postgres://h/?oauth_client_secret=[redacted]", "postgres://h/"},
		{"postgres://u:p/w@h/db", hidden, ""},
		{"postgres://u:p?w@h/db", hidden, ""},
		{"postgres://u:p@s/w@h/db", hidden, ""},
		{"host=h password=p user=u", "host=h password=[redacted] user=u", "host=h user=u"},
		{"host=h  password = 'p w' user='a b'", "host=h password=[redacted] user='a b'", "host=h user='a b'"},
		{`password=p\ w host=h`, "password=[redacted] host=h", "host=h"},
		{`password='p\' host=evil' host=h`, "password=[redacted] host=h", "host=h"},
		{`host=h options='-c a=\'b\' \\' dbname=''`, `host=h options='-c a=\'b\' \\' dbname=''`, `host=h options='-c a=\'b\' \\' dbname=''`},
		{"password='p", hidden, ""},
		{"just words", hidden, ""},
		{"mysql://u:p@h/db", hidden, ""},
		{"host=h\npassword=p", hidden, ""},
		{"", hidden, ""},
	}
	for _, test := range tests {
		d := NewDSN(test.dsn)
		if got := d.String(); got != test.shown {
			t.Errorf("String of %q is %q, want %q", test.dsn, got, test.shown)
		}
		if got := d.WithoutPassword().Reveal(); got != test.without {
			t.Errorf("WithoutPassword of %q is %q, want %q", test.dsn, got, test.without)
		}
		if d.Reveal() != test.dsn {
			t.Errorf("Reveal of %q is %q", test.dsn, d.Reveal())
		}
		if good := d.check() == ""; good != (test.shown != hidden) {
			t.Errorf("check of %q says %q", test.dsn, d.check())
		}
	}
}
