#!/usr/bin/env bash
# Prints the path of a PgBouncer, and nothing else, for the tests that talk through one. If the host has none, it unpacks
# the distribution's package into the cache (cache.sh) without touching the system: no root, no service, no user.
#
# How: apt resolves and downloads from the lists that the host has already, checking signatures as usual. Only libraries
# that the host lacks are unpacked, as the package is of the host's own release.
# Progress and errors go to standard error; exit code 1 when it cannot be had.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$here/cache.sh"

for program in "$(command -v pgbouncer || true)" /usr/sbin/pgbouncer; do
  if [ -n "$program" ] && [ -x "$program" ]; then printf '%s\n' "$program"; exit 0; fi
done

prefix=$(cache_dir)/pgbouncer
program=$prefix/pgbouncer
otherwise="install the package pgbouncer of your distribution instead"
for tool in apt-get dpkg-deb flock; do
  command -v "$tool" >/dev/null || die "PgBouncer is not installed, and cannot be unpacked without $tool: $otherwise"
done

# packages: PgBouncer and the libraries that are missing; its service and its helpers are of no use here.
packages() {
  apt-get install -s --no-install-recommends pgbouncer | sed -n 's/^Inst \([^ :]*\).*/\1/p' | grep -E '^(lib.*|pgbouncer)$'
}

tmp=$prefix.tmp.$$
trap 'rm -rf -- "$tmp"' EXIT

# install_it: all of it, under a lock that the caller holds. $prefix is never there by half.
install_it() {
  local b
  local -a names
  mapfile -t names < <(packages)
  [[ " ${names[*]} " == *" pgbouncer "* ]] || return 1
  say "unpacking PgBouncer: a few hundred kB"
  mkdir -p -- "$tmp/debs"
  # apt would drop its rights to a user who cannot write here, and warn that it does not.
  (cd "$tmp/debs" && apt-get download -qq -o APT::Sandbox::User="$(id -un)" "${names[@]}" >&2) || return 1
  for b in "$tmp"/debs/*.deb; do dpkg-deb -x "$b" "$tmp" || return 1; done
  rm -rf -- "$tmp/debs"
  cat >"$tmp/pgbouncer" <<'RUN'
#!/bin/sh
root=$(dirname -- "$0")
LD_LIBRARY_PATH=$(echo "$root"/usr/lib/*-linux-gnu*) exec "$root/usr/sbin/pgbouncer" "$@"
RUN
  chmod 0755 -- "$tmp" "$tmp/pgbouncer"
  "$tmp/pgbouncer" --version >&2 || return 1
  rm -rf -- "$prefix"
  mv -- "$tmp" "$prefix"
}

mkdir -p -- "$(dirname -- "$prefix")" || die "cannot make $prefix; set XDG_CACHE_HOME to a folder that you may write to"
chmod 0755 -- "$(dirname -- "$prefix")"
(
  flock 9
  [ -x "$program" ] || install_it
) 9>"$prefix.lock" || die "PgBouncer cannot be had from this host's package lists: apt-get update, or $otherwise"
printf '%s\n' "$program"
