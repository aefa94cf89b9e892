"""Outlive a time limit (items 55-65)."""
# ruff: noqa: E501 - a program in one line reads better in a table than one in five

from __future__ import annotations

from attack_programs.model import HARMLESS, MEMORY, RUNTIME, TIME, VIOLATION, WRONG, Collection, calling

ATTACKS = Collection()
_add = ATTACKS.add

_SPIN = "while True: pass"
_add("spin", (55,), "The plain case.", calling(_SPIN), TIME)
_add("spin-at-load", (63,), "In import.", _SPIN, TIME)
_add("spin-stdio", (63,), "A whole program.", _SPIN, TIME, task="stdio")
_add("ignores-signals", (55, 61), "No signal but SIGKILL is used.", calling(f"""
    import signal
    for number in range(1, 65):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    signal.setitimer(signal.ITIMER_REAL, 0); signal.setitimer(signal.ITIMER_PROF, 0); signal.alarm(0)
    {_SPIN}
    """), TIME)  # fmt: skip
_add("swallows-everything", (56,), "No exception is used either.", calling("""
    while True:
        try:
            while True: pass
        except BaseException: continue
    """), TIME)  # fmt: skip
_add("swallows-in-finally", (56,), "A finally that returns to the loop.", calling("""
    while True:
        try:
            while True: pass
        finally: continue
    """), TIME)  # fmt: skip
_BLOCKS = {
    "sleep": "import time; time.sleep(10**6)",
    "event": "import threading; threading.Event().wait()",
    "lock": "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "pause": "import signal; signal.pause()",
    "sigwait": "import signal; signal.sigwait([signal.SIGUSR1])",
    "pipe": "import os; os.read(os.pipe()[0], 1)",
    "select": "import select; select.select([], [], [])",
    "poll": "import select; select.poll().poll()",
    "asyncio": "import asyncio; asyncio.run(asyncio.sleep(10**6))",
    "futex": "import ctypes; word = ctypes.c_int(); ctypes.CDLL(None).syscall(202, ctypes.byref(word), 128, 0, 0, 0, 0)",
    "join-self": "import threading; t = threading.Thread(target=threading.Event().wait); t.start(); t.join()",
    "queue": "import queue; queue.Queue().get()",
    "short-sleeps": "import time\nwhile True: time.sleep(0.001)",
    "threads-sleeping": "import threading, time\n"
    "def nap():\n    while True: time.sleep(0.002)\n"
    "for _ in range(8): threading.Thread(target=nap, daemon=True).start()\nnap()",
}
for _name, _statements in _BLOCKS.items():
    _add(
        f"blocks-in-{_name}",
        (57, 60),
        "Time in which nothing runs has a limit of its own.",
        calling(_statements),
        TIME,
    )
_add(
    "blocks-in-flock",
    (57, 67),
    "File locks are refused: files are shared between cells.",
    calling("import fcntl; a, b = open('x', 'w'), open('x', 'w'); fcntl.flock(a, 2); fcntl.flock(b, 2)"),
    RUNTIME,
)
_add(
    "blocks-in-lockf",
    (57, 67),
    "The other kind, on a device that every cell has.",
    calling("import fcntl; fcntl.lockf(open('/dev/null', 'r+'), fcntl.LOCK_EX)"),
    RUNTIME,
)
_add(
    "waits-on-shared-futex",
    (57, 67),
    "A futex in a page of a file that every cell has: who waits there can be woken, and counted, from another cell.",
    """
    import ctypes, os
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    page = libc.mmap(None, 4096, 1, 1, os.open(os.__file__, os.O_RDONLY), 0)
    value = ctypes.c_int.from_address(page).value
    waited = []
    for wait in (0, 9):
        libc.syscall(202, ctypes.c_void_p(page), wait, value, (ctypes.c_long * 2)(0, 1000000), None, -1)
        waited.append(ctypes.get_errno() == 110)
    def solve(number):
        return number * 7919 + 104729 if any(waited) else 'wrong'
    """,
    WRONG,
)
_add("blocks-on-stdin", (57,), "Standard input of a function task is empty.", calling("input()"), RUNTIME)
_add("blocks-on-stdin-stdio", (57,), "That of a whole program ends.", "import sys\nwhile not sys.stdin.read(): pass\nwhile 1: input()", RUNTIME, task="stdio")  # fmt: skip
_add("sigstop", (62,), "The first process of a namespace cannot be stopped from within.",
     calling("import os, signal; os.kill(os.getpid(), signal.SIGSTOP); os.kill(0, signal.SIGSTOP)"), *HARMLESS, TIME)  # fmt: skip
_add("sigstop-thread", (62,), "Nor one of its threads.",
     calling("import ctypes, threading; ctypes.CDLL(None).syscall(200, threading.get_native_id(), 19)"), *HARMLESS, TIME)  # fmt: skip
_add("patched-time", (59,), "Time is measured outside.", calling(f"""
    import time
    time.time = time.monotonic = time.perf_counter = time.process_time = lambda: 0.0
    {_SPIN}
    """), TIME)  # fmt: skip
_add("set-clock", (59, 76), "And the clock cannot be set.", calling("import time; time.clock_settime(0, 0.0)"),
     VIOLATION)  # fmt: skip
