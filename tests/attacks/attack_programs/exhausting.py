"""Use up memory, processes, disk, descriptors, output, stack, processors (items 44-54)."""
# ruff: noqa: E501 - a program in one line reads better in a table than one in five

from __future__ import annotations

from attack_programs.model import (
    COMPILE,
    HARMLESS,
    MEMORY,
    OUTPUT,
    RUNTIME,
    TIME,
    VIOLATION,
    WRONG,
    Collection,
    calling,
    syscall,
)

ATTACKS = Collection()
_add = ATTACKS.add

_HOGS = {
    "list": "held = []\nwhile True: held.append([0] * 1000000)",
    "list-of-ints": "held = list(range(10**9))",
    "bytearray": "held = bytearray(1 << 34)",
    "bytearray-touched": "held = bytearray(b'x' * (1 << 20))\nwhile True: held = held + held",
    "text": "held = 'x' * 1000000\nwhile True: held += held",
    "multiplied": "held = [0] * (10**10)",
    "int": "held = 1 << (1 << 35)",
    "power": "held = 10 ** (10 ** 10)",
    "dict": "held = {}\nwhile True: held[len(held)] = str(len(held)) * 100",
    "generators": "held = [x for x in iter(int, 1)]",
    "mmap-shared": "import mmap\nheld = mmap.mmap(-1, 1 << 30)\nfor at in range(0, 1 << 30, 4096): held[at] = 1",
    "mmap-private": "import mmap\nheld = mmap.mmap(-1, 1 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\nfor at in range(0, 1 << 30, 4096): held[at] = 1",
    "mmap-many": "import mmap\nheld = []\nwhile True: held.append(mmap.mmap(-1, 1 << 20)); held[-1].write(b'x' * (1 << 20))",
    "numpy": "import numpy\nheld = numpy.ones(1 << 28)",
    "numpy-zeros": "import numpy\nheld = numpy.zeros(1 << 28); held += 1",
    "malloc": "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.malloc.restype = ctypes.c_void_p\nwhile True:\n    at = libc.malloc(1 << 20)\n    if not at: raise MemoryError\n    ctypes.memset(at, 1, 1 << 20)",
    "brk": "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.sbrk.restype = ctypes.c_void_p\nwhile True:\n    at = libc.sbrk(1 << 20)\n    if at == 2**64-1: raise MemoryError\n    ctypes.memset(at, 1, 1 << 20)",
    "swallowed": "held = []\nwhile True:\n    try: held.append(bytearray(b'x' * (1 << 20)))\n    except MemoryError: pass",
    "threads-each": "import threading\ndef hog():\n    held = []\n    while True: held.append(bytearray(b'x' * (1 << 20)))\nfor _ in range(8): threading.Thread(target=hog).start()\nthreading.Event().wait()",
    "zip-bomb": "import zlib\ndata = zlib.compress(bytes(1 << 24), 9)\nheld = [zlib.decompress(data) + b'x' for _ in range(100)]",
    "regex": "import re\nre.fullmatch('(a?){2000}' * 400, 'a' * 1000000)",
    "answer": "import os, mmap\nheld = bytearray(b'x' * (1 << 27))\nreturn [bytes(held), bytes(held)]",
    "memory-file": "import os\nheld = []\ntry: os.ftruncate(4, 0)\nexcept OSError: pass\nfor at in range(0, 1 << 24, 1 << 16):\n    try: os.pwrite(4, b'x' * 65536, at)\n    except OSError: break\nwhile True: held.append(b'x' * (1 << 20) + bytes(len(held)))",
}  # fmt: skip
for _name, _statements in _HOGS.items():
    _statuses = (
        (MEMORY, TIME)
        if _name in ("int", "power", "generators", "dict", "regex", "zip-bomb", "list-of-ints")
        else (MEMORY,)
    )
    _statuses += (RUNTIME,) if _name in ("mmap-shared", "mmap-private", "mmap-many", "regex", "brk") else ()
    _add(f"hog-{_name}", (44,), "Ended by the kernel's counter or by MemoryError: either way a memory limit.",
         calling(_statements), *_statuses, steps=3)  # fmt: skip
    if _name in ("list", "bytearray-touched", "mmap-shared", "swallowed"):
        _add(f"hog-{_name}-at-load", (44, 63), "The same at import.", _statements, *_statuses)
_add("hog-kernel-memory", (44, 47), "Pipes and sockets full of data, and files in /tmp beside them.", calling("""
    import os, socket
    held = []
    def fill():
        try:
            while True:
                end = os.pipe()
                os.set_blocking(end[1], False); held.append(end)
                try:
                    while True: os.write(end[1], b"x" * 65536)
                except BlockingIOError: pass
        except OSError: pass
    fill()
    try:
        with open("/tmp/full", "wb") as file:
            while True: file.write(b"x" * 65536)
    except OSError: pass
    data = []
    while True: data.append(bytearray(b"x" * (1 << 20)))
    """), MEMORY)  # fmt: skip
