"""Leave something for the next sample (items 66-71). What sees it is the harness's witness."""
# ruff: noqa: E501 - a program in one line reads better in a table than one in five

from __future__ import annotations

from attack_programs.model import HARMLESS, RUNTIME, TIME, VIOLATION, WRONG, Collection, calling, syscall

ATTACKS = Collection()
_add = ATTACKS.add


def _leave(name: str, items: tuple[int, ...], why: str, statements: str, *statuses: object) -> None:
    _add(f"leaves-{name}", items, why, calling(statements), *(statuses or HARMLESS))  # type: ignore[arg-type]


_leave("file", (66,), "Each sample has a /tmp of its own.", "open('/tmp/left', 'w').write('x')")
_leave("hidden-file", (66,), "Hidden too.", "open('/tmp/.left', 'w').write('x')")
_leave(
    "read-only-folder",
    (66,),
    "What cannot be removed by its owner.",
    """
    import os
    os.makedirs("/tmp/a/b"); open("/tmp/a/b/c", "w"); os.chmod("/tmp/a/b", 0); os.chmod("/tmp/a", 0)
    """,
)
_leave("mode-of-tmp", (66,), "The folder's own mode.", "import os; os.chmod('/tmp', 0o1777)")
_leave("mode-of-tmp-0", (66,), "Or none at all.", "import os; os.chmod('/tmp', 0)")
_leave(
    "xattr-of-tmp",
    (66,),
    "Extended attributes.",
    "import os; os.setxattr('/tmp', 'user.left', b'x')",
    RUNTIME,
)
_leave("times-of-tmp", (66,), "Its times.", "import os; os.utime('/tmp', (1, 1))")
_leave(
    "times-of-python",
    (66,),
    "Times of shared files: read-only.",
    "import os; os.utime('/python/bin/python3', (1, 1))",
    RUNTIME,
)
_leave(
    "mode-of-python",
    (66,),
    "Modes of shared files.",
    "import os; os.chmod('/python/bin/python3', 0)",
    RUNTIME,
)
_leave("owner", (66, 69), "Owners.", "import os; os.chown('/tmp', 0, 0)", RUNTIME)
_leave("dev-shm", (66,), "There is none.", "open('/dev/shm/left', 'w')", RUNTIME)
_leave("pycache", (66,), "Bytecode of shared modules.", "open('/python/lib/x.pyc', 'w')", RUNTIME)
_leave(
    "home",
    (66,),
    "The home folder is /tmp.",
    "import pathlib; pathlib.Path.home().joinpath('.left').write_text('x')",
)
_leave(
    "renamed-tmp",
    (66,),
    "The folder itself.",
    "import os; os.rmdir('/tmp'); os.symlink('/dev', '/tmp')",
    RUNTIME,
)
_leave(
    "device", (66, 75), "A device.", "import os; os.mknod('/tmp/left', 0o20666, os.makedev(1, 1))", RUNTIME
)
_leave("fifo", (66,), "A pipe with a name.", "import os; os.mkfifo('/tmp/left')")
_leave(
    "socket-file",
    (66, 84),
    "A socket with a name.",
    "import socket; socket.socket(socket.AF_UNIX).bind('/tmp/left')",
    RUNTIME,
)
_leave("dev-null", (66,), "Something in /dev.", "import os; os.unlink('/dev/null')", RUNTIME)
_leave(
    "truncated-dev",
    (66,),
    "Or in a device.",
    "import os; os.ftruncate(os.open('/dev/null', os.O_RDWR), 0)",
    RUNTIME,
)
_leave(
    "written-device",
    (66,),
    "Landlock: no device but /dev/null is written.",
    "open('/dev/zero', 'wb').write(b'x')",
    RUNTIME,
)
_leave("umask", (66,), "The umask.", "import os; os.umask(0o777)")
_leave("working-folder", (66,), "The working folder.", "import os; os.chdir('/')")
_leave("open-descriptors", (66,), "Descriptors.", "import os\nfor n in range(5, 250): os.dup2(1, n)")
_leave(
    "shared-offset",
    (66,),
    "The offset of a shared file.",
    "import os\nfor n in range(5): os.lseek(n, 0, 2)",
    RUNTIME,
    WRONG,
)
_leave(
    "flags-of-descriptors",
    (66,),
    "Flags of shared files.",
    """
    import fcntl, os
    for n in range(5): fcntl.fcntl(n, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND | os.O_ASYNC)
    """,
    *HARMLESS,
)
_leave("small-pipe", (66,), "The size of a pipe.", "import fcntl; fcntl.fcntl(3, 1031, 4096)", RUNTIME)
_leave(
    "signal-owner",
    (66,),
    "Who is told of a pipe's events.",
    """
    import fcntl, os
    for n in range(5):
        for who in (0, -1, 1, 2, -2):
            try: fcntl.fcntl(n, fcntl.F_SETOWN, who)
            except OSError: pass
    """,
)
_leave("lease", (66, 67), "A lease on a shared file.", "import fcntl; fcntl.fcntl(open('/python/bin/python3'), fcntl.F_SETLEASE, fcntl.F_RDLCK)")  # fmt: skip
_leave("file-lock", (67, 95), "A lock on a shared file is gone with its process.",
       "import fcntl; held = open('/python/bin/python3'); fcntl.flock(held, 2); globals()['held'] = held")  # fmt: skip
