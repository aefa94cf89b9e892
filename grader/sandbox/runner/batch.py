"""Many system calls in a row, made by one call from Python.

A sample's process makes about eighty of them before its program runs, and a zygote four for each sample. Through Python
each would cost more than in the kernel, most of all because every page that the interpreter writes to after a clone is
copied. So they are written down beforehand, in the zygote, and made by a loop of machine code that reads the list and
writes nothing.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

from . import kernel

# x86-64, System V calling convention: rdi has the address of the first entry, rsi that of where to leave one.
_CODE = bytes.fromhex(
    "f30f1efa"  #          endbr64
    "53"  #                push rbx
    "56"  #                push rsi
    "4889fb"  #            mov rbx, rdi
    "488b03"  #      next: mov rax, [rbx]        the call's number
    "4885c0"  #            test rax, rax
    "7833"  #              js other              a negative one is no call
    "488b7b08"  #          mov rdi, [rbx+8]      its six arguments
    "488b7310"  #          mov rsi, [rbx+16]
    "488b5318"  #          mov rdx, [rbx+24]
    "4c8b5320"  #          mov r10, [rbx+32]
    "4c8b4328"  #          mov r8, [rbx+40]
    "4c8b4b30"  #          mov r9, [rbx+48]
    "0f05"  #              syscall
    "488b4b38"  #          mov rcx, [rbx+56]     what it must return:
    "4839c8"  #            cmp rax, rcx          just that
    "740a"  #              je passed
    "4885c9"  #            test rcx, rcx         or, where this is negative,
    "792d"  #              jns failed
    "4885c0"  #            test rax, rax         anything above 0
    "7e28"  #              jle failed
    "4883c340"  #  passed: add rbx, 64
    "ebc5"  #              jmp next
    "48ffc0"  #     other: inc rax
    "741b"  #              jz done               -1: the end
    "48ffc0"  #            inc rax
    "7410"  #              jz again              -2: go on from another entry
    "488b7b08"  #          mov rdi, [rbx+8]      -3: copy to here
    "488b7310"  #          mov rsi, [rbx+16]     from here
    "488b4b18"  #          mov rcx, [rbx+24]     so many bytes
    "f3a4"  #              rep movsb
    "ebe0"  #              jmp passed
    "488b5b08"  #   again: mov rbx, [rbx+8]
    "eba5"  #              jmp next
    "31db"  #        done: xor ebx, ebx
    "5e"  #        failed: pop rsi
    "48891e"  #            mov [rsi], rbx        the address of the entry that failed, or 0
    "5b"  #                pop rbx
    "c3"  #                ret                   what the last call returned; 0 at the end
)
_END, _AGAIN, _COPY = -1, -2, -3
POSITIVE = -(1 << 63)  # no call returns that
_PAGE = 4096


class _Entry(ctypes.Structure):
    _fields_ = [("number", ctypes.c_long), ("arguments", ctypes.c_long * 6), ("expected", ctypes.c_long)]


class Batch:
    """System calls in the order in which they are to be made, each with the result that lets the next be made."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._entries: list[_Entry] = []
        self._kept: list[object] = []  # what the kernel will be given addresses of
        self._list: ctypes.Array[_Entry] | None = None
        self._address = 0
        self._failed = ctypes.c_long()
        self._failed_address = ctypes.addressof(self._failed)

    def add(self, name: str, number: int, *arguments: object, expected: int = 0) -> None:
        """Add a call; an argument is a number, bytes, or a ctypes object whose address is meant. With POSITIVE, any
        result above 0 is expected."""
        self._add(name, number, arguments, expected)

    def add_copy(self, target: object, source: object, size: int) -> None:
        """Add a copy of ``size`` bytes of memory, each given as an argument is."""
        self._add("copy", _COPY, (target, source, size), 0)

    def _add(self, name: str, number: int, arguments: tuple[object, ...], expected: int) -> None:
        self._names.append(name)
        registers = [self._register(argument) for argument in arguments]
        self._entries.append(_Entry(number, (ctypes.c_long * 6)(*registers), expected))

    def _register(self, argument: object) -> int:
        if isinstance(argument, int):
            return ctypes.c_long(argument).value
        if isinstance(argument, bytes):
            argument = ctypes.create_string_buffer(argument)
        self._kept.append(argument)
        return ctypes.addressof(argument)  # type: ignore[arg-type]

    def seal(self, *, endless: bool = False) -> None:
        """Make the list; no call can be added any more. ``endless``: begin again after the last."""
        self._list = (_Entry * (len(self._entries) + 1))(*self._entries, _Entry(_END))
        self._address = ctypes.addressof(self._list)
        if endless:
            self._list[-1] = _Entry(_AGAIN, (ctypes.c_long * 6)(self._address))

    def run(self) -> None:
        """Make the calls. Raises OSError at the first that does not return what it must."""
        result = _run(self._address, self._failed_address)
        if self._failed.value:
            what = os.strerror(-result) if result < 0 else f"it returned {result}"
            raise OSError(max(-result, 0), f"{self.failed()}: {what}")

    def way_to_run(self) -> tuple[Callable[[int, int], int], int, int]:
        """Return a function and its two arguments, for who may not touch more: it makes the calls, and returns what the
        one returned that ended them, whose name ``failed`` has."""
        return _run, self._address, self._failed_address

    def failed(self) -> str:
        """Return the name of the call that did not return what it must the last time; empty where all did."""
        address = self._failed.value
        return self._names[(address - self._address) // ctypes.sizeof(_Entry)] if address else ""


def _executable(code: bytes) -> int:
    """Put machine code where it can be run and no longer be written to; returns its address."""
    address = kernel.map_memory(_PAGE)
    ctypes.memmove(address, code, len(code))
    kernel.protect_memory(address, _PAGE, kernel.READ | kernel.EXECUTE)
    return address


# The interpreter's lock is kept during a call.
_run: Callable[[int, int], int] = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_long, ctypes.c_long)(
    _executable(_CODE)
)