_add("widens-pipes", (44, 47, 67), "What pipes may hold has one limit for the samples of all cells.", calling("""
    import fcntl, os
    held = [os.pipe() for _ in range(100)]
    for _, end in held: fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 1 << 17)
    """), RUNTIME)  # fmt: skip
_add("sockets-in-flight", (44, 47, 84), "Descriptors sent and never received, in a cycle.", calling("""
    import array, os, socket
    sent = 0
    try:
        for _ in range(60):
            left, right = socket.socketpair()
            rights = array.array("i", [left.fileno(), right.fileno()] * 4 + [3])
            left.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]); sent += 1
            left.close(); right.close()
    except OSError: pass
    """), WRONG, RUNTIME)  # fmt: skip

_FORKS = {
    "os-fork": "import os\nwhile True: os.fork()",
    "once": "import os\nif os.fork() == 0: os._exit(0)",
    "fork-swallowing": "import os\nwhile True:\n    try: os.fork()\n    except OSError: raise",
    "subprocess": "import subprocess\nsubprocess.run(['/python/bin/python3', '-c', '1'])",
    "os-system": "import os\nassert os.system('true') == 0",
    "popen": "import os\nos.popen('id').read()\nraise OSError",
    "posix-spawn": "import os\nos.posix_spawn('/python/bin/python3', ['python3'], {})",
    "multiprocessing": "import multiprocessing\nmultiprocessing.Process(target=print).start()",
    "process-pool": "import concurrent.futures as c\nc.ProcessPoolExecutor(2).submit(print).result()",
    "forkpty": "import os\nos.forkpty()",
    "execve": "import os\nos.execve('/python/bin/python3', ['python3', '-c', '1'], {})",
    "vfork": "import ctypes\nassert ctypes.CDLL(None, use_errno=True).syscall(58) >= 0",
    "raw-fork": "import ctypes\nassert ctypes.CDLL(None, use_errno=True).syscall(57) >= 0",
    "raw-clone": "import ctypes\nassert ctypes.CDLL(None, use_errno=True).syscall(56, 17, 0, 0, 0, 0) >= 0",
    "raw-clone3": "import ctypes\nassert ctypes.CDLL(None, use_errno=True).syscall(435, ctypes.create_string_buffer(88), 88) >= 0",
    "execveat": "import ctypes\nassert ctypes.CDLL(None, use_errno=True).syscall(322, 4, b'', 0, 0, 0x1000) >= 0",
    "memfd-exec": "import os\nos.memfd_create('x')",
}  # fmt: skip
for _name, _statements in _FORKS.items():
    _add(
        f"fork-{_name}",
        (45, 29),
        "No process may be made: fork is refused.",
        calling(_statements),
        RUNTIME,
    )
_add("thread-bomb", (45,), "Threads are limited.", calling("""
    import threading
    while True: threading.Thread(target=threading.Event().wait).start()
    """), RUNTIME)  # fmt: skip
_add("thread-bomb-swallowing", (45, 50), "Threads that spin, as many as there may be.", calling("""
    import threading
    def spin():
        while True: pass
    while True:
        try: threading.Thread(target=spin, daemon=True).start()
        except RuntimeError: pass
    """), TIME)  # fmt: skip
_add("parallel-cpu", (50, 58), "CPU time is that of all threads together.", calling("""
    import threading, hashlib
    data = bytes(1 << 20)
    def spin():
        while True: hashlib.sha256(data).digest()
    for _ in range(8): threading.Thread(target=spin).start()
    threading.Event().wait()
    """), TIME)  # fmt: skip

_add("disk-full", (46,), "/tmp is small, and counted.", calling("""
    with open("big", "wb") as file:
        while True: file.write(b"x" * (1 << 20))
    """), RUNTIME)  # fmt: skip
_add("disk-full-swallowed", (46, 54), "Filled again and again.", calling("""
    import os
    for number in range(200):
        try:
            with open(f"big{number}", "wb") as file: file.write(b"x" * (1 << 20))
        except OSError: pass
    """), WRONG)  # fmt: skip
_add("inodes", (46,), "The number of files is limited too.", calling("""
    for number in range(10**6): open(str(number), "w").close()
    """), RUNTIME)  # fmt: skip
_add("directories", (46,), "And of folders, however deep; landlock looks at all above, so the deepest take the time.", calling("""
    import os
    while True: os.mkdir("d"); os.chdir("d")
    """), RUNTIME, TIME)  # fmt: skip
