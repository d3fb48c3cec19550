#!/usr/bin/env bash
# Sees that a PostgreSQL server of a supported major version (15 to 18) is installed. Installs the distribution's own
# where it may (as root or by sudo without a password), and otherwise prints the one command to run.
set -euo pipefail

for major in 18 17 16 15; do
  for dir in /usr/lib/postgresql/$major/bin /usr/pgsql-$major/bin /opt/pg/$major/usr/lib/postgresql/$major/bin; do
    if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ]; then exit 0; fi
  done
done

install='apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q postgresql'
# No cluster of its own: Debian would create and start one.
prepare='mkdir -p /etc/postgresql-common && grep -qs "^create_main_cluster = false" /etc/postgresql-common/createcluster.conf || echo "create_main_cluster = false" >> /etc/postgresql-common/createcluster.conf'
if ! command -v apt-get >/dev/null; then
  echo "no PostgreSQL server (15 to 18) was found; install one by your system's package manager, e.g.: dnf install postgresql-server postgresql-contrib" >&2
  exit 1
fi
if [ "$(id -u)" = 0 ]; then
  echo "installing PostgreSQL ..." >&2
  bash -c "$prepare; $install" >&2
elif sudo -n true 2>/dev/null; then
  echo "installing PostgreSQL by sudo ..." >&2
  sudo bash -c "$prepare; $install" >&2
else
  echo "no PostgreSQL server (15 to 18) was found; install one by:" >&2
  echo "  sudo sh -c '$install'" >&2
  exit 1
fi
