"""The filter is run, instruction by instruction, on made-up system calls; the kernel is not asked.

What is expected of it is written down here once more, in the words of its rules: a call is allowed, refused with
an error number, or ends the process.
"""

from __future__ import annotations

import errno
import fcntl
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grader.sandbox import seccomp

X86_64 = 0xC000003E
I386 = 0x40000003
AARCH64 = 0xC00000B7
X32 = 0x40000000
ALLOW, KILL = "allow", "kill"

FILTERS = [
    [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    for program in seccomp.sample_filters()
]


def decide(number: int, arguments: tuple[int, ...] = (), architecture: int = X86_64) -> str | int:
    """What the kernel makes of a sample's call: the strictest of its filters' answers (seccomp(2))."""
    answers = [run(instructions, number, arguments, architecture) for instructions in FILTERS]
    if KILL in answers:
        return KILL
    return next((answer for answer in answers if answer != ALLOW), ALLOW)


def run(
    instructions: list[tuple[int, ...]], number: int, arguments: tuple[int, ...], architecture: int
) -> str | int:
    """Interpret the classic BPF program (bpf(4); linux/filter.h) on a struct seccomp_data."""
    padded = [argument & 0xFFFFFFFFFFFFFFFF for argument in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, architecture, 0, *padded)
    accumulator, at = 0, 0
    for _ in range(len(instructions)):
        code, if_true, if_false, value = instructions[at]
        at += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            assert value % 4 == 0
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x05:  # BPF_JMP | BPF_JA
            at += value
        elif code in (0x15, 0x35, 0x45):  # BPF_JMP | BPF_JEQ, BPF_JGE, BPF_JSET, each with BPF_K
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}
            at += if_true if holds[code] else if_false
        else:
            assert code == 0x06, f"instruction {code:#x} is none that the filter needs"  # BPF_RET | BPF_K
            return _action(value)
    raise AssertionError("the program runs in a circle, which the kernel would refuse")


def _action(value: int) -> str | int:
    if value & 0xFFFF0000 == 0x00050000:
        return value & 0xFFFF
    return {0x7FFF0000: ALLOW, 0x80000000: KILL}[value]


BY_ARGUMENT = {16: "ioctl", 53: "socketpair", 56: "clone", 72: "fcntl", 157: "prctl", 202: "futex"}
LIMITING = {160: "setrlimit", 302: "prlimit64", 2: "open", 257: "openat", 293: "pipe2", 26: "msync"}
"""Allowed, but for one argument."""
DONE = 0
"""Refused with no error: nothing is done, and the program is told that all went well."""


def rule(number: int) -> str | int:
    """What the tables say of a call whose arguments do not matter."""
    if number in (74, 75):  # fsync fdatasync
        return DONE
    if number in seccomp._ALLOWED.values():
        return ALLOW
    if number in seccomp._KILLED.values():
        return KILL
    return errno.ENOSYS if number in seccomp._NO_SUCH_CALL.values() else errno.EPERM


@pytest.mark.parametrize("argument", [0, 1, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF], ids=hex)
def test_every_call_is_decided_by_its_rule(argument):
    wrong = {
        number: (decide(number, (argument,) * 6), rule(number))
        for number in range(501)
        if number not in BY_ARGUMENT | LIMITING and decide(number, (argument,) * 6) != rule(number)
    }
    assert wrong == {}


