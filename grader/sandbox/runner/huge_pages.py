"""Put the memory of a zygote into huge pages, each piece at the address that it had.

A clone copies the page tables, and an exit goes through them again; what lies together in a huge page the kernel does
many pages at a time. Code mapped from files is copied for the same reason: a new process would else find each piece of
it by a page fault.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from typing import NamedTuple

from . import kernel
from .batch import Batch

_PAGE, _HUGE = 4096, 1 << 21
# By the permissions in maps, proc_pid_maps(5): smaller pieces are not worth it.
_PROTECTIONS = {"rw-p": kernel.READ | kernel.WRITE, "r-xp": kernel.READ | kernel.EXECUTE, "r--p": kernel.READ}
_LEAST_BYTES = {"rw-p": 8 * _PAGE, "r-xp": 1 << 20, "r--p": 1 << 18}
_NOT_TO_BE_MOVED = ("[stack]", "[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]")
_LEAST_ABSENT = 32  # pages at the end of a piece, to leave them out: it makes one piece more
_PRESENT = 1 << 63  # in an entry of pagemap, proc_pid_pagemap(5)


_copied: set[int] = set()  # where code begins that was moved, here or in the zygote that this one was cloned from


class _Piece(NamedTuple):
    start: int
    end: int
    protection: int


def move_in(proc: int) -> None:
    """Move this process's memory and large pieces of code; ``proc`` is a procfs descriptor.

    Where the kernel has no huge pages for it, or does not let a piece be moved, that stays where it is: it costs time
    alone.
    """
    with contextlib.suppress(OSError):
        pieces = _pieces(proc)
        memory = os.open("self/mem", os.O_RDONLY, dir_fd=proc)
        size = -(-sum(piece.end - piece.start for piece in pieces) // _HUGE) * _HUGE
        start = kernel.map_memory(size + _HUGE)
        try:
            place = -(-start // _HUGE) * _HUGE
            for page in range(place, place + size, _HUGE):
                ctypes.memset(page, 0, 1)  # what is empty cannot be made one page
            kernel.advise_memory(place, size, kernel.MADV_COLLAPSE)
            for piece in pieces:
                with contextlib.suppress(OSError):
                    _move(piece, memory, place)
                place += piece.end - piece.start
        finally:
            kernel.unmap_memory(start, size + _HUGE)  # what is left of it
            os.close(memory)


def _move(piece: _Piece, memory: int, place: int) -> None:
    """Move a piece by one call: the interpreter may not write to it between the copy and the move.

    It is copied by the kernel, which says so if the interpreter has let go of some of it meanwhile.
    """
    start, size = piece.start, piece.end - piece.start
    batch = Batch()
    batch.add("pread", kernel.SYS_PREAD, memory, place, size, start, expected=size)
    batch.add("mprotect", kernel.SYS_MPROTECT, place, size, piece.protection)
    batch.add("mremap", kernel.SYS_MREMAP, place, size, size, kernel.MREMAP_HERE, start, expected=start)
    batch.seal()
    batch.run()
    if not piece.protection & kernel.WRITE:
        _copied.add(start)


def _pieces(proc: int) -> list[_Piece]:
    with os.fdopen(os.open("self/maps", os.O_RDONLY, dir_fd=proc)) as maps:
        lines = maps.read().splitlines()
    pagemap = os.open("self/pagemap", os.O_RDONLY, dir_fd=proc)
    try:
        found = [_piece(line, pagemap) for line in lines]
    finally:
        os.close(pagemap)
    return [piece for piece in found if piece is not None]


def _piece(line: str, pagemap: int) -> _Piece | None:
    """What of a mapping is to be moved: memory up to its last page that is there, code where half of it is there."""
    place, permissions, _, _, _, *name = line.split()
    start, end = (int(address, 16) for address in place.split("-"))
    if end - start < _LEAST_BYTES.get(permissions, end) or (name and name[0] in _NOT_TO_BE_MOVED):
        return None
    present = _present(pagemap, start, end)
    if permissions == "rw-p":
        absent = next((number for number, there in enumerate(reversed(present)) if there), len(present))
        if absent >= _LEAST_ABSENT:
            end -= absent * _PAGE
    elif start in _copied or 2 * sum(present) < len(present):
        return None
    return _Piece(start, end, _PROTECTIONS[permissions])


def _present(pagemap: int, start: int, end: int) -> list[bool]:
    pages = (end - start) // _PAGE
    entries = struct.unpack(f"={pages}Q", os.pread(pagemap, 8 * pages, start // _PAGE * 8))
    return [bool(entry & _PRESENT) for entry in entries]
