"""The tables of jobs, verdicts and idempotency keys. Times are seconds since the epoch."""

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 1

metadata = MetaData()

schema_version = Table("grader_schema", metadata, Column("version", Integer, primary_key=True))

# ``recorded`` is both the number of verdicts and the ``seq`` of the last one. The whole row is written anew with
# every group of verdicts, which is why the request is not in it.
jobs = Table(
    "grader_jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant", String(256), nullable=False),
    Column("owner", Text, nullable=False),
    Column("suite", String(512), nullable=False),
    Column("state", String(16), nullable=False),
    Column("samples", Integer, nullable=False),
    Column("recorded", Integer, nullable=False, default=0),
    Column("statuses", Text, nullable=False, default="{}"),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    Column("summary", Text),
    Column("failure", Text),
    Column("lease_owner", String(64)),
    Column("lease_until", Double, nullable=False, default=0.0),
    Index("grader_jobs_by_tenant", "tenant", "id"),
    Index("grader_jobs_by_state", "state", "lease_until"),
)

requests = Table(
    "grader_job_requests",
    metadata,
    Column("job_id", ForeignKey(jobs.c.id, ondelete="CASCADE"), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

# ``seq`` counts a job's verdicts in the order in which they were recorded, from 1, without a gap: the cursor of a
# reader. ``position`` is the sample's place in the request; its being unique is what "graded once" rests on.
verdicts = Table(
    "grader_verdicts",
    metadata,
    Column("job_id", ForeignKey(jobs.c.id, ondelete="CASCADE"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, nullable=False),
    Column("line", Text, nullable=False),
    UniqueConstraint("job_id", "position"),
    sqlite_with_rowid=False,
)

# A key of a job outlives the job, so that a late repetition of the request does not make it again.
keys = Table(
    "grader_idempotency_keys",
    metadata,
    Column("tenant", String(256), primary_key=True),
    Column("route", String(64), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("job_id", String(32)),
    Column("answer", LargeBinary),
    Column("bytes", BigInteger, nullable=False, default=0),
    # Has all that is asked about what the answers take together: a row's ``bytes`` lies behind its answer.
    Index("grader_idempotency_keys_by_room", "created_at", "job_id", "bytes"),
)