_add("fallocate", (46,), "Space taken without writing.", calling("""
    import os
    os.posix_fallocate(os.open("big", os.O_CREAT | os.O_RDWR), 0, 1 << 34)
    """), RUNTIME)  # fmt: skip
_add("sparse-file", (46,), "A file of many terabytes, all hole.", calling("""
    import os
    os.truncate(os.open("big", os.O_CREAT | os.O_RDWR), 1 << 42)
    """), RUNTIME)  # fmt: skip
_add("links", (46, 72), "Names without end for one file.", calling("""
    import os
    open("a", "w").close()
    for number in range(10**6): os.link("a", str(number))
    """), RUNTIME)  # fmt: skip
_add(
    "descriptors",
    (47,),
    "Descriptors are limited.",
    calling("held = []\nwhile True: held.append(open('/dev/null'))"),
    RUNTIME,
)
_add(
    "epolls",
    (47,),
    "Epolls within epolls.",
    calling("import select\nheld = []\nwhile True: held.append(select.epoll())"),
    RUNTIME,
)
_add("timers", (47, 51), "Kernel timers without end.", calling("""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True); timer = ctypes.c_int()
    for _ in range(10**5):
        if libc.syscall(222, 1, 0, ctypes.byref(timer)) != 0: raise OSError
    """), RUNTIME, WRONG, MEMORY, TIME)  # fmt: skip

for _stream, _task in (("stdout", "int"), ("stderr", "int"), ("stderr", "stdio")):
    _add(f"flood-{_stream}-{_task}", (48, 64), "The last 64 kB are kept, the rest costs the program its own time.",
         f"import sys\ndef solve(*arguments):\n    while True: sys.{_stream}.write('x' * 65536)\nif {_task!r} == 'stdio': solve()\n",
         TIME, task=_task)  # fmt: skip
_add(
    "flood-stdout-stdio",
    (48,),
    "Output that is compared is bounded.",
    "while True: print('x' * 65536)",
    OUTPUT,
    task="stdio",
)
_add(
    "flood-stdout-stdio-lines",
    (48, 93),
    "Many short lines.",
    "while True: print('1 2 3 4\\n' * 10000)",
    OUTPUT,
    task="stdio",
)
for _name, _handle in {"stdout": "1", "answers": "3", "new-pipe": "os.pipe2(os.O_DIRECT)[1]"}.items():
    _add(f"flood-of-packets-{_name}", (48, 64), "A pipe in packet mode has to be read write by write: refused.", calling(f"""
        import fcntl, os
        end = {_handle}
        fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_DIRECT)
        while True: os.write(end, b"x")
        """), RUNTIME)  # fmt: skip
_add("flood-answers", (48,), "One answer of many megabytes becomes a digest, and is wrong.",
     calling("return 'x' * (30 << 20)"), WRONG, OUTPUT, MEMORY, steps=4)  # fmt: skip
_add(
    "flood-large-answers",
    (48,),
    "Many answers just below the digest's size.",
    calling("return 'x' * 32000"),
    WRONG,
)

_add("c-stack", (49,), "The process ends; its end is a runtime error.", calling("""
    import sys
    sys.setrecursionlimit(1 << 30)
    class Deep:
        def __repr__(self): return repr(self)
    def down(n): return down(n + 1)
    down(0)
    """), RUNTIME, MEMORY, TIME)  # fmt: skip
_add("c-stack-repr", (49, 87), "The same in C code.", calling("""
    import sys
    sys.setrecursionlimit(1 << 30)
    nested = []
    for _ in range(10**6): nested = [nested]
    repr(nested)
    """), RUNTIME, MEMORY, TIME)  # fmt: skip
_add("null-pointer", (49, 53), "A crash.", calling("import ctypes\nctypes.string_at(0)"), RUNTIME)
_add("core-dump", (53,), "No core is written: the limit is 0 and /tmp is gone with the process.", calling("""
    import os, resource, signal
    try: resource.setrlimit(resource.RLIMIT_CORE, (1 << 30, 1 << 30))
    except ValueError: pass
    signal.signal(signal.SIGSEGV, signal.SIG_DFL); os.kill(os.getpid(), signal.SIGSEGV)
    import ctypes; ctypes.string_at(0)
    """), RUNTIME)  # fmt: skip
_add("raise-own-limits", (44, 47, 76), "Hard limits stay.", calling("""
    import resource
    for name in ("NOFILE", "NPROC", "FSIZE", "CORE", "MEMLOCK", "MSGQUEUE"):
        kind = getattr(resource, "RLIMIT_" + name)
        resource.setrlimit(kind, (1 << 40, 1 << 40))
    """), RUNTIME)  # fmt: skip
