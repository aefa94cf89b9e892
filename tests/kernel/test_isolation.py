"""Each layer of the embedded sandbox: as a program meets it from inside, and as the host's kernel tells of it."""

from __future__ import annotations

import errno
import json

import pytest

LIMITS = {"threads": 20, "tmp_bytes": 8 << 20, "memory_bytes": 512 << 20}

# Runs inside. Its first answer is what it found; then it waits to be looked at from outside.
FACTS = r'''
import errno, json, os, resource, socket, stat, sys

FIRST = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}

def attempt(action):
    """The name of the error that an action meets, "" where it succeeds."""
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return ""

def write_below(folder):
    def action():
        with open(os.path.join(folder, "probe"), "w") as file:
            file.write("x")
    return action

def truncate(path):
    return lambda: open(path, "r+b").close()

def open_descriptors():
    found = []
    for handle in range(1024):
        if attempt(lambda: os.fstat(handle)) == "":
            found.append(handle)
    return found

def facts(step):
    if step:
        while True:
            pass
    everything = [os.path.join(at, name) for at, folders, files in os.walk("/") for name in folders + files]
    scratch = os.statvfs("/tmp")
    return json.dumps({
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "pid": [os.getpid(), os.getppid()],
        "kill_others": attempt(lambda: os.kill(2, 0)),
        "top": sorted(os.listdir("/")),
        "devices": sorted(os.listdir("/dev")),
        "characters": all(stat.S_ISCHR(os.stat("/dev/" + name).st_mode) for name in os.listdir("/dev")),
        "tmp": os.listdir("/tmp"),
        "tmp_size": scratch.f_blocks * scratch.f_frsize,
        "tmp_mode": oct(os.stat("/tmp").st_mode & 0o777),
        "write": {folder: attempt(write_below(folder)) for folder in ("/", "/dev", "/python", "/runner", "/tmp")},
        "truncate": {path: attempt(truncate(path)) for path in
                     (sys.executable, "/runner/sample.py", "/dev/zero", "/dev/full", "/dev/null")},
        "proc": [os.path.exists(path) for path in ("/proc", "/sys", "/etc", "/home", "/root", "/var", "/run")],
        "network": {str(family): attempt(lambda: socket.socket(family, socket.SOCK_STREAM))
                    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK)},
        "fork": attempt(os.fork),
        "execute": attempt(lambda: os.execv(sys.executable, ["python"])),
        "node": os.uname().nodename,
        "environment": dict(os.environ),
        "descriptors": open_descriptors(),
        "limits": {name: resource.getrlimit(getattr(resource, name))
                   for name in dir(resource) if name.startswith("RLIMIT_")},
        "raise_limit": raise_limit(),
        "path": sys.path,
        "modules": FIRST,
        "argv": sys.argv,
        "packages": sorted(os.listdir("/python/site-packages")),
        "everything": everything,
        "directory": os.getcwd(),
        "executable": sys.executable,
        "hash": hash("seeded"),
    })

def raise_limit():
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100000, 100000))
    except (OSError, ValueError) as error:
        return type(error).__name__
    return ""
'''


@pytest.fixture(scope="module")
def looked(user):
    found = user.run({"source": FACTS, "entry_point": "facts", "inputs": [[0], [1]], "look": True}, **LIMITS)
    (run,) = found["runs"]
    assert run["raised"] == []
    assert run["ended"] == "cancelled"
    return json.loads(run["answers"][0]), run["host"], found


@pytest.fixture
def inside(looked):
    return looked[0]


@pytest.fixture
def host(looked):
    return looked[1]


def test_it_is_nobody_and_in_no_other_group(inside):
    uids, gids, groups = inside["ids"]
    assert set(uids) == set(gids) == {65534}
    assert set(groups) <= {65534}


def test_outside_it_is_not_root_either(host):
    """To the kernel it is the user who made the cell or, where that is root, nobody."""
    assert "0" not in host["status"]["Uid"].split()
    assert "0" not in host["status"]["Gid"].split()
    assert "0" not in host["status"]["Groups"].split()


