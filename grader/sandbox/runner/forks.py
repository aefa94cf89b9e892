"""What a zygote does for each sample: take the request, clone, answer, let go of the descriptors.

It is a batch of system calls that begins again and again, so that no Python runs between two samples: each page that
the interpreter writes to after a clone is copied, in the zygote as well as in the new process.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NoReturn

from . import kernel
from .batch import POSITIVE, Batch

if TYPE_CHECKING:
    from .confine import Confinement

DONE = b"+"
PID = struct.Struct("<q")
_REQUEST = struct.Struct("=2I")  # by its length it is known: every other message is longer
_LONGEST_MESSAGE = 256
_RIGHTS_HEADER = 16  # struct cmsghdr


def request(handles: int, user: int) -> bytes:
    """Return the message that asks for a process: how many descriptors come with it, and its user."""
    return _REQUEST.pack(handles, user)


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = [
        ("name", ctypes.c_void_p), ("name_size", ctypes.c_uint32), ("vector", ctypes.c_void_p),
        ("vectors", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    ]  # fmt: skip


class _Received(ctypes.Structure):
    """What recvmsg(2) writes to."""

    _fields_ = [("header", _Header), ("message", ctypes.c_ubyte * _LONGEST_MESSAGE)]


class Forks:
    """Requests that come over the descriptor ``socket``, with ``handles`` descriptors at most; their processes are
    cloned into new ``namespaces``."""

    def __init__(self, socket: int, handles: int, namespaces: int) -> None:
        self._received = received = _Received()
        message = ctypes.addressof(received) + _Received.message.offset
        self._words = memoryview(received).cast("B")[_Received.message.offset :].cast("I")
        vector = _Vector(message, _LONGEST_MESSAGE)
        rights = ctypes.create_string_buffer(_RIGHTS_HEADER + 4 * handles + 4)
        header = _Header(
            vector=ctypes.addressof(vector),
            vectors=1,
            control=ctypes.addressof(rights),
            control_size=len(rights),
        )
        self._kept = vector, rights  # the header has their addresses
        answer = ctypes.create_string_buffer(DONE + bytes(PID.size), len(DONE) + PID.size)
        flags = namespaces | kernel.SIBLING | kernel.CLONE_PARENT_SETTID
        self._batch = batch = Batch()
        batch.add_copy(received, _Received(header), ctypes.sizeof(received))
        batch.add("recvmsg", kernel.SYS_RECVMSG, socket, received, 0, expected=_REQUEST.size)
        pid = ctypes.addressof(answer) + len(DONE)
        batch.add("clone", kernel.SYS_CLONE, flags, 0, pid, 0, 0, expected=POSITIVE)
        batch.add("sendto", kernel.SYS_SENDTO, socket, answer, len(answer), 0, 0, 0, expected=len(answer))
        batch.add("close_range", kernel.SYS_CLOSE_RANGE, 0, handles - 1, 0)
        batch.seal(endless=True)

    def serve(self, main: Callable[[Confinement, int], NoReturn], ways: Mapping[int, Confinement]) -> bytes:
        """Take requests, and run ``main`` in each new process, with the way for as many descriptors as it has and its
        user. Returns a message that is no request; an empty one at the end of all.

        Raises OSError, which names the call that went wrong; the descriptors of the request are still open then.
        """
        words = self._words
        run, address, where = self._batch.way_to_run()
        result = run(address, where)
        if result == 0 and words[0]:
            main(ways[words[0]], words[1])
        if result < 0:
            raise OSError(-result, f"{self._batch.failed()}: {os.strerror(-result)}")
        return bytes(self._received.message)[:result]
