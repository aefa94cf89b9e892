"""The store against a model of it, through any sequence of what replicas and tenants do."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from job_service import lines_of

from grader.server.jobs import retention
from grader.server.jobs.database import Database
from grader.server.jobs.leases import Leases
from grader.server.jobs.records import Bounds, Entry, Lease, NewJob
from grader.server.jobs.store import JobStore
from grader.server.jobs.tables import jobs

OWNERS = ("one", "two")
SAMPLES = 6


@dataclass
class Known:
    """What the model knows of a job. ``recorded``: positions in order; ``holder``: who has the lease, if anybody."""

    tenant: str
    recorded: list[int] = field(default_factory=list)
    holder: str | None = None
    is_finished: bool = False


class StoreStates(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database(f"sqlite:///{Path(self.folder.name, 'jobs.sqlite3')}")
        self.database.open()
        self.store = JobStore(self.database)
        self.leases = {owner: Leases(self.database, owner, lease_s=86_400) for owner in OWNERS}
        self.held: list[Lease] = []
        self.known: dict[str, Known] = {}
        self.keys: dict[str, str] = {}

    def teardown(self) -> None:
        self.database.close()
        self.folder.cleanup()

    @rule(tenant=st.sampled_from("ab"), key=st.sampled_from([None, "k", "l"]))
    def accept(self, tenant: str, key: str | None) -> None:
        name = f"{tenant}{key}"
        if key is not None and self.keys.get(name, "") not in self.known and name in self.keys:
            return  # the job has been deleted, which is refused
        new = NewJob(
            tenant=tenant, owner="{}", suite="s", samples=SAMPLES, request=b"r", key=key, fingerprint="f"
        )
        job, is_new = self.store.accept(new)
        assert is_new == (key is None or name not in self.keys)
        if is_new:
            assert job.id not in self.known
            self.known[job.id] = Known(tenant)
            if key is not None:
                self.keys[name] = job.id
        else:
            assert job.id == self.keys[name]

    @rule(owner=st.sampled_from(OWNERS))
    def claim(self, owner: str) -> None:
        free = {name for name, job in self.known.items() if job.holder is None and not job.is_finished}
        lease = self.leases[owner].claim()
        assert (lease is None) == (not free)
        if lease is not None:
            assert lease.job.id in free
            assert [position for position, _ in self.leases[owner].recorded(lease)] == self.of(lease).recorded
            self.known[lease.job.id].holder = owner
            self.held.append(lease)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), positions=st.sets(st.integers(0, SAMPLES - 1), min_size=1))
    def record(self, data: st.DataObject, positions: set[int]) -> None:
        lease = data.draw(st.sampled_from(self.held))
        if lease.lost:
            return
        job = self.known.get(lease.job.id)
        believes = lease.recorded
        self.leases[lease.owner].record([(lease, [Entry(p, "passed", f"{p}") for p in sorted(positions)])])
        fits = (
            job is not None
            and job.holder == lease.owner
            and believes == len(job.recorded)
            and not positions & set(job.recorded)
        )
        assert lease.lost != fits
        if fits:
            assert job is not None
            job.recorded.extend(sorted(positions))

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.held))
        if lease.lost:
            return
        job = self.known.get(lease.job.id)
        fits = job is not None and job.holder == lease.owner and lease.recorded == len(job.recorded)
        assert self.leases[lease.owner].finish(lease, "done", summary="{}", failure=None) == fits
        if fits:
            assert job is not None
            job.is_finished, job.holder = True, None

    @rule(owner=st.sampled_from(OWNERS))
    def release(self, owner: str) -> None:
        self.leases[owner].release()
        self.let_go(owner)

    @rule(owner=st.sampled_from(OWNERS))
    def expire(self, owner: str) -> None:
        """The owner has not been heard of for long."""
        with self.database.write() as connection:
            connection.execute(jobs.update().where(jobs.c.lease_owner == owner).values(lease_until=0.0))
        self.let_go(owner)

    def let_go(self, owner: str) -> None:
        for job in self.known.values():
            if job.holder == owner:
                job.holder = None
        # Whoever is taken for dead knows nothing of it; but it is started anew before it works again.
        for lease in self.held:
            lease.lost |= lease.owner == owner

    @precondition(lambda self: self.known)
    @rule(data=st.data(), tenant=st.sampled_from("ab"))
    def delete(self, data: st.DataObject, tenant: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.known)))
        assert self.store.delete(tenant, name) == (self.known[name].tenant == tenant)
        if self.known[name].tenant == tenant:
            del self.known[name]

    @rule()
    def sweep(self) -> None:
        retention.sweep(self.database, Bounds())

    @rule()
    def reopen(self) -> None:
        self.database.close()
        self.database = Database(str(self.database.url))
        self.database.open()
        self.store = JobStore(self.database)
        self.leases = {owner: Leases(self.database, owner, lease_s=86_400) for owner in OWNERS}
        self.leases["one"].take_over()
        for owner in OWNERS:
            self.let_go(owner)

    def of(self, lease: Lease) -> Known:
        return self.known[lease.job.id]

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        for tenant in "ab":
            mine = {name: job for name, job in self.known.items() if job.tenant == tenant}
            shown = {job.id: job for job in self.store.page(tenant, before=None, limit=1000)}
            assert shown.keys() == mine.keys()
            for name, job in mine.items():
                assert shown[name].recorded == len(job.recorded)
                assert shown[name].statuses == ({"passed": len(job.recorded)} if job.recorded else {})
                assert (shown[name].state == "done") == job.is_finished
                lines = lines_of(self.store, tenant, name, after=0, limit=1000)
                assert lines == [str(position) for position in job.recorded]

    @invariant()
    def nothing_is_left_of_what_is_gone(self) -> None:
        with self.database.read() as connection:
            there = set(connection.execute(sa.select(jobs.c.id).where(jobs.c.state != "deleted")).scalars())
        assert there == self.known.keys()


TestStoreStates = StoreStates.TestCase
TestStoreStates.settings = settings(max_examples=25, stateful_step_count=25)
