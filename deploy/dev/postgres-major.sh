#!/usr/bin/env bash
# Prints the folder with the programs of one major version of PostgreSQL, and nothing else. If the host has none, it
# unpacks Debian's packages of it into the cache (cache.sh), beside whatever the host has installed and without touching
# it: no root, no mounts, no change to the system's packages. For tests on several major versions.
#
#   postgres-major.sh 17
#
# How: apt resolves and downloads with a configuration and an empty package database of its own, so it checks Debian's
# signatures as usual. The programs may need a newer C library than the host has. So their own is unpacked beside them,
# and patchelf names it as their interpreter. DT_RPATH (--force-rpath), not DT_RUNPATH: the latter is not followed for
# the libraries of libraries (ld.so(8)).
# Progress and errors go to standard error; exit code 1 when the version cannot be had.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$here/cache.sh"

major=${1:-}
# The suites of Debian that have it, the steadiest first. The testing and unstable suites move on without notice.
case $major in
  15) suites="bookworm" ;;
  17) suites="trixie" ;;
  16 | 18) suites="forky sid" ;;
  *) say "usage: postgres-major.sh MAJOR, with MAJOR one of 15, 16, 17, 18"; exit 2 ;;
esac

prefix=$(cache_dir)/pg/$major
for dir in "/usr/lib/postgresql/$major/bin" "/usr/pgsql-$major/bin" "/opt/pg/$major/usr/lib/postgresql/$major/bin" \
  "$prefix/usr/lib/postgresql/$major/bin"; do
  if [ -x "$dir/initdb" ] && "$dir/postgres" -V >/dev/null 2>&1; then printf '%s\n' "$dir"; exit 0; fi
done

otherwise="install the package postgresql-$major of your distribution or of apt.postgresql.org instead"
for tool in apt-get apt-cache dpkg dpkg-deb flock; do
  command -v "$tool" >/dev/null || die "PostgreSQL $major is not installed, and cannot be unpacked without $tool: $otherwise"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || die "PostgreSQL $major is not installed, and $keyring is missing: apt-get install debian-archive-keyring, or $otherwise"

# mirror: the one that this host takes Debian's packages from already, or $DEBIAN_MIRROR.
mirror() {
  local uri
  uri=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 -E '/debian/?$')} || return 1
  printf '%s\n' "${uri%/}"
}
uri=$(mirror) || die "no mirror of Debian is known: run apt-get update, or name one by DEBIAN_MIRROR; or $otherwise"
arch=$(dpkg --print-architecture)

work=
trap 'rm -rf -- "$work"' EXIT

# private_apt SUITE: an apt that knows one suite and no installed package.
private_apt() {
  rm -rf -- "$work"
  work=$(mktemp -d)
  mkdir -p "$work"/etc/apt/{apt.conf.d,preferences.d} "$work"/var/lib/apt/lists/partial "$work"/var/lib/dpkg \
    "$work"/var/cache/apt/archives/partial "$work"/var/log/apt
  : >"$work/var/lib/dpkg/status"
  printf 'deb [signed-by=%s arch=%s] %s %s main\n' "$keyring" "$arch" "$uri" "$1" >"$work/etc/apt/sources.list"
  cat >"$work/apt.conf" <<CONF
Dir "$work";
Dir::State::status "$work/var/lib/dpkg/status";
APT::Architecture "$arch";
APT::Architectures {"$arch";};
APT::Install-Recommends "false";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
  # A mirror may lag behind a moving suite, whose list then counts as expired. Its signature is checked all the same.
  case $1 in forky | sid) printf 'Acquire::Check-Valid-Until "false";\n' >>"$work/apt.conf" ;; esac
  export APT_CONFIG=$work/apt.conf
  apt-get update -qq >&2 && apt-cache show "postgresql-$major" >/dev/null 2>&1
}

# packages: the server, its client programs, and every library that they need. LLVM (for JIT, which then is off) and
# Perl are left out: 150 MB that no test needs.
packages() {
  apt-get install -s "postgresql-$major" patchelf | sed -n 's/^Inst \([^ :]*\).*/\1/p' |
    grep -E "^(lib.*|zlib1g|patchelf|postgresql-$major|postgresql-client-$major)\$" | grep -vE '^lib(llvm|z3|perl)'
}

# unpack DIR: everything into DIR, made to run as $prefix.
unpack() {
  local root=$1 loader triplet bin b
  local -a names
  mapfile -t names < <(packages)
  [ "${#names[@]}" -gt 2 ] || return 1
  (cd "$work/var/cache/apt/archives" && apt-get download -qq "${names[@]}" >&2) || return 1
  for b in "$work"/var/cache/apt/archives/*.deb; do dpkg-deb -x "$b" "$root" || return 1; done
  bin=$root/usr/lib/postgresql/$major/bin
  rm -rf "$root"/usr/share/{doc,man,locale,lintian,icons,applications} "$bin"/../lib/bitcode "$bin"/../lib/llvmjit*.so
  loader=$(find "$root"/usr/lib -maxdepth 2 -name 'ld-linux*.so.*' | head -n 1)
  [ -n "$loader" ] || { say "the C library's package has no loader"; return 1; }
  triplet=$(basename -- "$(dirname -- "$loader")")
  for b in "$bin"/*; do
    [ ! -L "$b" ] && [ "$(head -c 4 "$b" | tail -c 3)" = ELF ] || continue
    "$loader" --library-path "$(dirname -- "$loader")" "$root/usr/bin/patchelf" --force-rpath \
      --set-interpreter "$prefix/usr/lib/$triplet/$(basename -- "$loader")" --set-rpath "$prefix/usr/lib/$triplet" "$b" || return 1
  done
}

# install_it: the whole of it, under a lock that the caller holds. $prefix is never there by half.
install_it() {
  local suite tmp=$prefix.tmp.$$ started=$SECONDS
  for suite in $suites; do
    say "unpacking PostgreSQL $major of Debian $suite: about 35 MB, half a minute"
    rm -rf -- "$tmp"
    if private_apt "$suite" && mkdir -p -- "$tmp" && unpack "$tmp"; then
      rm -rf -- "$prefix"
      mv -- "$tmp" "$prefix"
      chmod 0755 -- "$prefix"
      "$prefix/usr/lib/postgresql/$major/bin/postgres" -V >&2 || { rm -rf -- "$prefix"; continue; }
      say "unpacked it into $prefix in $((SECONDS - started)) s"
      return 0
    fi
  done
  rm -rf -- "$tmp"
  return 1
}

mkdir -p -- "$(dirname -- "$prefix")" || die "cannot make $prefix; set XDG_CACHE_HOME to a folder that you may write to"
chmod 0755 -- "$(cache_dir)" "$(dirname -- "$prefix")"
(
  flock 9
  [ -x "$prefix/usr/lib/postgresql/$major/bin/initdb" ] || install_it
) 9>"$prefix.lock" || die "PostgreSQL $major cannot be had from $suites: $otherwise"
printf '%s\n' "$prefix/usr/lib/postgresql/$major/bin"
