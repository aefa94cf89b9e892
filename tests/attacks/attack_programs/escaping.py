"""Get out, or hit what is outside (items 72-81)."""
# ruff: noqa: E501 - a program in one line reads better in a table than one in five

from __future__ import annotations

from attack_programs.model import (
    COMPILE,
    HARMLESS,
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

_NAMES = {
    "symlink": "import os; os.symlink('/etc/passwd', 'out'); open('out').read()",
    "symlink-up": "import os; os.symlink('../../../../etc/passwd', 'out'); open('out').read()",
    "dot-dot": "open('../../../../../../etc/hostname').read()",
    "dot-dot-write": "open('../left', 'w')",
    "chroot-escape": "import os; os.mkdir('x'); os.chroot('x')",
    "fchdir": "import os\nfor n in range(5): os.fchdir(n)",
    "openat-descriptors": "import os\nfor n in range(256):\n    try: os.open('etc', 0, dir_fd=n)\n    except (NotADirectoryError, OSError): pass\nraise OSError",
    "proc-root": "import os; os.listdir('/proc/1/root')",
    "dev-mem": "open('/dev/mem', 'rb').read(1)",
    "mount-table": "open('/proc/mounts').read()",
}
for _name, _statements in _NAMES.items():
    _add(f"path-{_name}", (72, 73), "The root is the sandbox's own, and so is every path in it.",
         calling(_statements), RUNTIME, VIOLATION)  # fmt: skip
for _module, _statements in {
    "tarfile": "import io, tarfile; b = io.BytesIO(); t = tarfile.open(fileobj=b, mode='w'); i = tarfile.TarInfo('../../left'); t.addfile(i); t.close(); b.seek(0); tarfile.open(fileobj=b).extractall('/tmp')",
    "zipfile": "import io, zipfile; b = io.BytesIO(); z = zipfile.ZipFile(b, 'w'); z.writestr('../../left', 'x'); z.close(); zipfile.ZipFile(b).extractall('/tmp')",
}.items():  # fmt: skip
    _add(
        f"archive-{_module}",
        (74,),
        "An archive unpacks where its program may write.",
        calling(_statements),
        *HARMLESS,
    )
for _path in (
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/host",
    "/mnt",
    "/proc/sysrq-trigger",
    "/dev/sda",
):
    _add(f"host-{_path}", (75,), "Nothing of the host is mounted.", calling(f"open({_path!r})"), RUNTIME)

# 76: system calls that only an attack makes; the numbers are x86-64's.
_CALLS: dict[str, tuple[int, tuple[str, ...]]] = {
    "ptrace-traceme": (101, ("0", "0", "0", "0")), "syslog": (103, ("3", "0", "0")), "modify-ldt": (154, ("1", "0", "0")),
    "pivot-root": (155, ("0", "0")), "adjtimex": (159, ("0",)), "chroot": (161, ("0",)), "acct": (163, ("0",)),
    "settimeofday": (164, ("0", "0")), "mount": (165, ("0", "0", "0", "0", "0")), "umount2": (166, ("0", "2")),
    "swapon": (167, ("0", "0")), "reboot": (169, ("0", "0", "0")), "sethostname": (170, ("0", "0")),
    "iopl": (172, ("3",)), "ioperm": (173, ("0", "1", "1")), "init-module": (175, ("0", "0", "0")),
    "quotactl": (179, ("0", "0", "0", "0")), "kexec-load": (246, ("0", "0", "0", "0")), "unshare-user": (272, ("0x10000000",)),
    "unshare-net": (272, ("0x40000000",)), "setns": (308, ("3", "0")), "perf-event-open": (298, ("0", "0", "-1", "-1", "0")),
    "open-by-handle-at": (304, ("0", "0", "0")), "kcmp": (312, ("1", "1", "0", "0", "0")), "finit-module": (313, ("0", "0", "0")),
    "bpf": (321, ("0", "0", "0")), "userfaultfd": (323, ("0",)), "io-uring-setup": (425, ("1", "0")),
    "io-uring-enter": (426, ("0", "0", "0", "0", "0", "0")), "io-uring-register": (427, ("0", "0", "0", "0")),
    "open-tree": (428, ("-100", "0", "1")), "move-mount": (429, ("0", "0", "0", "0", "0")), "fsopen": (430, ("0", "0")),
    "fsmount": (432, ("0", "0", "0")), "mount-setattr": (442, ("0", "0", "0", "0", "0")), "move-pages": (279, ("0",) * 6),
    "clone-newuser": (56, ("0x10000011", "0", "0", "0", "0")), "clone-newpid": (56, ("0x20000011", "0", "0", "0", "0")),
    "clone-newnet-thread": (56, ("0x40010000", "0", "0", "0", "0")), "process-madvise": (440, ("0",) * 5),
    # 77: high bits in arguments of which the kernel looks at 32.
    "clone-high-bits": (56, ("0x7fffffff10000011", "0", "0", "0", "0")),
    "unshare-high-bits": (272, ("0x7fffffff10000000",)),
    "x32-getpid": (0x40000000 + 39, ()), "x32-ptrace": (0x40000000 + 521, ("0", "0", "0", "0")),
    "x32-execve": (0x40000000 + 520, ("0", "0", "0")),
}  # fmt: skip
for _name, (_number, _arguments) in _CALLS.items():
    _add(f"syscall-{_name}", (76, 77), "Ends the process.", syscall(_number, *_arguments), VIOLATION)
_REFUSED: dict[str, tuple[int, tuple[str, ...]]] = {
    "prctl-seccomp": (157, ("22", "1", "0")), "prctl-dumpable": (157, ("4", "1")), "prctl-high-bits": (157, ("0x7fffffff00000016", "1", "0")),
    "seccomp": (317, ("0", "0", "0")), "capset": (126, ("0", "0")), "personality": (135, ("0x0040000",)), "setsid": (112, ()),
    "setpgid": (109, ("0", "0")), "socket": (41, ("2", "1", "0")), "socket-netlink": (41, ("16", "3", "0")),
    "socket-packet": (41, ("17", "3", "0")), "socket-alg": (41, ("38", "5", "0")), "socket-vsock": (41, ("40", "1", "0")),
    "socketpair-high-bits": (53, ("0x100000028", "1", "0", "0")), "memfd-secret": (447, ("0",)), "mlock": (149, ("0", "4096")),
    "mlockall": (151, ("3",)), "landlock-create": (444, ("0", "0", "1")), "inotify": (253, ()), "fanotify": (300, ("0", "0")),
    "name-to-handle": (303, ("0", "0", "0", "0", "0")), "vmsplice": (278, ("0", "0", "0", "0")), "tee": (276, ("0",) * 4),
    "splice": (275, ("0",) * 6), "mbind": (237, ("0",) * 6), "setpriority": (141, ("0", "0", "-20")), "clone3": (435, ("0", "0")),
    "vhangup": (153, ()), "uselib": (134, ("0",)), "sysfs": (139, ("1", "0")), "ustat": (136, ("0", "0")), "nonsense": (9999, ()),
    "unallocated": (500, ()), "negative": (-1, ()), "remap-file-pages": (216, ("0",) * 5), "signalfd": (282, ("0",) * 3),
    "map-shadow-stack": (453, ("0",) * 3), "futex-waitv": (449, ("0",) * 5), "rt-sigqueueinfo": (129, ("1", "9", "0")),
    "rt-tgsigqueueinfo": (297, ("1", "1", "9", "0")), "pidfd-open": (434, ("1", "0")), "pidfd-send-signal": (424, ("0", "9", "0", "0")),
}  # fmt: skip
for _name, (_number, _arguments) in _REFUSED.items():
    _call = ", ".join([str(_number), *_arguments])
    _add(f"refused-{_name}", (76, 77), "Refused with an error.", calling(
        f"libc.syscall.restype = ctypes.c_long\nresult = libc.syscall(*map(ctypes.c_long, ({_call},)))\n"
        "assert result == -1, result", "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)"), WRONG, VIOLATION)  # fmt: skip
_MACHINE_CODE = """
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(CODE)
ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
"""
_CODES = {
    "int-80-getpid": b"\xb8\x14\0\0\0\xcd\x80\xc3",
    "int-80-fork": b"\xb8\x02\0\0\0\xcd\x80\xc3",
    "int-80-execve": b"\xb8\x0b\0\0\0\x31\xdb\x31\xc9\x31\xd2\xcd\x80\xc3",
    "syscall-ptrace": b"\x48\xc7\xc0\x65\0\0\0\x31\xff\x0f\x05\xc3",
    "sysenter": b"\xb8\x14\0\0\0\x0f\x34\xc3",
}
for _name, _code in _CODES.items():
    _add(f"machine-code-{_name}", (77,), "The filter asks for the architecture first.",
         calling(_MACHINE_CODE.replace("CODE", repr(_code))), VIOLATION, RUNTIME)  # fmt: skip
_add(
    "machine-code-halt",
    (77,),
    "A privileged instruction.",
    calling(_MACHINE_CODE.replace("CODE", repr(b"\xf4\xc3"))),
    RUNTIME,
)

# 78: signals to what is outside.
_TARGETS = {
    "all": "-1", "parent": "os.getppid()", "init": "1", "own-group": "0", "zygote": "2", "own-process-group": "-os.getpgrp() or 0",
}  # fmt: skip
for _name, _target in _TARGETS.items():
    for _signal in ("SIGKILL", "SIGTERM", "SIGSTOP", "SIGSEGV", "SIGHUP"):
        _add(f"kill-{_name}-{_signal}", (78,), "Nobody else can be reached.",
             calling(f"import os, signal\nos.kill({_target}, signal.{_signal})"), *HARMLESS)  # fmt: skip
_add("kill-every-number", (78,), "No process has another number.", calling("""
    import os, signal
    for number in [*range(2, 3000), *range(-3000, -1)]:
        try: os.kill(number, signal.SIGKILL)
        except ProcessLookupError: continue
        raise AssertionError(number)
    """), WRONG, TIME)  # fmt: skip
_add("kill-threads", (78,), "Nor a thread.", calling("""
    import ctypes
    libc = ctypes.CDLL(None)
    for number in range(2, 3000):
        libc.syscall(200, number, 9); libc.syscall(234, 1, number, 9)
    """), WRONG)  # fmt: skip
_add("parent-death-signal", (78,), "prctl is refused.", syscall(157, "1", "9"), WRONG)
_add("tiocsti", (79,), "No terminal, and no such request.", calling("""
    import fcntl
    for number in range(5):
        for char in "x\\n":
            try: fcntl.ioctl(number, 0x5412, char.encode())
            except OSError: continue
            raise AssertionError
    """), WRONG)  # fmt: skip
_add(
    "tioclinux",
    (79,),
    "Nor the console's.",
    calling("import fcntl; fcntl.ioctl(0, 0x541c, b'\\x03')"),
    RUNTIME,
)
_add("ioctl-high-bits", (77, 79), "Whatever the high bits.", calling("""
    import ctypes
    libc = ctypes.CDLL(None)
    assert libc.ioctl(0, ctypes.c_ulong(0xffffffff00005412), b"x") == -1
    """), WRONG)  # fmt: skip
for _name, _source in {
    "shell": "'; kill -9 $PPID; echo '\ndef solve(*a): return '$(id)`id`'",
    "option": "--help",
    "format": "'%s%n{0.__class__}'\ndef solve(*a): return '%n' * 100 + '{0.__globals__}'",
    "quotes": "def solve(*a): return '\"; import os #\\'\\'\\''",
}.items():
    _add(f"injection-{_name}", (80,), "A program is bytes on a pipe; no shell, no option, no format.", _source,
         WRONG, RUNTIME, COMPILE)  # fmt: skip
_add("path-race", (81,), "Nobody outside opens a path of the sandbox.", calling("""
    import os, threading
    def swap():
        while True:
            try: os.symlink("/etc/passwd", "out.txt"); os.unlink("out.txt"); open("out.txt", "w").close(); os.unlink("out.txt")
            except OSError: pass
    threading.Thread(target=swap, daemon=True).start()
    """), WRONG)  # fmt: skip