_leave(
    "posix-lock",
    (67,),
    "The other kind, of which others may hold one.",
    "import fcntl; held = open('/dev/null', 'r+'); fcntl.lockf(held, 2 | 4)",
)
for _name, _call in {
    "add-key": (248, "0", "0", "0", "0", "-2"), "request-key": (249, "0", "0", "0", "-2"),
    "keyctl-join": (250, "1", "0"), "keyctl-get": (250, "0", "-3", "1"),
}.items():  # fmt: skip
    _add(
        f"leaves-{_name}", (51, 67, 76), "Keyrings outlive processes: an attack.", syscall(*_call), VIOLATION
    )  # type: ignore[arg-type]
_add("leaves-vsock", (67, 76), "A socket to the hypervisor.",
     calling("import socket; socket.socket(40, socket.SOCK_STREAM)"), RUNTIME)  # fmt: skip
_leave(
    "interpreter-state",
    (68,),
    "The next sample is forked from a process that never ran a program.",
    """
    import builtins, gc, os, random, signal, sys, threading
    sys.left_behind = True
    os.environ["LEFT_BEHIND"] = "1"; os.putenv("LEFT_BEHIND", "1")
    builtins.len = lambda *a: 0
    sys.setrecursionlimit(50); sys.setswitchinterval(100); sys.set_int_max_str_digits(700)
    gc.disable()
    """,
    *HARMLESS,
)
_leave(
    "object",
    (68,),
    "An object that hides from the collector.",
    """
    import gc, sys
    LeftBehind = type("LeftBehind", (), {})
    sys.modules["left"] = LeftBehind(); gc.freeze()
    """,
)
_leave(
    "signal-handlers",
    (68,),
    "Handlers and masks.",
    """
    import signal
    signal.signal(signal.SIGALRM, lambda *a: None)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]); signal.setitimer(signal.ITIMER_REAL, 99)
    """,
)
_leave(
    "memory-of-builtins",
    (68,),
    "Small ints and interned text, overwritten in memory.",
    """
    import ctypes
    at = id(7) + 24
    ctypes.memset(at, 9, 1)
    """,
    *HARMLESS,
    TIME,
)
_leave(
    "type-slots",
    (68,),
    "A builtin type, by ctypes.",
    """
    import ctypes, gc
    vars_of_int = gc.get_referents(int.__dict__)[0]
    vars_of_int["left_behind"] = 1; int.__dict__
    """,
)
_leave(
    "threads", (68,), "Threads.", "import threading; threading.Thread(target=threading.Event().wait).start()"
)
_leave("uid", (69,), "Another user.", "import os; os.setuid(0)", RUNTIME)
_leave("setresuid", (69,), "By any name.", "import os; os.setresuid(0, 0, 0)", RUNTIME)
_leave("setgroups", (69,), "Or group.", "import os; os.setgroups([0])", RUNTIME)
_leave(
    "suid",
    (69,),
    "A program with another's rights: nosuid, noexec, and gone.",
    """
    import os, shutil
    shutil.copy("/python/bin/python3", "/tmp/sh"); os.chmod("/tmp/sh", 0o6755); os.execv("/tmp/sh", ["sh"])
    """,
    RUNTIME,
)
_leave(
    "loaded-library",
    (70,),
    "A library written and loaded: noexec.",
    """
    import ctypes, shutil
    shutil.copy(__import__("_ctypes").__file__, "/tmp/x.so")
    ctypes.CDLL("/tmp/x.so")
    """,
    RUNTIME,
)
_leave("random-state", (71,), "Each sample begins with the same state.", "import random; random.seed(5)")
_leave("numpy-state", (71,), "Numpy's too.", "import numpy; numpy.random.seed(5); numpy.seterr(all='raise')")
_leave("nice", (70,), "A priority.", "import os; os.nice(19); os.setpriority(os.PRIO_USER, 0, 19)", RUNTIME)
_leave(
    "scheduler",
    (70,),
    "A scheduling class.",
    "import os; os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    RUNTIME,
)
_leave("affinity", (70,), "A processor.", "import os; os.sched_setaffinity(0, {0})", RUNTIME)
_leave(
    "oom-score",
    (70, 44),
    "Immunity from the kernel.",
    "open('/proc/self/oom_score_adj', 'w').write('-1000')",
    RUNTIME,
)
