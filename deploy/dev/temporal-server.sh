#!/usr/bin/env bash
# Prints the path of a program that understands "server start-dev", and nothing
# else: a Temporal command line tool on the PATH whose server is 1.29 or newer,
# or else the development server of this folder, built once and kept (cache.sh).
# With the argument --own it is the development server in any case.
# Progress and errors go to standard error; exit code 1 when there is none.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$here/cache.sh"

# new_enough PROGRAM: its server has what Lifeboat relies on, among it worker
# versioning and updates as they are since 1.29.
new_enough() {
  local version major minor
  # The form is: temporal version 1.5.1 (Server 1.29.1, UI 2.42.1)
  version=$("$1" --version 2>/dev/null | sed -n 's/.*(Server \([0-9][0-9]*\)\.\([0-9][0-9]*\)\..*/\1 \2/p') || return 1
  [ -n "$version" ] || return 1
  read -r major minor <<<"$version"
  [ "$major" -gt 1 ] || { [ "$major" -eq 1 ] && [ "$minor" -ge 29 ]; }
}

case ${1:-} in
  '') own= ;;
  --own) own=1 ;;
  *) say "unknown argument $1; known: --own"; exit 2 ;;
esac

if [ -z "$own" ] && cli=$(type -P temporal) && new_enough "$cli"; then
  realpath -s -- "$cli"
  exit 0
fi

command -v go >/dev/null || die "no Temporal server: install the Temporal command line tool (server 1.29 or newer), or Go 1.26.8 or newer to build one"

shopt -s nullglob
sources=()
for f in "$here"/*.go; do
  case $f in *_test.go) ;; *) sources+=("${f##*/}") ;; esac
done

sum=$(digest "$here" "${sources[@]}" go.mod go.sum) || die "cannot read the sources of the development server in $here"
build_once devserver "$here" . "$sum" "about 7 to 15 minutes the first time (some 1800 packages of Temporal), seconds after a change"
