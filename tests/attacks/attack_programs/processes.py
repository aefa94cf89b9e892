"""Threads, signals, clocks and objects of the kernel, in ways that programs seldom use (items 44-47, 50, 55-62, 76-78)."""
# ruff: noqa: E501 - a program in one line reads better in a table than one in five

from __future__ import annotations

from attack_programs.frames import TOOLS
from attack_programs.model import (
    HARMLESS,
    MEMORY,
    OUTPUT,
    RUNTIME,
    TIME,
    VIOLATION,
    WRONG,
    Collection,
    calling,
)

ATTACKS = Collection()
_add = ATTACKS.add
_ANY = (*HARMLESS, VIOLATION, TIME)
_LIBC = "import ctypes, os, signal, struct, threading, time\nlibc = ctypes.CDLL(None, use_errno=True)\nheld = []\n"

# The first thread of a process may end without the others. What is seen of it then is seen of a process at its end.
_LEFT = (
    _LIBC
    + """
def leave(behind):
    threading.Thread(target=behind).start()
    libc.syscall(60, 0)
def spin():
    while True: pass
def sleep():
    time.sleep(10**6)
def close_and_sleep():
    time.sleep(0.05); os.close(3); time.sleep(10**6)
def close_and_spin():
    time.sleep(0.05); os.close(3); spin()
def answer():
    time.sleep(0.05); os.write(3, b"\\5\\0\\0\\0Vi\\1\\0\\0\\0"); time.sleep(10**6)
def leave_too():
    time.sleep(0.05); libc.syscall(60, 9)
def exit_with_nine():
    time.sleep(0.05); os._exit(137)
"""
)
for _name, _statuses in {
    "spin": (TIME,), "sleep": (TIME,), "close_and_sleep": (RUNTIME,), "close_and_spin": (RUNTIME,), "answer": (WRONG,), "leave_too": (RUNTIME,), "exit_with_nine": (RUNTIME,),
}.items():  # fmt: skip
    for _task in ("int", "stdio", "asserted"):
        _further = _ANY if _task != "int" else ()
        _source = _LEFT + (
            f"def solve(*arguments):\n    leave({_name})\n" if _task != "stdio" else f"leave({_name})\n"
        )
        _add(f"first-thread-ends-{_name}-{_task}", (2, 61, 78), "Only when all threads are at their end is the process.",
             _source, *_statuses, *_further, task=_task, steps=3)  # fmt: skip
    _add(f"first-thread-ends-{_name}-at-load", (2, 61, 63), "The same at load.", _LEFT + f"leave({_name})\n", *_statuses, *_ANY, steps=3)  # fmt: skip

# Signals that nobody sends: by timers, by descriptors, by the kernel.
_SIGNALS = {
    "timer-SIGKILL": "event = struct.pack('<qii48x', 0, 9, 0)", "timer-SIGSTOP": "event = struct.pack('<qii48x', 0, 19, 0)",
    "timer-SIGSEGV": "event = struct.pack('<qii48x', 0, 11, 0)", "timer-thread-SIGKILL": "event = struct.pack('<qiii44x', 0, 9, 4, threading.get_native_id())",
    "timer-SIGSYS": "event = struct.pack('<qii48x', 0, 31, 0)",
}  # fmt: skip
for _name, _event in _SIGNALS.items():
    _add(f"signal-by-{_name}", (55, 62, 78), "The first process of a namespace ignores what it does not handle.", calling(_event + """
        timer = ctypes.c_int()
        assert libc.syscall(222, 1, event, ctypes.byref(timer)) == 0
        libc.syscall(223, timer, 0, struct.pack('<4q', 0, 1000000, 0, 1000000), None)
        time.sleep(0.05)
        """.replace("\n        ", "\n"), _LIBC), *_ANY)  # fmt: skip
for _signal in (9, 19, 11, 31, 6, 64):
    _add(f"signal-by-descriptor-{_signal}", (55, 62, 78), "Neither does a descriptor's event end it from outside.", calling(f"""
        import fcntl
        reader, writer = os.pipe()
        fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid()); fcntl.fcntl(reader, 10, {_signal})
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(writer, b"x"); time.sleep(0.01)
        """, _LIBC), *_ANY)  # fmt: skip
    _add(f"signal-to-itself-{_signal}", (62, 78), "Nor by tkill, with whatever handler there was.", calling(f"""
        for handler in (signal.SIG_DFL, signal.SIG_IGN):
            try: signal.signal({_signal}, handler)
            except (OSError, ValueError): pass
            libc.syscall(200, threading.get_native_id(), {_signal}); libc.syscall(234, 1, 1, {_signal}); os.kill(0, {_signal})
        """, _LIBC), *_ANY)  # fmt: skip