_IPC = {"shmget": (29, "0", "4096", "0o1666"), "semget": (64, "1", "1", "0o1666"), "msgget": (68, "1", "0o1666"),
        "mq-open": (240, "0", "66", "0o600", "0")}  # fmt: skip
for _name, (_number, *_arguments) in _IPC.items():
    _add(f"ipc-{_name}", (51, 67), "Refused; and each sample has an IPC namespace of its own.",
         syscall(_number, *_arguments), *HARMLESS)  # fmt: skip
_add("posix-shm", (51, 67, 95), "There is no /dev/shm.",
     calling("import multiprocessing.shared_memory as s\ns.SharedMemory('x', create=True, size=4096)"), RUNTIME)  # fmt: skip
_add(
    "semaphore",
    (51, 95),
    "Nor named semaphores.",
    calling("import multiprocessing\nmultiprocessing.Lock()"),
    RUNTIME,
)
_add("dirty-pages", (54,), "A file mapped and dirtied.", calling("""
    import mmap, os
    handle = os.open("big", os.O_CREAT | os.O_RDWR); os.ftruncate(handle, 1 << 24)
    held = mmap.mmap(handle, 1 << 24)
    for _ in range(5):
        for at in range(0, 1 << 24, 4096): held[at] = 1
        held.flush()
    """), WRONG, RUNTIME, TIME)  # fmt: skip

_add("reads-past-the-cache", (54,), "A file of the root is on the host's disk, which would be read anew each time.", calling("""
    import os
    os.open(os.__file__, os.O_RDONLY | os.O_DIRECT)
    """), RUNTIME)  # fmt: skip
_add("flushes-the-hosts-disk", (54,), "The kernel is not asked to. Of a pipe it would have said that it cannot.", """
    import os
    def is_asked(flush):
        flush(os.open(os.__file__, os.O_RDONLY))
        try: flush(os.pipe()[1])
        except OSError: return True
        return False
    def solve(number):
        return number * 7919 + 104729 if is_asked(os.fsync) or is_asked(os.fdatasync) else "wrong"
    """, WRONG)  # fmt: skip

_BOMBS = {
    "constant-folding": "x = " + "(" * 60 + "1" + "<<99999999)" * 60,
    "power-folding": "x = 9**9**9**9",
    "text-folding": "x = 'x' * 99999999999",
    "deep-parentheses": "x = " + "(" * 5000 + "1" + ")" * 5000,
    "deep-lists": "x = " + "[" * 50000 + "]" * 50000,
    "deep-unary": "x = " + "-" * 200000 + "1",
    "deep-attributes": "x" + ".y" * 200000,
    "deep-calls": "x" + "()" * 200000,
    "long-sum": "x = " + "1+" * 200000 + "1",
    "deep-blocks": "".join(" " * n + "if 1:\n" for n in range(99)) + " " * 99 + "pass",
    "nested-functions": "".join(" " * n + "def f():\n" for n in range(99)) + " " * 99 + "pass",
    "comprehensions": "x = " + "[" * 15 + "0" + " for a in b]" * 15,
    "f-strings": "x = f'{" * 1 + "1" + "}'" + " + f'{1}'" * 20000,
    "huge-source": "x = 1\n" * 300000,
    "long-line": "x = '" + "y" * (8 << 20) + "'",
    "many-names": "\n".join(f"a{n} = {n}" for n in range(100000)),
    "huge-literal": "x = " + "9" * 2000000,
    "nul": "x = 1\0",
    "surrogate": "x = '\ud800'",
    "coding": "# -*- coding: rot13 -*-\nx = 1",
    "bad-coding": "# -*- coding: nonsense -*-\nx = 1",
    "bom": "\ufeffx = 1",
    "form-feed": "\f\f\fx = 1",
    "lambda-chain": "x = " + "lambda: " * 20000 + "1",
    "starred": "x = [" + "*[" * 150 + "]" * 151,
    "match": "match 1:\n" + "".join(f"  case {n}: pass\n" for n in range(50000)),
}
for _name, _bomb in _BOMBS.items():
    _add(f"compile-{_name}", (52, 90), "Compiling is part of the sample: its limits hold for it.", _bomb,
         COMPILE, RUNTIME, MEMORY, TIME, VIOLATION, steps=2)  # fmt: skip
    _add(f"eval-{_name}", (52,), "The same at run time." , calling(f"compile({_bomb!r}, 'x', 'exec')") if len(_bomb) < 50000
         else calling("compile('-' * 300000 + '1', 'x', 'exec')"), COMPILE, WRONG, RUNTIME, MEMORY, TIME)  # fmt: skip
