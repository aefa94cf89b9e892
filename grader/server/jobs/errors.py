"""What can go wrong with jobs and idempotency keys, beyond what any request can meet."""

from grader.errors import InfrastructureError
from grader.server.problems import Refused

_ROOM_AFTER_S = 60.0


class StoreUnavailableError(InfrastructureError):
    """The database cannot be read or written now, e.g. its disk is full; what was accepted is not lost.

    ``retry_after_s``: wall-clock seconds after which it is worth trying again.
    """

    def __init__(self, message: str, retry_after_s: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def refusal(self) -> Refused:
        """Return the problem that a client is answered with; the cause is for the log."""
        said = "the service cannot keep or read jobs now; nothing accepted is lost, send this again later"
        return Refused(said, status=503, title="Store unavailable", retry_after_s=self.retry_after_s)


def key_reused() -> Refused:
    """Return the refusal of an idempotency key that came back with another request."""
    said = "this key was sent with another request before; give every request a key of its own"
    return Refused(said, place="Idempotency-Key", title="Idempotency key reused")


def job_gone() -> Refused:
    """Return the refusal of an idempotency key whose job has been deleted."""
    said = "the job that this key made has been deleted; send the request with a new key to have it again"
    return Refused(said, status=409, title="Job deleted")


def no_such_job() -> Refused:
    """Return the refusal for a job that is not there, or not this tenant's: the two are not told apart."""
    return Refused("there is no such job", status=404, title="No such job")


def too_much_kept(what: str) -> Refused:
    """Return the refusal of a job that would take a tenant above a bound."""
    said = f"{what}; wait until some of the tenant's jobs are done, or delete some"
    return Refused(said, status=429, title="Too many jobs", retry_after_s=_ROOM_AFTER_S)
