"""A zygote's loop, made for real in a process of its own: what is asked for is cloned, what is not is handed on."""

from __future__ import annotations

import array
import os
import select
import socket
import subprocess
import sys
import textwrap

import pytest

from grader.sandbox.runner import forks

_ZYGOTE = textwrap.dedent(
    """
    import os, sys
    from grader.sandbox.runner import forks

    def main(way, user):
        os.write(0, f"{way} {user} {os.getpid()} {sorted(os.listdir('/proc/self/fd'))}".encode())
        os._exit(0)

    number = int(sys.argv[1])
    os.dup2(number, 10)
    os.close(number)
    os.closerange(0, 3)
    zygote = forks.Forks(10, 3, int(sys.argv[2]))
    while True:
        try:
            message = zygote.serve(main, {1: "one", 2: "two", 3: "three"})
        except OSError as error:
            os.write(10, b"!" + str(error).encode())
            os.closerange(0, 3)
        else:
            if not message:
                break
            os.write(10, b"other: " + message)
    os._exit(7)
    """
)


class Zygote:
    """The other end of a process that serves requests."""

    def __init__(self, namespaces: int) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(60)
        command = [sys.executable, "-c", _ZYGOTE, str(theirs.fileno()), str(namespaces)]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        theirs.close()

    def ask(self, message: bytes, handles: tuple[int, ...] = ()) -> bytes:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handles))] if handles else []
        self.socket.sendmsg([message], rights)
        return self.socket.recv(4096)


@pytest.fixture
def zygote():
    made = Zygote(0)
    yield made
    made.socket.close()
    made.process.wait(60)


def cloned(zygote: Zygote, handles: int, user: int = 0) -> tuple[bytes, str]:
    reader, writer = os.pipe()
    answer = zygote.ask(forks.request(handles, user), (writer,) * handles)
    os.close(writer)
    with os.fdopen(reader, "rb", buffering=0) as said:
        # It ends when nobody has the other end any more: not the zygote either.
        assert select.select([said], [], [], 60)[0], "the zygote has kept the descriptors of a request"
        return answer, said.read(4096).decode()


def test_each_process_gets_the_way_for_its_descriptors_and_its_user(zygote):
    for _ in range(3):
        for handles, way in ((1, "one"), (3, "three"), (2, "two")):
            answer, said = cloned(zygote, handles, user=70_000 + handles)
            (pid,) = forks.PID.unpack(answer[1:])
            number, user, own, *descriptors = said.split(maxsplit=3)
            assert (answer[:1], number, user, own) == (b"+", way, str(70_000 + handles), str(pid))
            # Those that came, the socket, and the one that lists them: none is left of the requests before.
            assert descriptors == [str(sorted([*map(str, range(handles)), "10", str(handles)]))]
            os.waitpid(pid, 0)  # they are ours: the zygote's siblings


def test_other_messages_are_handed_on_and_requests_served_after_them(zygote):
    assert zygote.ask(b"another message") == b"other: another message"
    assert zygote.ask(b"and a longer one" * 4) == b"other: " + b"and a longer one" * 4
    answer, said = cloned(zygote, 1)
    assert said.startswith("one 0 ")
    os.waitpid(forks.PID.unpack(answer[1:])[0], 0)
    assert zygote.ask(b"another message") == b"other: another message"


def test_it_ends_with_its_socket(zygote):
    answer, _ = cloned(zygote, 1)
    os.waitpid(forks.PID.unpack(answer[1:])[0], 0)
    zygote.socket.close()
    assert zygote.process.wait(60) == 7


def test_a_clone_that_the_kernel_refuses_is_an_error_and_not_the_end():
    made = Zygote(0x200 | 0x10000000)  # CLONE_FS does not go with a new user namespace
    try:
        for _ in range(2):
            answer, said = cloned(made, 2)
            assert answer.startswith(b"![Errno 22] clone: ")
            assert said == ""
    finally:
        made.socket.close()
        made.process.wait(60)
