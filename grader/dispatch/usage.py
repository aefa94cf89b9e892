"""How much room there is, and who has it."""

from __future__ import annotations

from collections.abc import Collection

from grader.dispatch.events import Item
from grader.errors import OverloadedError

_RETRY_AFTER_S = (1.0, 60.0)


class _Use:
    __slots__ = ("bytes", "cost_s", "samples")

    def __init__(self, samples: int = 0, size_bytes: int = 0) -> None:
        self.samples = samples
        self.bytes = size_bytes
        self.cost_s = 0.0

    def add(self, item: Item, cost_s: float) -> None:
        self.samples += 1
        self.bytes += item.size_bytes
        self.cost_s += cost_s

    def subtract(self, item: Item, cost_s: float) -> None:
        self.samples -= 1
        self.bytes -= item.size_bytes
        # Sums of floats do not end at 0 by themselves.
        self.cost_s = self.cost_s - cost_s if self.samples else 0.0


_NOTHING = _Use()


class Room:
    """The bound on what the dispatcher holds, by samples and bytes, for all and for each tenant.

    What runs counts as well as what waits: it may have to wait again.
    """

    def __init__(self, max_samples: int, max_bytes: int, tenant_share: float) -> None:
        self._limit = (max_samples, max_bytes)
        self._tenant_limit = (max(1, int(max_samples * tenant_share)), max(1, int(max_bytes * tenant_share)))
        self._all = _Use()
        self._tenants: dict[str, _Use] = {}

    def __len__(self) -> int:
        """How many tenants have something here."""
        return len(self._tenants)

    def take(self, item: Item, cost_s: float) -> None:
        """Count an item in, with its estimated cost in seconds of a worker."""
        use = self._tenants.get(item.tenant)
        if use is None:
            use = self._tenants[item.tenant] = _Use()
        use.add(item, cost_s)
        self._all.add(item, cost_s)

    def give_back(self, item: Item, cost_s: float) -> None:
        """Count an item out again."""
        self._all.subtract(item, cost_s)
        use = self._tenants[item.tenant]
        use.subtract(item, cost_s)
        if not use.samples:
            del self._tenants[item.tenant]

    def check(self, items: Collection[Item], workers: int) -> None:
        """Raise OverloadedError unless all of these fit; it says when they may."""
        most, most_bytes = self._tenant_limit
        if self._all.samples + len(items) <= most and (
            self._all.bytes + sum([item.size_bytes for item in items]) <= most_bytes
        ):
            return  # all of it together is less than one tenant may have
        sizes: dict[str, list[int]] = {}
        for item in items:
            sizes.setdefault(item.tenant, []).append(item.size_bytes)
        whole = _Use()
        for tenant, found in sizes.items():
            more = _Use(len(found), sum(found))
            whole.samples += more.samples
            whole.bytes += more.bytes
            held = self._tenants.get(tenant, _NOTHING)
            sharers = len(self._tenants) + (tenant not in self._tenants)
            _check(
                held, more, self._tenant_limit, sharers / max(1, workers), "this tenant's share of the queue"
            )
        _check(self._all, whole, self._limit, 1 / max(1, workers), "the queue")


def _check(held: _Use, more: _Use, limit: tuple[int, int], wall_per_cost: float, where: str) -> None:
    samples, size = limit
    excess_samples, excess_bytes = held.samples + more.samples - samples, held.bytes + more.bytes - size
    if excess_samples <= 0 and excess_bytes <= 0:
        return
    if more.samples > samples or more.bytes > size:
        raise OverloadedError(
            f"a batch of {more.samples} samples and {more.bytes} bytes never fits in {where}, which takes {samples} "
            f"samples and {size} bytes; send it in pieces",
            _RETRY_AFTER_S[0],
        )
    # What is above the bound has to be graded first, at the rate at which what is here is thought to be.
    part = max(excess_samples / max(1, held.samples), excess_bytes / max(1, held.bytes))
    low, high = _RETRY_AFTER_S
    retry_after_s = min(max(part * held.cost_s * wall_per_cost, low), high)
    raise OverloadedError(
        f"{where} has no room for {more.samples} samples and {more.bytes} bytes: it has {held.samples} of {samples} "
        f"samples and {held.bytes} of {size} bytes; try again in {retry_after_s:.0f} s",
        retry_after_s,
    )