def test_it_has_no_capability_and_no_way_to_one(host):
    sets = {
        name: int(host["status"][name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd")
    }
    assert sets == dict.fromkeys(sets, 0)
    assert host["status"]["NoNewPrivs"] == "1"


def test_every_namespace_is_another_than_ours(host):
    shared = [name for name, ours in host["our_namespaces"].items() if host["namespaces"][name] == ours]
    assert shared == []


def test_it_is_alone_in_its_process_namespace(inside, host):
    assert inside["pid"] == [1, 0]
    assert host["status"]["NSpid"].split()[-1] == "1"
    assert inside["kill_others"] == "ESRCH"


def test_it_sees_the_folders_of_the_cell_and_no_others(inside):
    allowed = {"dev", "lib", "lib64", "python", "runner", "tmp", "usr"}
    assert set(inside["top"]) <= allowed, inside["top"]
    assert {"dev", "python", "runner", "tmp"} <= set(inside["top"])
    assert not any(inside["proc"])


def test_its_mounts_are_read_only_except_its_scratch_folder(inside, host):
    options = {mount[4]: set(mount[5].split(",")) for mount in host["mounts"]}
    assert set(options) == {"/", "/runner", "/tmp", *(f"/dev/{name}" for name in inside["devices"])}
    for place, found in options.items():
        assert "nosuid" in found, place
        assert "nodev" in found or place.startswith("/dev/"), place
    assert {place for place, found in options.items() if "rw" in found} == {
        "/tmp",
        *(f"/dev/{name}" for name in inside["devices"]),
    }
    assert "noexec" in options["/tmp"]
    assert "noexec" in options["/runner"]


def test_it_can_write_to_its_scratch_folder_alone(inside):
    refused = {folder for folder, error in inside["write"].items() if error in ("EROFS", "EACCES", "EPERM")}
    assert refused == {"/", "/dev", "/python", "/runner"}
    assert inside["write"]["/tmp"] == ""
    for path in ("/runner/sample.py", inside["executable"]):
        assert inside["truncate"][path] in ("EROFS", "EACCES")


def test_its_scratch_folder_is_its_own_empty_and_of_the_size_that_is_allowed(inside):
    assert inside["tmp"] == []
    assert inside["tmp_size"] == LIMITS["tmp_bytes"]
    assert inside["tmp_mode"] == "0o700"
    assert inside["directory"] == "/tmp"


def test_it_has_five_harmless_devices(inside):
    assert inside["devices"] == ["full", "null", "random", "urandom", "zero"]
    assert inside["characters"]


def test_landlock_is_in_force(inside, looked):
    """The mounts let /dev/full be written to; only landlock says no."""
    if not any(layer.startswith("landlock") for layer in looked[2]["layers"]):
        pytest.fail("the required layer landlock is not in force")
    assert inside["truncate"]["/dev/full"] == "EACCES"
    assert inside["truncate"]["/dev/zero"] == "EACCES"
    assert inside["truncate"]["/dev/null"] == ""


def test_seccomp_is_in_force(inside, host):
    assert host["status"]["Seccomp"] == "2"  # SECCOMP_MODE_FILTER
    assert inside["fork"] == "EPERM"
    assert inside["execute"] == "EPERM"


def test_there_is_no_network_but_a_loopback_that_is_down(inside, host):
    assert host["interfaces"] == ["lo"]
    assert host["addresses"].strip() == ""
    assert host["routes"] == []
    assert set(inside["network"].values()) == {"EPERM"}
    assert host["sockets"] == []


def test_a_crash_starts_no_program_of_the_host(host):
    """Where core_pattern names one, a limit of 0 bytes does not keep the kernel from it: the process is not dumpable.

    The files of such a process in procfs belong to root.
    """
    assert host["owner_of_its_files"] == 0


def test_it_does_not_learn_the_hosts_name(inside):
    assert inside["node"] == "cell"


def test_its_environment_is_the_cells(inside):
    assert inside["environment"] == {
        "PATH": "", "LD_LIBRARY_PATH": "/python/lib", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "HOME": "/tmp",
        "TMPDIR": "/tmp", "TZ": "UTC", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    }  # fmt: skip


def test_no_descriptor_is_open_but_its_three_streams_and_the_answers(inside):
    assert inside["descriptors"] == [0, 1, 2, 3]


def test_its_resource_limits_are_set_and_cannot_be_raised(inside):
    limits = {name: tuple(pair) for name, pair in inside["limits"].items()}
    for name, value in {
        "RLIMIT_CORE": 0, "RLIMIT_NOFILE": 256, "RLIMIT_NPROC": LIMITS["threads"], "RLIMIT_MEMLOCK": 0,
        "RLIMIT_FSIZE": LIMITS["tmp_bytes"], "RLIMIT_MSGQUEUE": 0,
    }.items():  # fmt: skip
        assert limits[name] == (value, value), name
    assert 0 < limits["RLIMIT_STACK"][1] <= 64 << 20
    assert inside["raise_limit"] in ("ValueError", "PermissionError")


def test_memory_and_processes_are_limited(inside, host, looked):
    layers = looked[2]["layers"]
    if "memory_rlimit" in layers:
        assert LIMITS["memory_bytes"] <= inside["limits"]["RLIMIT_AS"][1] < 2 * LIMITS["memory_bytes"]
        return
    version = 1 if "memory_cgroup_v1" in layers else 2
    files = host["group_files"]
    memory = int(files["memory.limit_in_bytes" if version == 1 else "memory.max"])
    assert LIMITS["memory_bytes"] <= memory <= LIMITS["memory_bytes"] + (128 << 20)
    assert LIMITS["threads"] <= int(files["pids.max"]) <= LIMITS["threads"] + 16
    (name,) = host["group_names"]
    assert any(line.endswith(name) for line in host["cgroups"]), "the sample is not in the cell's group"
    # What may be mapped is a multiple of what may be used; but its page tables, 1/512 of it, fit beside the runner.
    soft, hard = inside["limits"]["RLIMIT_AS"]
    assert 8 * LIMITS["memory_bytes"] < soft == hard < 512 * (48 << 20)


def test_no_path_of_the_host_is_in_its_interpreter(inside):
    places = [*inside["path"], *filter(None, inside["modules"].values()), inside["executable"]]
    foreign = [place for place in places if not place.startswith(("/python/", "/runner"))]
    assert foreign == []


def test_it_has_the_runner_and_nothing_else_of_the_grader(inside):
    roots = {name.split(".")[0] for name in inside["modules"]}
    assert "grader" not in roots
    assert not roots & {"pydantic", "typer", "rich", "docker", "ray", "pytest"}
    words = ("grader", "evalplus", "humaneval", "mbpp", "starter", ".jsonl", "canonical", "bundle.py")
    found = [path for path in inside["everything"] if any(word in path.lower() for word in words)]
    assert found == []
    assert len(inside["everything"]) > 500, "the walk saw nothing"


def test_its_packages_are_those_of_the_sandbox(inside):
    kinds = {name.split("-")[0].split(".")[0] for name in inside["packages"]}
    assert kinds == {"numpy"}


def test_nothing_in_it_leads_to_the_supervisor(inside):
    assert inside["argv"] == ["program.py"]


def test_every_layer_is_named(looked, user):
    layers = looked[2]["layers"]
    for layer in ("userns", "mountns", "pidns", "netns", "ipcns", "utsns", "cgroupns", "readonly_root",
                  "no_capabilities", "no_new_privs", "seccomp", "rlimits"):  # fmt: skip
        assert layer in layers
    assert any(layer.startswith("memory_") for layer in layers)


def test_strings_have_the_same_hashes_in_every_cell(looked, this_user):
    again = this_user.run({"source": "def f():\n    return hash('seeded')", "entry_point": "f"})
    assert again["runs"][0]["answers"] == [looked[0]["hash"]]


HIDING = """
import os, threading, time
def leave():
    with open("/tmp/left", "w") as file:
        file.write("here")
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    return sorted(os.listdir("/tmp"))
"""
FINDING = "import os, threading\ndef find():\n    return [os.listdir('/tmp'), threading.active_count()]"


def test_a_sample_leaves_nothing_to_the_next(user):
    left, found = user.run(
        {"source": HIDING, "entry_point": "leave"}, {"source": FINDING, "entry_point": "find"}
    )["runs"]
    assert left["answers"] == [["left"]]
    assert found["answers"] == [[[], 1]]


def test_the_kernel_kills_what_only_an_attack_calls(user):
    source = "import ctypes\ndef f():\n    return ctypes.CDLL(None).unshare(0x10000000)"
    (run,) = user.run({"source": source, "entry_point": "f"})["runs"]
    assert (run["ended"], run["signal"]) == ("signalled", 31)  # SIGSYS
    assert run["answers"] == []


def test_what_an_honest_program_tries_it_may_handle(user):
    source = "import os\ndef f():\n    try: os.fork()\n    except OSError as error: return error.errno"
    (run,) = user.run({"source": source, "entry_point": "f"})["runs"]
    assert run["answers"] == [errno.EPERM]