@given(st.integers(0, X32 - 1), st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_no_argument_changes_what_its_number_decides(number, arguments):
    if number not in BY_ARGUMENT | LIMITING:
        assert decide(number, tuple(arguments)) == rule(number)


def test_the_tables_name_no_call_twice():
    tables = (seccomp._ALLOWED, seccomp._KILLED, seccomp._NO_SUCH_CALL, dict.fromkeys(BY_ARGUMENT.values()))
    names = [name for table in tables for name in table]
    numbers = [number for table in tables[:3] for number in table.values()] + list(BY_ARGUMENT)
    assert len(set(names)) == len(names)
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("architecture", [I386, AARCH64, 0, 0xFFFFFFFF], ids=hex)
def test_another_architecture_is_killed_whatever_it_calls(architecture):
    """On i386 the numbers mean other calls: 1 is exit here and write there."""
    assert {decide(number, architecture=architecture) for number in range(501)} == {KILL}


def test_the_x32_numbers_are_killed():
    assert {decide(X32 | number) for number in range(700)} == {KILL}
    assert decide(0xFFFFFFFF) == KILL  # -1 is what a tracer uses to skip a call
    assert decide(X32 - 1) == errno.EPERM


@pytest.mark.parametrize("request_number", [0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451], ids=hex)
def test_harmless_requests_of_ioctl_are_allowed(request_number):
    assert decide(16, (1, request_number)) == ALLOW


@pytest.mark.parametrize("request_number", [0x5412, 0x541C, 0x5402, 0, 0x8912, 0xFFFF5401], ids=hex)
def test_other_requests_of_ioctl_meet_no_terminal(request_number):
    """TIOCSTI and TIOCLINUX, which type into the user's terminal, are among them."""
    assert decide(16, (1, request_number)) == errno.ENOTTY


def test_only_unix_socket_pairs_are_allowed():
    assert decide(53, (1, 1)) == ALLOW
    for family in (0, 2, 10, 16, 17, 38, 40):
        assert decide(53, (family, 1)) == errno.EACCES


def test_fcntl_neither_locks_nor_watches_files_that_every_cell_has():
    refused = [command for command in range(1031) if decide(72, (3, command)) != ALLOW]
    assert refused == [fcntl.F_GETLK, fcntl.F_SETLK, fcntl.F_SETLKW, 36, 37, 38, fcntl.F_SETLEASE, fcntl.F_GETLEASE,
                       fcntl.F_NOTIFY]  # fmt: skip
    assert {decide(72, (3, command)) for command in refused} == {errno.ENOLCK}
    assert decide(73) == errno.EPERM  # flock


@pytest.mark.parametrize(
    "wait", [0, 9, 6, 8, 11, 13]
)  # WAIT, WAIT_BITSET, and those of locks with priorities
def test_no_wait_is_on_a_page_that_every_cell_has(wait):
    """Such a page is of a file in the root, and who waits there could be woken, and counted, from another cell."""
    private, clock = 128, 256
    assert decide(202, (0, wait)) == decide(202, (0, wait | clock)) == errno.EAGAIN
    assert decide(202, (0, wait | private)) == decide(202, (0, wait | private | clock)) == ALLOW


def test_no_pipe_is_made_wider():
    """All cells' pipes count against one user's limit."""
    assert decide(72, (3, 1031, 1 << 20)) == errno.EPERM  # F_SETPIPE_SZ
    assert decide(72, (3, (1 << 32) | 1031, 1 << 20)) == errno.EPERM  # the kernel takes an int
    assert decide(72, (3, 1032)) == ALLOW  # F_GETPIPE_SZ


def test_no_pipe_is_in_packet_mode_and_no_file_is_read_past_the_cache():
    direct, other = 0x4000, 0x2C02  # O_DIRECT; O_RDWR, O_NONBLOCK, O_APPEND, O_ASYNC
    for number, arguments in ((72, (1, 4)), (293, (0x7000,)), (2, (0x7000,)), (257, (5, 0x7000))):
        assert decide(number, (*arguments, other)) == ALLOW
        assert decide(number, (*arguments, direct)) == errno.EINVAL
        assert decide(number, (*arguments, other | direct | 1 << 32)) == errno.EINVAL
    assert decide(72, (1, 1030, direct)) == ALLOW  # F_DUPFD_CLOEXEC takes a number there


def test_nothing_has_the_host_write_to_its_disk():
    """Of a file in the root, that is; what a sample can write to is memory."""
    asynchronous, invalidate, synchronous = 1, 2, 4
    assert decide(74, (3,)) == decide(75, (3,)) == DONE
    assert (
        decide(26, (0x7000, 4096, synchronous))
        == decide(26, (0x7000, 4096, synchronous | invalidate))
        == DONE
    )
    assert decide(26, (0x7000, 4096, asynchronous)) == ALLOW
    assert {decide(number) for number in (162, 277, 306)} == {errno.EPERM}  # sync sync_file_range syncfs


def test_no_limit_of_cpu_time_can_be_set():
    """For which the kernel would kill, as else only somebody outside can."""
    assert {decide(160, (resource, 0x7000)) for resource in range(1, 16)} == {ALLOW}
    assert decide(160, (0, 0x7000)) == errno.EPERM
    assert decide(160, (1 << 32, 0x7000)) == errno.EPERM  # the kernel takes an int
    assert {decide(302, (0, resource, 0x7000, 0)) for resource in range(1, 16)} == {ALLOW}
    assert decide(302, (0, 0, 0, 0x7000)) == ALLOW  # how glibc reads one
    for new in (0x7000, 0x7F00_0000_0000, 1 << 32):
        assert decide(302, (0, 0, new, 0)) == errno.EPERM


def test_prctl_names_a_thread_and_nothing_else():
    assert [option for option in range(100) if decide(157, (option,)) == ALLOW] == [15, 16]
    assert {decide(157, (option,)) for option in range(100) if option not in (15, 16)} == {errno.EPERM}


# What glibc's pthread_create asks for (clone(2), and nptl's createthread.c).
THREAD = 0x3D0F00
NAMESPACES = {
    "time": 0x80, "mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000,
    "pid": 0x20000000, "net": 0x40000000,
}  # fmt: skip


def test_clone_makes_threads_but_no_processes():
    assert decide(56, (THREAD,)) == ALLOW
    assert decide(56, (17,)) == errno.EPERM  # fork: SIGCHLD alone
    assert decide(56, (0x4111,)) == errno.EPERM  # vfork


@pytest.mark.parametrize("name", NAMESPACES)
def test_clone_into_a_namespace_is_killed(name):
    assert decide(56, (NAMESPACES[name] | 17,)) == KILL
    assert decide(56, (NAMESPACES[name] | THREAD,)) == KILL


@pytest.mark.parametrize(
    ("name", "number"),
    {"fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "socket": 41, "connect": 42, "bind": 49, "setuid": 105,
     "capset": 126, "personality": 135, "seccomp": 317, "landlock_restrict_self": 446, "mknod": 133, "chown": 92,
     "inotify_init": 253, "setxattr": 188, "shmget": 29, "msgget": 68, "semget": 64, "memfd_secret": 447,
     "sched_setaffinity": 203, "sched_setscheduler": 144, "setpriority": 141, "vhangup": 153}.items(),
)  # fmt: skip
def test_what_an_honest_program_may_try_is_refused_as_an_oserror(name, number):
    assert decide(number) == errno.EPERM


@pytest.mark.parametrize(
    ("name", "number"),
    {"ptrace": 101, "mount": 165, "unshare": 272, "setns": 308, "bpf": 321, "keyctl": 250, "init_module": 175,
     "perf_event_open": 298, "process_vm_readv": 310, "io_uring_setup": 425, "userfaultfd": 323,
     "open_by_handle_at": 304, "chroot": 161, "pivot_root": 155, "pidfd_getfd": 438}.items(),
)  # fmt: skip
def test_what_only_an_attack_calls_is_killed(name, number):
    assert decide(number) == KILL


def test_calls_that_have_an_older_form_are_said_not_to_exist():
    for number in (435, 319, 434, 437):  # clone3 memfd_create pidfd_open openat2
        assert decide(number) == errno.ENOSYS


@pytest.mark.parametrize("which", [0, 1], ids=["inherited", "own"])
def test_each_program_is_one_that_the_kernel_takes(which):
    instructions = FILTERS[which]
    assert len(seccomp.sample_filters()[which]) % 8 == 0
    assert len(instructions) <= 4096  # BPF_MAXINSNS
    for at, (code, if_true, if_false, value) in enumerate(instructions):
        assert code in (0x20, 0x05, 0x15, 0x35, 0x45, 0x06)
        if code in (0x15, 0x35, 0x45):
            assert at + 1 + max(if_true, if_false) < len(instructions)
        if code == 0x05:
            assert at + 1 + value < len(instructions)
    assert instructions[-1][0] == 0x06


def test_the_zygotes_filter_lets_through_what_confines_a_sample_and_no_more():
    inherited = FILTERS[0]
    more = {number for number in range(501) if run(inherited, number, (), X86_64) != decide(number)}
    assert more == {56, 112, 116, 117, 119, 126, 157, 165, 444, 445, 446}


def test_the_filter_that_every_sample_installs_is_short():
    """The kernel compiles it each time."""
    assert len(FILTERS[1]) < 70


@pytest.mark.parametrize("which", [0, 1], ids=["inherited", "own"])
def test_a_decision_is_a_short_way(which):
    """The kernel runs the filter for every call: a bisection, not a walk through the list."""
    depth = 0
    for number in range(501):
        steps, at, accumulator = 0, 0, 0
        while True:
            code, if_true, if_false, value = FILTERS[which][at]
            at, steps = at + 1, steps + 1
            if code == 0x06:
                break
            if code == 0x20:
                accumulator = {0: number, 4: X86_64}.get(value, 0)
            elif code == 0x05:
                at += value
            else:
                holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: accumulator & value}[
                    code
                ]
                at += if_true if holds else if_false
        depth = max(depth, steps)
    assert depth < 30
