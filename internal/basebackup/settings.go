package basebackup

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"lifeboat/dbcore"
	"lifeboat/internal/repo"
)

// setting is a row of pg_settings. The columns of its origin are empty to roles that may not read all settings.
type setting struct {
	Name    string
	Setting string
	Source  string
	Context string
	File    string
	Line    int32
}

// settings are what the server told a role.
type settings struct {
	Role       string
	Privileged bool // it may read all settings and files
	list       []setting
}

// readSettings reads pg_settings, which hides from an ordinary role what only superusers may see.
func readSettings(ctx context.Context, conn *dbcore.Conn) (*settings, error) {
	s, err := dbcore.One[settings](ctx, conn, `
		select current_user::text as role,
		       pg_has_role('pg_read_all_settings', 'usage') and pg_has_role('pg_read_server_files', 'usage')
		       and has_function_privilege('pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)', 'execute')
		       and has_function_privilege('pg_catalog.pg_ls_dir(text, boolean, boolean)', 'execute') as privileged`)
	if err != nil {
		return nil, err
	}
	s.list, err = dbcore.Collect[setting](ctx, conn, `
		select name, coalesce(setting, '') as setting, source, context, coalesce(sourcefile, '') as file,
		       coalesce(sourceline, 0) as line
		from pg_settings order by name`)
	return &s, err
}

// value is a setting's value, "" also if the role does not see it.
func (s *settings) value(name string) string {
	for i := range s.list {
		if s.list[i].Name == name {
			return s.list[i].Setting
		}
	}
	return ""
}

func (s *settings) directoryMode() string {
	mode := s.value("data_directory_mode")
	if n, err := strconv.ParseUint(mode, 8, 12); err != nil || n != 0o700 && n != 0o750 {
		return ""
	}
	return mode
}

// needed are settings that pg_control does not know and that startup panics without: the states of replication origins
// are in the backup, and each needs a slot (StartupReplicationOrigin, origin.c).
func (s *settings) needed() map[string]int32 {
	out := map[string]int32{}
	for _, name := range []string{"max_replication_slots", "max_active_replication_origins"} {
		if n, err := strconv.ParseInt(s.value(name), 10, 32); err == nil {
			out[name] = int32(n)
		}
	}
	return out
}

// named are settings that name files and libraries of the host.
var named = []string{
	"ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_crl_file", "ssl_crl_dir", "ssl_dh_params_file", "krb_server_keyfile",
	"shared_preload_libraries", "session_preload_libraries", "local_preload_libraries", "archive_library",
	"oauth_validator_libraries", "dynamic_library_path",
}

// references lists files and libraries by name only (R4).
func (s *settings) references() []repo.ConfigReference {
	var out []repo.ConfigReference
	for _, name := range named {
		v := s.value(name)
		if v == "" || strings.HasPrefix(name, "ssl_") && s.value("ssl") != "on" || name == "dynamic_library_path" && v == "$libdir" {
			continue
		}
		out = append(out, repo.ConfigReference{Setting: name, Value: v})
	}
	return out
}

// text is a file of all settings that are not the defaults, for people. Values that may be secret are cut: the files
// hold them, but this one is an extract (decision 0012).
func (s *settings) text() []byte {
	var b strings.Builder
	b.WriteString("# Settings of the source that are not the defaults, as the server told them to role " + strconv.Quote(s.Role) + ".\n" +
		"# For reference: nothing reads this file. Possible secrets are replaced by an ellipsis; the files that set them are\n" +
		"# stored beside this one if the role could read them.\n")
	if !s.Privileged {
		b.WriteString("# The role may not see all settings, nor read the files.\n")
	}
	for _, x := range s.list {
		switch {
		case x.Context == "internal", x.Source == "default", x.Source == "client", x.Source == "session":
			continue
		}
		fmt.Fprintf(&b, "%s = '%s'  # %s", x.Name, quoteConfig.Replace(x.shown()), x.Source)
		if x.File != "" {
			fmt.Fprintf(&b, ", %s:%d", oneLine.Replace(x.File), x.Line)
		}
		b.WriteByte('\n')
	}
	return []byte(b.String())
}

var (
	quoteConfig = strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`, "\r", `\r`)
	oneLine     = strings.NewReplacer("\n", " ", "\r", " ")
	secretName  = regexp.MustCompile(`(?i)pass|secret|token|(^|[._])key($|[._])|conninfo`)
)

// shown is the value without what may be secret.
func (x *setting) shown() string {
	switch {
	case secretName.MatchString(x.Name) && x.Setting != "":
		return "…"
	case strings.HasSuffix(x.Name, "_command"):
		return WithoutSecrets(x.Setting)
	}
	return x.Setting
}
