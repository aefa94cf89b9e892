"""A process that is killed while it records: what it was told is recorded, is; and nothing is half there."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from job_service import lines_of

import grader
from grader.server.jobs.database import Database
from grader.server.jobs.leases import Leases
from grader.server.jobs.store import JobStore
from grader.server.jobs.tables import jobs, keys, requests

_WRITER = """
import sys
from grader.server.jobs.database import Database
from grader.server.jobs.leases import Leases
from grader.server.jobs.records import Entry, NewJob
from grader.server.jobs.store import JobStore

database = Database(sys.argv[1])
database.open()
store, leases = JobStore(database), Leases(database, "writer", lease_s=3600)
for number in range(1000):
    new = NewJob(tenant="a", owner="{}", suite="s", samples=10_000, request=b"r", key=str(number), fingerprint="f")
    print("accepted", store.accept(new)[0].id, flush=True)
    lease = leases.claim()
    for first in range(0, 50, 7):
        entries = [Entry(n, "passed", f'"{n}"' * 20) for n in range(first, first + 7)]
        leases.record([(lease, entries)])
        print("recorded", lease.job.id, lease.recorded, flush=True)
"""


@settings(max_examples=8)
@given(lines=st.integers(1, 60), pause_us=st.integers(0, 20_000))
def test_killed_writer_leaves_what_it_said_and_nothing_by_halves(lines: int, pause_us: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder, 'jobs.sqlite3')}"
        writer = subprocess.Popen(
            [sys.executable, "-P", "-c", _WRITER, url], stdout=subprocess.PIPE, text=True,
            env={"PYTHONPATH": str(Path(grader.__file__).parent.parent)},
        )  # fmt: skip
        assert writer.stdout is not None
        said = [writer.stdout.readline().split() for _ in range(lines)]
        time.sleep(pause_us / 1e6)  # so that it is anywhere in its next transaction
        writer.send_signal(signal.SIGKILL)
        said += [
            line.split() for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")
        ]
        writer.wait()
        writer.stdout.close()
        check(url, [words for words in said if words])


def check(url: str, said: list[list[str]]) -> None:
    accepted = [words[1] for words in said if words[0] == "accepted"]
    recorded = {words[1]: int(words[2]) for words in said if words[0] == "recorded"}
    database = Database(url)
    database.open()
    store = JobStore(database)
    there = {job.id: job for job in store.page("a", before=None, limit=10_000)}
    assert set(accepted) <= there.keys()
    assert len(there) <= len(accepted) + 1
    for name, job in there.items():
        assert job.recorded >= recorded.get(name, 0)
        assert job.statuses == ({"passed": job.recorded} if job.recorded else {})
        lines = lines_of(store, "a", name, after=0, limit=1000)
        assert lines == [f'"{n}"' * 20 for n in range(job.recorded)]
    with database.read() as connection:
        ids = set(connection.execute(sa.select(jobs.c.id)).scalars())
        assert set(connection.execute(sa.select(requests.c.job_id)).scalars()) == ids
        assert set(connection.execute(sa.select(keys.c.job_id)).scalars()) == ids
    leases = Leases(database, "next", lease_s=3600)
    leases.take_over()
    claimed = set()
    while lease := leases.claim():
        claimed.add(lease.job.id)
        assert [position for position, _ in leases.recorded(lease)] == list(range(lease.recorded))
    assert claimed == there.keys()
    database.close()