_add("signal-storm", (55, 59), "Timers that fire all the time, in threads of their own.", calling("""
    signal.signal(signal.SIGALRM, lambda *a: None)
    signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6); signal.setitimer(signal.ITIMER_PROF, 1e-6, 1e-6)
    while True: time.sleep(0.01)
    """, _LIBC), TIME)  # fmt: skip
_add("timers-that-fire", (47, 59), "As many timers as there may be, each a microsecond.", calling("""
    signal.signal(signal.SIGRTMIN, signal.SIG_IGN)
    event, timer = struct.pack("<qii48x", 0, 34, 0), ctypes.c_int()
    for _ in range(2000):
        if libc.syscall(222, 1, event, ctypes.byref(timer)): break
        libc.syscall(223, timer, 0, struct.pack("<4q", 0, 1000, 0, 1000), None)
    time.sleep(0.1)
    """, _LIBC), *_ANY, MEMORY)  # fmt: skip

# Clocks and the scheduler.
_CLOCKS = {
    "clock-settime": "time.clock_settime(time.CLOCK_REALTIME, 0)", "clock-settime-raw": "libc.syscall(227, 0, bytes(16))", "adjtimex": "libc.syscall(159, bytes(208))",
    "sched-idle": "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))", "sched-setattr": "assert libc.syscall(314, 0, struct.pack('<IIQ', 48, 5, 0) + bytes(32), 0) == 0",
    "nice": "os.nice(19)", "ioprio": "assert libc.syscall(251, 1, 0, 3 << 13) == 0", "affinity": "os.sched_setaffinity(0, [0])", "timer-slack": "assert libc.prctl(29, 10**9) == 0",
    "limit-of-cpu": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (0, 0))", "limit-of-rttime": "import resource; resource.setrlimit(resource.RLIMIT_RTTIME, (1, 1)); assert 0",
    "cpuid-fault": "libc.syscall(158, 0x1012, 0); libc.syscall(158, 0x1002, 0)", "time-namespace": "libc.syscall(272, 0x80)", "process-clock-set": "time.clock_settime(time.CLOCK_PROCESS_CPUTIME_ID, 0)",
}  # fmt: skip
for _name, _statements in _CLOCKS.items():
    _add(f"clock-{_name}", (59, 70, 76), "Neither time nor priority is a program's to set.", calling(_statements, _LIBC), *HARMLESS, VIOLATION)  # fmt: skip
_add("own-limit-of-cpu", (59, 76), "A limit for which the kernel kills would make the end look like somebody else's doing.", calling("""
    import resource
    for attempt in (lambda: resource.setrlimit(resource.RLIMIT_CPU, (1, 1)), lambda: libc.setrlimit(0, (ctypes.c_ulong * 2)(1, 1))):
        try: attempt()
        except (OSError, ValueError): pass
    while True: pass
    """, _LIBC), TIME)  # fmt: skip
_add("credit-of-a-crowd", (50, 57), "Threads that wait for a processor lend the sleeping one no time.", calling("""
    def work():
        while True:
            for _ in range(1000): pass
            time.sleep(0.001)
    for _ in range(20): threading.Thread(target=work, daemon=True).start()
    time.sleep(10**6)
    """, _LIBC), TIME)  # fmt: skip
_add("short-naps-after-answers", (57, 64), "Each test just within its limits: the group has one of its own.", """
    import time
    def solve(n):
        time.sleep(0.7)
        return n * 7919 + 104729 if n not in (5, 90) else 0
    """, TIME, WRONG, steps=8)  # fmt: skip

