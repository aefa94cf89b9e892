#!/bin/sh
# make-venv.sh PYTHON FOLDER: make a virtual environment, or say what is missing for one.
set -eu
python=$1 folder=$2

fail() {
  echo "make-venv: $*" >&2
  exit 1
}

command -v "$python" >/dev/null 2>&1 ||
  fail "there is no $python; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.11"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$python is Python $version; 3.11 or newer is needed: make PYTHON=/path/to/python3.11"

if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c "import sys, pip
sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null; then
  exit 0
fi

# Debian and Ubuntu ship ensurepip, without which an environment has no pip, in a package of its own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  package=python$version-venv
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "make-venv: installing $package"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package"
  else
    fail "$python cannot make virtual environments; on Debian and Ubuntu: sudo apt-get install $package"
  fi
fi
[ ! -e "$folder/pyvenv.cfg" ] || rm -rf "$folder"
"$python" -m venv "$folder"
