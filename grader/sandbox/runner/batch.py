"""Many system calls in a row, made by one call from Python.

A sample's process makes about eighty of them before its program runs. Through Python each would cost more than in the
kernel, most of all because every page that the interpreter writes to after the clone is copied. So they are written
down beforehand, in the zygote, and made by a loop of machine code that reads the list and writes nothing.
"""

from __future__ import annotations

import ctypes
import os

# x86-64, System V calling convention: rdi has the address of the first entry.
_CODE = bytes.fromhex(
    "f30f1efa"  #        endbr64
    "53"  #              push rbx
    "4889fb"  #          mov rbx, rdi
    "488b03"  #    next: mov rax, [rbx]        the call's number
    "4885c0"  #          test rax, rax
    "782f"  #            js done               a negative one ends the list
    "488b7b08"  #        mov rdi, [rbx+8]      its six arguments
    "488b7310"  #        mov rsi, [rbx+16]
    "488b5318"  #        mov rdx, [rbx+24]
    "4c8b5320"  #        mov r10, [rbx+32]
    "4c8b4328"  #        mov r8, [rbx+40]
    "4c8b4b30"  #        mov r9, [rbx+48]
    "0f05"  #            syscall
    "483b4338"  #        cmp rax, [rbx+56]     what it must return
    "7506"  #            jne failed
    "4883c340"  #        add rbx, 64
    "ebd2"  #            jmp next
    "48894338"  #  failed: mov [rbx+56], rax   what it returned instead
    "4889d8"  #          mov rax, rbx
    "5b"  #              pop rbx
    "c3"  #              ret                   the address of the entry that failed
    "31c0"  #      done: xor eax, eax
    "5b"  #              pop rbx
    "c3"  #              ret                   0
)
_END = -1
_PAGE = 4096
_READ, _WRITE, _EXECUTE, _PRIVATE_ANONYMOUS = 0x1, 0x2, 0x4, 0x22  # the module mmap would be one more to map

# PyDLL keeps the interpreter lock during a call.
_libc = ctypes.PyDLL(None, use_errno=True)


class _Call(ctypes.Structure):
    _fields_ = [("number", ctypes.c_long), ("arguments", ctypes.c_long * 6), ("expected", ctypes.c_long)]


class Batch:
    """System calls in the order in which they are to be made, each with the one result that lets the next be made."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._calls: list[_Call] = []
        self._kept: list[object] = []  # what the kernel will be given addresses of
        self._list: ctypes.Array[_Call] | None = None
        self._address = 0

    def add(self, name: str, number: int, *arguments: object, expected: int = 0) -> None:
        """Add a call; an argument is a number, bytes, or a ctypes object whose address is meant."""
        self._names.append(name)
        registers = [self._register(argument) for argument in arguments]
        self._calls.append(_Call(number, (ctypes.c_long * 6)(*registers), expected))

    def _register(self, argument: object) -> int:
        if isinstance(argument, int):
            return ctypes.c_long(argument).value
        if isinstance(argument, bytes):
            argument = ctypes.create_string_buffer(argument)
        self._kept.append(argument)
        return ctypes.addressof(argument)  # type: ignore[arg-type]

    def seal(self) -> None:
        """Make the list; no call can be added any more."""
        self._list = (_Call * (len(self._calls) + 1))(*self._calls, _Call(_END))
        self._address = ctypes.addressof(self._list)

    def run(self) -> None:
        """Make the calls. Raises OSError at the first that does not return what it must."""
        failed = _run(self._address)
        if failed:
            assert self._list is not None
            index = (failed - self._address) // ctypes.sizeof(_Call)
            result = self._list[index].expected
            what = os.strerror(-result) if result < 0 else f"it returned {result}"
            raise OSError(max(-result, 0), f"{self._names[index]}: {what}")


def _executable(code: bytes) -> int:
    """Put machine code where it can be run and no longer be written to; returns its address."""
    _libc.mmap.restype = ctypes.c_void_p
    _libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    _libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    address = _libc.mmap(None, _PAGE, _READ | _WRITE, _PRIVATE_ANONYMOUS, -1, 0)
    if address is None or address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap for the batch of system calls")
    ctypes.memmove(address, code, len(code))
    if _libc.mprotect(address, _PAGE, _READ | _EXECUTE) != 0:
        raise OSError(
            ctypes.get_errno(), "mprotect for the batch of system calls: the kernel lets no memory be run"
        )
    return int(address)


_run = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_long)(_executable(_CODE))
