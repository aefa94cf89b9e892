#!/bin/sh
# Install what the tests need beside the packages of the dev extra.
set -eu

# Debian packages. None today: the embedded sandbox needs the kernel and this Python, nothing else.
packages=""

[ -n "$packages" ] || exit 0
missing=""
for package in $packages; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq
  # shellcheck disable=SC2086 - a list of names
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
else
  echo "test-setup: the tests need these packages; please install them:$missing" >&2
  exit 1
fi
