#!/usr/bin/env bash
# Prints the path of golangci-lint in the version that tools/go.mod pins, and
# nothing else. It is built once and kept (cache.sh), from source: so it is made
# with the Go that compiles the project, which it must not be older than.
# With the argument "workflowcheck" it does the same for that tool, which looks
# for what a Temporal workflow must not do.
# Progress and errors go to standard error; exit code 1 when it cannot be built.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
. "$here/cache.sh"

tool=${1:-golangci-lint}
ldflags=
case $tool in
  golangci-lint)
    package=github.com/golangci/golangci-lint/v2/cmd/golangci-lint
    hint="1 to 4 minutes the first time"
    # Without these it takes this module's version for its own.
    version=$(sed -n 's|.*github.com/golangci/golangci-lint/v2 v\([0-9.]*\).*|\1|p' "$here/tools/go.mod")
    ldflags="-X main.version=$version -X main.date=pinned"
    ;;
  workflowcheck)
    package=go.temporal.io/sdk/contrib/tools/workflowcheck
    hint="under a minute"
    ;;
  *) say "unknown tool $tool; known: golangci-lint, workflowcheck"; exit 2 ;;
esac

command -v go >/dev/null || die "Go is not installed (1.26 or newer is needed to build $tool)"
sum=$(digest "$here/tools" go.mod go.sum ../golangci-lint.sh) || die "cannot read $here/tools/go.mod"
build_once "$tool" "$here/tools" "$package" "$sum" "$hint" "$ldflags"
