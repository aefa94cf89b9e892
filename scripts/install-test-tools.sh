#!/bin/sh
# Install the programs that some tests hold the grader against: promtool, a PostgreSQL server, a Redis
# server, ip, a C compiler.
#
# Usage: scripts/install-test-tools.sh     (as root, unless nothing is missing; Debian, Ubuntu)
set -eu

say() { echo "install-test-tools: $*" >&2; }

missing=
for pair in promtool:prometheus redis-server:redis-server ip:iproute2 "cc:gcc libc6-dev"; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
# PostgreSQL's server is not on the path, but in a folder that names its version.
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
[ -z "$missing" ] && exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    say "to run every test, install$missing"
    exit 0
fi
say "installing$missing"
apt-get update -qq
# shellcheck disable=SC2086  # a list of packages
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
