#!/bin/sh
# Run pytest with a Docker daemon that answers. Usage: scripts/run-tests.sh PYTHON [PYTEST ARGUMENT ...]
#
# As root, installs and starts one where none answers, and stops it afterwards: tests leave nothing behind. As another
# user without one, says what to do; the tests that need it are then skipped, or with CI=true fail.
set -eu

state=${GRADER_DOCKER_STATE:-/run/grader-docker}
python=$1
shift

sh scripts/install-test-tools.sh
started=
if docker info >/dev/null 2>&1; then
    # Installs what else the tests need, and says what this daemon lacks; the tests that need none of it run anyway.
    sh scripts/start-docker.sh || true
elif [ "$(id -u)" -eq 0 ]; then
    sh scripts/start-docker.sh
    started=yes
else
    echo "run-tests: no Docker daemon answers; to test container cells, have root run scripts/start-docker.sh" >&2
fi

clock=tests/e2e/test_clock_is_set.py
chosen=
for argument; do
    case $argument in tests | tests/*) chosen=yes ;; esac
done
status=0
if [ -n "$chosen" ]; then
    "$python" -m pytest "$@" || status=$?
else
    # Clusters of a dozen processes each come one after the other, when nothing else runs. 5: no test was chosen.
    for alone in tests/cluster $clock; do
        result=0
        "$python" -m pytest $alone "$@" || result=$?
        [ "$result" -eq 0 ] || [ "$result" -eq 5 ] || status=$result
    done
    result=0
    # Half as many again as processors: tests wait for containers, services and limits half of their time. Who has
    # nothing left to do takes over half of what another one has.
    processes=$(($(nproc) * 3 / 2))
    "$python" -m pytest -n "$processes" --dist worksteal --ignore=tests/cluster --ignore=$clock "$@" || result=$?
    [ "$result" -eq 0 ] || status=$result
fi

if [ -n "$started" ]; then
    pid=$(cat "$state/dockerd.pid" 2>/dev/null || true)
    if [ -n "$pid" ]; then
        kill "$pid" 2>/dev/null || true
        while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    fi
fi
exit "$status"