# Machine code: other ways into the kernel.
_CODE = """
import ctypes, mmap, os
def run(code, low=False):
    page = mmap.mmap(-1, 1 << 16, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (0x40 if low else 0), prot=7)
    page.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""
# Into 32-bit code by a far return, at an address of 32 bits; there by int 0x80, sysenter or syscall: exit(7), socket, ptrace.
for _number, _call in (
    (1, "exit"),
    (26, "ptrace"),
    (359, "socket"),
    (120, "clone"),
    (21, "mount"),
    (357, "bpf"),
    (425, "io-uring"),
):
    for _way, _opcode in {"int-80": b"\xcd\x80", "sysenter": b"\x0f\x34", "syscall": b"\x0f\x05"}.items():
        _inner = b"\xb8" + _number.to_bytes(4, "little") + b"\xbb\x11\0\0\0" + _opcode + b"\xf4"
        _far = b"\x6a\x23" + b"\x68\0\0\0\0"  # push 0x23; push the address that is put in
        _add(f"compatibility-{_way}-{_call}", (76, 77), "The filter asks for the architecture first.", calling(f"""
            inner, far = {_inner!r}, {_far!r}
            page = mmap.mmap(-1, 1 << 16, flags=0x62, prot=7)
            at = ctypes.addressof(ctypes.c_char.from_buffer(page))
            page[256:256 + len(inner)] = inner
            code = far[:3] + (at + 256 & 0xffffffff).to_bytes(4, "little") + b"\\x48\\xcb"
            page[:len(code)] = code
            ctypes.CFUNCTYPE(ctypes.c_long)(at)()
            """, "import ctypes, mmap"), RUNTIME, VIOLATION)  # fmt: skip
for _name, _code in {
    "vsyscall-time": b"\x48\xc7\xc0\0\x04\x60\xff\x31\xff\xff\xe0", "vsyscall-middle": b"\x48\xc7\xc0\x05\0\x60\xff\xff\xe0", "wrfsbase": b"\x31\xc0\xf3\x48\x0f\xae\xd0\xc3",
    "rdpmc": b"\x31\xc9\x0f\x33\xc3", "rdmsr": b"\x0f\x32\xc3", "in": b"\xe4\x60\xc3", "cli": b"\xfa\xc3", "lgdt": b"\x0f\x01\x10\xc3", "xbegin": b"\xc7\xf8\0\0\0\0\xc3",
    "vmcall": b"\x0f\x01\xc1\xc3", "trap-flag": b"\x9c\x81\x0c\x24\0\x01\0\0\x9d\x90\xc3", "alignment": b"\x9c\x81\x0c\x24\0\0\x04\0\x9d\xc3", "int-3": b"\xcc\xc3", "int-1": b"\xf1\xc3",
    "ud2": b"\x0f\x0b", "syscall-high-bits": b"\x48\xb8\x65\0\0\0\xff\xff\xff\x7f\x31\xff\x0f\x05\xc3", "syscall-negative": b"\x48\xc7\xc0\xff\xff\xff\xff\x0f\x05\xc3",
}.items():  # fmt: skip
    _add(
        f"machine-{_name}",
        (76, 77),
        "Ends the process or does nothing.",
        calling(f"run({_code!r})", _CODE),
        *_ANY,
    )

# Kernel objects, and memory that is not a process's own.
# A page of page tables for every page that is looked at, in as much as may be mapped; nothing is resident.
TABLES = """
import mmap
size = 1 << 40
while size >= 1 << 21:
    try: held.append(mmap.mmap(-1, size, flags=0x4022))
    except OSError: size //= 2
for m in held[:]:
    for at in range(0, len(m), 1 << 21): m[at]
