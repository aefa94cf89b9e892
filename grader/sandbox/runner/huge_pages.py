"""Put the memory of a zygote into huge pages, each piece at the address that it had.

A clone copies the page tables, and an exit goes through them again; what lies together in a huge page the kernel does
many pages at a time. Code mapped from files is copied for the same reason: a new process would else find each piece of
it by a page fault. It then is one mapping a library, instead of one for each kind of its parts.
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
_MEMORY, _CODE = kernel.READ | kernel.WRITE, kernel.READ | kernel.EXECUTE
_LEAST_MEMORY = 8 * _PAGE  # less is not worth it
_LEAST_ABSENT = 32  # pages at the end of a piece, to leave them out: it makes one piece more
_PRESENT = 1 << 63  # in an entry of pagemap, proc_pid_pagemap(5)

_RESERVED = 256 << 20  # addresses, of which no more is used than there are pieces for

# Where code is that was moved before, here or in the zygote that this one was cloned from.
_copied: set[int] = set()


class _Piece(NamedTuple):
    start: int
    end: int
    protection: int

    @property
    def size(self) -> int:
        return self.end - self.start


def move_in(proc: int) -> None:
    """Move this process's memory and large pieces of code; ``proc`` is a procfs descriptor.

    Where the kernel has no huge pages for it, or does not let a piece be moved, that stays where it is: it costs time
    alone.
    """
    with contextlib.suppress(OSError):
        # Before the pieces are looked for, and not to be used yet: so it is beside all of them, and none of them.
        reserved = kernel.map_memory(_RESERVED + _HUGE, 0)
        try:
            _move_all(_pieces(proc), proc, -(-reserved // _HUGE) * _HUGE)
        finally:
            kernel.unmap_memory(reserved, _RESERVED + _HUGE)  # what is left of it


def _move_all(pieces: list[_Piece], proc: int, base: int) -> None:
    offsets, size = _layout(pieces)
    if size > _RESERVED:
        return
    kernel.protect_memory(base, size, _MEMORY)
    for page in range(base, base + size, _HUGE):
        ctypes.memset(page, 0, 1)  # what is empty cannot be made one page
    kernel.advise_memory(base, size, kernel.MADV_COLLAPSE)
    memory = os.open("self/mem", os.O_RDONLY, dir_fd=proc)
    try:
        for piece, offset in zip(pieces, offsets, strict=True):
            with contextlib.suppress(OSError):
                _move(piece, memory, base + offset)
    finally:
        os.close(memory)


def _layout(pieces: list[_Piece]) -> tuple[list[int], int]:
    """Where each piece goes in a row of huge pages, and how much that is. The huge pages in long code stay whole."""
    offsets, size = [], 0
    for piece in pieces:
        if piece.protection == _CODE and piece.size >= 2 * _HUGE:
            size += (piece.start - size) % _HUGE
        offsets.append(size)
        size += piece.size
    return offsets, -(-size // _HUGE) * _HUGE


def _move(piece: _Piece, memory: int, place: int) -> None:
    """Move a piece by one call: the interpreter may not write to it between the copy and the move.

    It is copied by the kernel, which says so if the interpreter has let go of some of it meanwhile.
    """
    start, size = piece.start, piece.size
    batch = Batch()
    batch.add("pread", kernel.SYS_PREAD, memory, place, size, start, expected=size)
    batch.add("mprotect", kernel.SYS_MPROTECT, place, size, piece.protection)
    batch.add("mremap", kernel.SYS_MREMAP, place, size, size, kernel.MREMAP_HERE, start, expected=start)
    batch.seal()
    batch.run()
    if piece.protection == _CODE:
        _copied.add(start)


def _pieces(proc: int) -> list[_Piece]:
    """What is to be moved, the largest first."""
    found: list[_Piece] = []
    with os.fdopen(os.open("self/maps", os.O_RDONLY, dir_fd=proc)) as maps:
        for line in maps:
            place, permissions, _, _, _, *name = line.split()
            start, end = (int(address, 16) for address in place.split("-"))
            if permissions == "rw-p" and (not name or name[0] != "[stack]"):
                protection = _MEMORY
            elif permissions in ("r-xp", "r--p") and name and name[0].startswith("/"):
                protection = _CODE  # constants too: what is one piece is one mapping afterwards
            else:
                continue
            if found and (found[-1].end, found[-1].protection) == (start, protection):
                start = found.pop().start
            found.append(_Piece(start, end, protection))
    pagemap = os.open("self/pagemap", os.O_RDONLY, dir_fd=proc)
    try:
        used = [_used(piece, pagemap) for piece in found]
    finally:
        os.close(pagemap)
    return sorted(filter(None, used), key=lambda piece: -piece.size)


def _used(piece: _Piece, pagemap: int) -> _Piece | None:
    """What of a piece is worth it: memory up to its last page that is there, code of which half is there."""
    start, end, protection = piece
    pages = (end - start) // _PAGE
    entries = struct.unpack(f"={pages}Q", os.pread(pagemap, 8 * pages, start // _PAGE * 8))
    present = [bool(entry & _PRESENT) for entry in entries]
    if protection == _CODE:
        return piece if start not in _copied and 2 * sum(present) >= pages else None
    absent = next((number for number, there in enumerate(reversed(present)) if there), pages)
    if absent >= _LEAST_ABSENT:
        end -= absent * _PAGE
    return _Piece(start, end, protection) if end - start >= _LEAST_MEMORY else None
