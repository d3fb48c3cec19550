# Sourced by the scripts beside it: builds a program once and keeps it.
#
# A program is kept under a name that ends in a digest of all that it is made
# of: the sources and module files that are named, and the Go version. Another
# source is another name, so nothing is ever checked for being up to date, and
# two checkouts share what they have in common.

# say TEXT...: a line for the person. Standard output is for the result alone.
say() { printf 'lifeboat: %s\n' "$*" >&2; }

# die TEXT...
die() { say "$*"; exit 1; }

# cache_dir: where built programs are kept. Root's is not below its home folder,
# because other users (postgres) run what is in it.
cache_dir() {
  case ${XDG_CACHE_HOME:-} in
    /*) printf '%s/lifeboat\n' "$XDG_CACHE_HOME" ;;
    *)
      if [ "$(id -u)" -eq 0 ]; then
        printf '/var/cache/lifeboat\n'
      else
        [ -n "${HOME:-}" ] || die "neither XDG_CACHE_HOME nor HOME is set: nowhere to keep a built program"
        printf '%s/.cache/lifeboat\n' "$HOME"
      fi
      ;;
  esac
}

# digest DIR FILE...: of the files (names relative to DIR, and bytes) and of the
# Go version that DIR is built with.
digest() {
  local dir=$1
  shift
  (
    cd "$dir" || exit 1
    go version || exit 1
    sha256sum -- "$@" || exit 1
  ) | sha256sum | cut -c1-16
}

# build_once NAME DIR PACKAGE DIGEST HINT [LDFLAGS]: prints the path of the
# program, after building it if it is not there. HINT tells the person how long
# that takes. LDFLAGS go to the linker besides -s -w; what they are made of must
# be in the digest. Several callers at once build it once: the first holds a lock, the others wait
# for it and find the program there.
build_once() {
  local name=$1 dir=$2 package=$3 digest=$4 hint=$5 ldflags=${6:-} cache path
  cache=$(cache_dir)
  path=$cache/$name-$digest
  if [ ! -x "$path" ]; then
    mkdir -p -- "$cache" || die "cannot make $cache; set XDG_CACHE_HOME to a folder that you may write to"
    chmod 0755 -- "$cache" || die "cannot open $cache to other users"
    (
      flock 9 || die "cannot lock $cache/$name.lock"
      [ -x "$path" ] || build "$dir" "$package" "$path" "$hint" "$ldflags"
    ) 9>"$cache/$name.lock" || exit 1
    # What nobody asked for in a month is of sources that are gone. A program
    # that runs keeps its file until it ends.
    find "$cache" -maxdepth 1 -type f -name "$name-*" ! -path "$path" -mtime +30 -delete || true
  fi
  touch -c -- "$path" 2>/dev/null || true # asked for today; another user's file stays as it is
  printf '%s\n' "$path"
}

# build DIR PACKAGE PATH HINT LDFLAGS: builds under another name and renames, so that
# PATH is never half a program. Go's own messages go to standard error.
build() {
  local dir=$1 package=$2 path=$3 hint=$4 ldflags=$5 tmp=$3.tmp.$$ started=$SECONDS pid minutes
  say "building ${path##*/}: $hint"
  trap 'rm -f -- "$tmp"' EXIT
  GOWORK=off go build -C "$dir" -trimpath -buildvcs=false -ldflags="-s -w $ldflags" -o "$tmp" "$package" >&2 &
  pid=$!
  trap 'kill "$pid" 2>/dev/null || true; rm -f -- "$tmp"; exit 1' INT TERM HUP
  minutes=0
  while kill -0 "$pid" 2>/dev/null; do
    if [ $(((SECONDS - started) / 60)) -gt "$minutes" ]; then
      minutes=$(((SECONDS - started) / 60))
      say "still building, $minutes min so far"
    fi
    sleep 0.5
  done
  wait "$pid" || die "building ${path##*/} failed; Go's message is above"
  chmod 0755 -- "$tmp" || die "cannot make $tmp executable"
  mv -f -- "$tmp" "$path" || die "cannot put $path in place"
  trap - EXIT INT TERM HUP
  say "built $path in $((SECONDS - started)) s"
}