"""
_HOGS = {
    "page-tables": TABLES, "page-tables-and-pages": TABLES + "held.append(bytearray(b'x' * (1 << 20)) * 500)",
    "page-tables-and-spin": TABLES + "while True: pass",
    "mappings": "import mmap\nwhile True: held.append(mmap.mmap(-1, 4096, prot=len(held) % 2 + 1, flags=0x22))",
    "split-mapping": "import mmap\nm = mmap.mmap(-1, 1 << 32, flags=0x4022); at = ctypes.addressof(ctypes.c_char.from_buffer(m))\nfor n in range(0, 1 << 32, 8192): libc.mprotect(ctypes.c_void_p(at + n), 4096, 0)",
    "huge-pages": "import mmap\nheld.append(mmap.mmap(-1, 1 << 30, flags=0x40022))",
    "grows-down": "import mmap\nm = mmap.mmap(-1, 1 << 16, flags=0x122)\nctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(m)) - (1 << 26), 1, 1 << 26)",
    "locked": "libc.mlockall(7); held.append(bytearray(b'x' * (1 << 20)) * 200)",
    "wide-pipes": "import fcntl\nwhile True:\n    r, w = os.pipe(); os.set_blocking(w, False); held.append((r, w))\n    fcntl.fcntl(w, 1031, 1 << 20); os.write(w, bytes(1 << 20))",
    "datagrams": "import socket\nwhile True:\n    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); held.append(pair); pair[0].setblocking(False)\n    pair[0].setsockopt(1, 7, 1 << 30)\n    try:\n        while True: pair[0].send(b'x')\n    except BlockingIOError: pass",
    "epolls-in-epolls": "import select\nlast = select.epoll()\nwhile True: held.append(last); last = select.epoll(); last.register(held[-1].fileno())",
    "watched-pipes": "import select\nwhile True:\n    e = select.epoll(); held.append(e)\n    for n in range(3, 250):\n        try: e.register(n)\n        except OSError: pass",
    "event-descriptors": "while True: held.append(os.eventfd(0)) if hasattr(os, 'eventfd') else 1 / 0",
    "names": "for n in range(10**6): os.path.exists(f'/tmp/{n}' + 'x' * 200)",
    "long-links": "for n in range(10**6): os.symlink('x' * 4000, str(n))",
    "deep-folders": "for n in range(10**6):\n    os.mkdir('y' * 250); os.chdir('y' * 250)",
    "unlinked-files": "while True:\n    f = os.open('x', os.O_CREAT | os.O_RDWR); os.unlink('x'); held.append(f); os.write(f, bytes(1 << 20))",
    "unnamed-files": "while True:\n    f = os.open('/tmp', 0o20200000 | os.O_RDWR, 0o600); held.append(f); os.write(f, bytes(1 << 20))",
    "mapped-tmp": "import mmap\nf = os.open('x', os.O_CREAT | os.O_RDWR); os.truncate(f, 15 << 20); held.append(mmap.mmap(f, 15 << 20)); held[0].write(bytes(15 << 20)); held.append([0] * (1 << 29))",
    "stacks": "threading.stack_size(1 << 26)\ndef use(): ctypes.memset(ctypes.addressof(ctypes.create_string_buffer(1 << 25)), 1, 1 << 25); time.sleep(99)\nfor _ in range(20): threading.Thread(target=use).start()\ntime.sleep(99)",
    "raised-limits": "import resource\nfor n in range(16):\n    try: resource.setrlimit(n, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n    except (OSError, ValueError): pass\nheld.append(bytearray(b'x' * (1 << 20)) * 500)",
    "limits-of-none": "import resource\nfor n in (1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15): resource.setrlimit(n, (0, 0))",
    "limits-of-others": "for pid in [0, 1, 2, 3, os.getppid(), *range(2, 200)]: libc.syscall(302, pid, 7, bytes(16), None)",
    "all-descriptors": "import resource\nwhile True:\n    try: held.append(os.dup(3))\n    except OSError: break\nreturn 1",
    "closed-everything": "os.closerange(0, 256)",
    "stdin-as-channel": "os.dup2(0, 3); os.dup2(3, 1); os.dup2(3, 2)",
    "robust-list": "libc.syscall(273, ctypes.create_string_buffer(24), 24); x = ctypes.create_string_buffer(24); ctypes.memset(x, 255, 24); libc.syscall(273, x, 24); os._exit(0)",
    "clear-child-tid": "libc.syscall(218, 1); os._exit(0)",
    "registered-rseq": "libc.syscall(334, ctypes.create_string_buffer(64), 32, 0, 0)",
    "barriers": "while True:\n    for n in range(10): libc.syscall(324, 1 << n, 0, 0)",
    "kill-storm": "while True: os.kill(-1, 0)",
    "wait-for-anybody": "os.waitpid(-1, 0)",
    "copied-ranges": "f = os.open('x', os.O_CREAT | os.O_RDWR); os.write(f, bytes(1 << 20))\nwhile True: os.copy_file_range(f, f, 1 << 19, 0, 1 << 19)",
}  # fmt: skip
for _name, _statements in _HOGS.items():
    _add(f"kernel-{_name}", (44, 45, 46, 47, 51, 54, 84), "Counted to the sample's group, or limited, and gone with it.",
         calling(_statements, _LIBC), *_ANY, MEMORY, OUTPUT, steps=3)  # fmt: skip
_add("kernel-memory-then-answers", (44, 96), "The group is full to the brim when the supervisor reads what is written.", TOOLS + """
def solve(*arguments):
    held = []
    try:
        while True: held.append(bytearray(b"x" * (1 << 18)))
    except MemoryError: pass
    while True: say(value("x" * 30000))
""", *_ANY, MEMORY, OUTPUT)  # fmt: skip
