#!/bin/sh
# Make a Docker daemon answer on this machine, with gVisor as the runtime "runsc", for tests and development.
#
# Usage: scripts/start-docker.sh     (as root, unless a daemon answers already)
#
# Installs what is missing with apt-get (Debian, Ubuntu), as root also where a daemon answers: tests need runsc and
# mmdebstrap too. Leaves a running daemon and /etc/docker alone: our settings are in a file of their own, beside the
# daemon's log and process id. So runsc is registered only with a daemon that this script starts.
set -eu

state=${GRADER_DOCKER_STATE:-/run/grader-docker}
wait_s=60

say() { echo "start-docker: $*" >&2; }

running=
docker info >/dev/null 2>&1 && running=yes

if [ -z "$running" ] && [ "$(id -u)" != 0 ]; then
    say "no Docker daemon answers, and only root can start one: run this script as root"
    exit 1
fi

wanted="runsc:runsc mmdebstrap:mmdebstrap"
[ -n "$running" ] || wanted="dockerd:docker.io $wanted" # one that answers may be another package's, or remote
missing=
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ] && [ "$(id -u)" != 0 ]; then
    say "to run every test, have root install$missing"
elif [ -n "$missing" ]; then
    command -v apt-get >/dev/null 2>&1 || { say "install$missing: this machine has no apt-get"; exit 1; }
    say "installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
fi

if [ -n "$running" ]; then
    docker info --format '{{json .Runtimes}}' | grep -q '"runsc"' || {
        say "the running daemon has no runtime runsc, and is left as it is: without it the gVisor tests are skipped, or"
        say "with CI=true fail. To have them run, add this to /etc/docker/daemon.json and restart the daemon:"
        say '  {"runtimes": {"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--platform=ptrace", "--network=none"]}}}'
        say "or stop the daemon: scripts/run-tests.sh then starts one of its own, with runsc"
    }
    exit 0
fi

mkdir -p "$state"
# Cells have no network, so the daemon needs none either: that leaves out iptables, which not every machine has.
# The platform ptrace needs neither KVM nor a particular kernel, so that it runs in a virtual machine too.
cat >"$state/daemon.json" <<JSON
{
  "storage-driver": "overlay2",
  "iptables": false,
  "bridge": "none",
  "runtimes": {
    "runsc": {"path": "$(command -v runsc)", "runtimeArgs": ["--platform=ptrace", "--network=none"]}
  }
}
JSON
nohup dockerd --config-file "$state/daemon.json" --pidfile "$state/dockerd.pid" >"$state/dockerd.log" 2>&1 </dev/null &

tries=0
until docker info >/dev/null 2>&1; do
    tries=$((tries + 1))
    if [ "$tries" -ge $((wait_s * 5)) ] || ! kill -0 $! 2>/dev/null; then
        say "dockerd did not start; the end of $state/dockerd.log:"
        tail -n 15 "$state/dockerd.log" >&2
        exit 1
    fi
    sleep 0.2
done
say "dockerd runs; its log is $state/dockerd.log, its process id is in $state/dockerd.pid"