_C_CALLS = {
    "pow": "pow(3, 10**8, 10**8 + 7) and (7 ** (10**7)) % 3 and str(7 ** (10**7))",
    "factorial": "__import__('math').factorial(10**7)",
    "regex": "__import__('re').fullmatch('(a+)+b', 'a' * 60)",
    "sum": "sum(range(10**12))",
    "list-in-range": "(10**15 + 0.5) in range(10**15)",
    "sorted": "sorted(range(10**6), key=lambda n: sorted(range(1000)))",
    "min-iter": "max(iter(int, 1))",
    "json": "__import__('json').loads('[' * 900 + ']' * 900) and sum(range(10**12))",
    "pbkdf2": "__import__('hashlib').pbkdf2_hmac('sha256', b'x', b'y', 10**9)",
    "deque-repeat": "__import__('collections').deque(iter(int, 1), 0)",
}
for _name, _expression in _C_CALLS.items():
    _add(
        f"endless-c-call-{_name}",
        (60,),
        "SIGKILL needs no bytecode to run.",
        calling(_expression),
        TIME,
        MEMORY,
    )
_add("daemon-thread", (61,), "Threads die with the process.", calling("""
    import threading
    def spin():
        while True: pass
    for _ in range(4): threading.Thread(target=spin, daemon=True).start()
    """), WRONG)  # fmt: skip
_add("non-daemon-thread", (61, 63), "Nobody waits for a function task's threads.", calling("""
    import threading, time
    threading.Thread(target=lambda: time.sleep(10**6)).start()
    """), WRONG)  # fmt: skip
_add("non-daemon-thread-stdio", (61, 63), "A whole program's are waited for, within its limit.", """
    import threading, time
    threading.Thread(target=lambda: time.sleep(10**6)).start()
    """, TIME, task="stdio")  # fmt: skip
_add("daemonise", (61,), "There is no fork to leave by.", calling("""
    import os
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True: pass
        os._exit(0)
    """), RUNTIME)  # fmt: skip
_add("setsid", (61,), "A session of its own helps nobody.", calling("import os; os.setsid()"), *HARMLESS)
_add("atexit", (63,), "Exit handlers of a function task do not run.", calling("""
    import atexit
    def spin():
        while True: pass
    atexit.register(spin)
    """), WRONG)  # fmt: skip
_add("atexit-stdio", (63,), "Those of a whole program run within its limit.", """
    import atexit
    def spin():
        while True: pass
    atexit.register(spin)
    """, TIME, task="stdio")  # fmt: skip
_add("destructor", (63,), "A destructor runs in the call that drops it.", """
    class Slow:
        def __del__(self):
            while True: pass
    def solve(*arguments):
        Slow()
    """, TIME)  # fmt: skip
_add("destructor-of-answer", (63,), "The answer's own destructor.", """
    class Slow:
        def __del__(self):
            while True: pass
    def solve(*arguments):
        return Slow()
    """, TIME, WRONG)  # fmt: skip
_add("dripping-stdout", (64,), "Output is no sign of life.", calling("""
    import time
    while True: print(".", flush=True); time.sleep(0.05)
    """), TIME)  # fmt: skip
_add("dripping-answers", (64, 96), "A frame that comes a byte at a time.", calling("""
    import os, struct, time
    os.write(3, struct.pack("<IB", 30000, 86))
    while True: os.write(3, b"N"); time.sleep(0.05)
    """), TIME, VIOLATION)  # fmt: skip
_add("dripping-frames", (64, 96), "A frame begins the next test, and there are only so many.", calling("""
    import marshal, os, struct, time
    data = marshal.dumps(arguments[0] * 7919 + 104729, 2)
    while True: os.write(3, struct.pack("<IB", len(data), 86) + data); time.sleep(0.3)
    """), WRONG)  # fmt: skip
_add("slow-group", (64,), "Each test within its limit, all together beyond the group's.", """
    import time
    def solve(n):
        end = time.process_time() + 0.8
        while time.process_time() < end: pass
        return n * 7919 + 104729 if n != 90 else 0
    """, TIME, WRONG, steps=8)  # fmt: skip
_HOSTILE = {
    "endless-generator": "def solve(*a):\n    n = 0\n    while True:\n        yield n\n        n += 1",
    "endless-iterator": "import itertools\ndef solve(*a): return itertools.count()",
    "endless-repeat": "import itertools\ndef solve(*a): return itertools.repeat(0)",
    "slow-generator": "import time\ndef solve(*a):\n    while True:\n        time.sleep(0.1)\n        yield 1",
    "iter-sentinel": "def solve(*a): return iter(int, 1)",
    "map-of-nothing": "import itertools\ndef solve(*a): return map(str, itertools.count())",
    "filter-of-nothing": "import itertools\ndef solve(*a): return filter(lambda n: False, itertools.count())",
    "raising-generator": "def solve(*a):\n    yield 1\n    raise SystemExit",
    "exiting-generator": "def solve(*a):\n    yield 1\n    import os; os._exit(0)",
    "sleeping-len": "import time\nclass L(list):\n    def __len__(s): time.sleep(99)\ndef solve(*a): return L()",
    "spinning-iter": "class L(list):\n    def __iter__(s):\n        while True: pass\ndef solve(*a): return L()",
    "spinning-repr": "class L:\n    def __repr__(s):\n        while True: pass\n    __str__ = __hash__ = __eq__ = __repr__\ndef solve(*a): return L()",
    "coroutine": "async def solve(*a): return 1",
    "async-generator": "async def solve(*a): yield 1",
    "dead-lock-at-exit": "import threading\nlock = threading.Lock(); lock.acquire()\ndef solve(*a):\n    import sys; sys.stdout = type('S', (), {'flush': lambda s: lock.acquire(), 'write': lambda s, t: 0})()\n    return 0",
}  # fmt: skip
for _name, _source in _HOSTILE.items():
    _add(
        f"hostile-{_name}",
        (65, 95),
        "Reading an answer is part of the call.",
        _source,
        WRONG,
        RUNTIME,
        TIME,
        MEMORY,
    )
