"""What Landlock keeps a process from, alone: in a cell, other layers stand before most of it.

Each is tried before and after, in a process of its own, so that a refusal is Landlock's.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import uuid

import pytest

from grader.sandbox.runner import landlock

_PROCESS = textwrap.dedent(
    """
    import json, os, socket, sys
    from grader.sandbox.runner import kernel, landlock
    from grader.sandbox.runner.batch import Batch

    scratch, outside, abstract, port = sys.argv[1:]

    def signal():
        os.kill(os.getppid(), 0)

    def connect(family, address):
        with socket.socket(family) as one:
            one.connect(address)

    def bind():
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))

    def execute():
        if (pid := os.fork()) == 0:
            try:
                os.execv("/bin/true", ["true"])
            except OSError as error:
                os._exit(error.errno)
        if (code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])):
            raise OSError(code, os.strerror(code))

    def write(folder):
        with open(os.path.join(folder, "file"), "w") as file:
            file.write("text")

    DOORS = {
        "signal": signal,
        "abstract": lambda: connect(socket.AF_UNIX, chr(0) + abstract),
        "connect": lambda: connect(socket.AF_INET, ("127.0.0.1", int(port))),
        "bind": bind,
        "execute": execute,
        "write outside": lambda: write(outside),
        "write to scratch": lambda: write(scratch),
        "read": lambda: open("/etc/passwd").read(),
    }

    def tried():
        said = {}
        for name, door in DOORS.items():
            try:
                door()
                said[name] = "open"
            except OSError as error:
                said[name] = type(error).__name__
        return said

    before = tried()
    root, null = os.open("/", os.O_PATH), os.open("/dev/null", os.O_RDWR)
    free = os.dup(0)
    os.close(free)
    batch = Batch()
    batch.add("no_new_privs", kernel.SYS_PRCTL, kernel.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    landlock.add_to(batch, landlock.abi_version(), scratch, [landlock.Readable(root, True)], null, free)
    batch.seal()
    batch.run()
    print(json.dumps({"before": before, "after": tried()}))
    """
)
# The kernel's interface from which on it is refused.
_SINCE = {"write outside": 1, "execute": 1, "connect": 4, "bind": 4, "signal": 6, "abstract": 6}


@pytest.fixture(scope="module")
def tried(tmp_path_factory):
    if not landlock.abi_version():
        reason = "this kernel has no Landlock, or it is switched off: CONFIG_SECURITY_LANDLOCK, lsm=landlock"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    scratch, outside = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("outside")
    abstract = f"grader-{uuid.uuid4()}"
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket(socket.AF_UNIX) as named:
        named.bind("\0" + abstract)
        named.listen(8)
        arguments = [str(scratch), str(outside), abstract, str(listening.getsockname()[1])]
        ended = subprocess.run(
            [sys.executable, "-c", _PROCESS, *arguments],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    return json.loads(ended.stdout)


def test_all_of_it_can_be_done_without(tried):
    assert set(tried["before"].values()) == {"open"}


@pytest.mark.parametrize("door", _SINCE)
def test_it_is_refused(tried, door):
    if landlock.abi_version() >= _SINCE[door]:
        assert tried["after"][door] == "PermissionError"


def test_what_a_sample_needs_is_left(tried):
    assert (tried["after"]["write to scratch"], tried["after"]["read"]) == ("open", "open")
