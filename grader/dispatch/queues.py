"""Items that wait: in which order they are served, and when they are no longer wanted."""

from __future__ import annotations

from bisect import insort_left
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from operator import attrgetter
from typing import TYPE_CHECKING

from grader.dispatch.events import PRIORITIES, Item, Priority
from grader.dispatch.heaps import LazyHeap

if TYPE_CHECKING:
    from grader.dispatch.costs import TaskCosts
    from grader.dispatch.crew import Worker

_COST = attrgetter("cost_s")


class Entry:
    """An item that was taken and has no outcome yet.

    ``task`` is what is known of its task. ``cost_s`` is what it was thought to cost when it came, ``charge_s`` what it
    was thought to cost when it was last sent. ``failures`` counts attempts that were lost, ``blames`` those of them
    that were its program's doing; ``avoid`` are the workers that lost them. ``holders`` are the workers that have it
    now, two while it is hedged.
    """

    __slots__ = (
        "avoid",
        "blames",
        "charge_s",
        "cost_s",
        "failures",
        "flow",
        "holders",
        "item",
        "queued",
        "task",
    )

    def __init__(self, item: Item, task: TaskCosts, cost_s: float) -> None:
        self.item = item
        self.task = task
        self.cost_s = cost_s
        self.charge_s = cost_s
        self.flow: _Flow | None = None  # the one that was charged for it
        self.failures = 0
        self.blames = 0
        self.avoid: tuple[Worker, ...] = ()
        self.holders: tuple[Worker, ...] = ()
        self.queued = False


class _Request:
    """A request's waiting items, the most expensive first, so that the longest do not begin last; of those that cost
    the same, the one that came first. Most requests come in one piece, which is sorted once; what comes later is put
    in its place."""

    __slots__ = ("_new", "_sorted", "live")

    def __init__(self) -> None:
        self._sorted: list[Entry] = []  # the next one last
        self._new: list[Entry] = []
        self.live = 0

    def __len__(self) -> int:
        return len(self._sorted) + len(self._new)

    def push(self, entry: Entry) -> None:
        self._new.append(entry)
        self.live += 1

    def pop(self) -> Entry:
        if self._new:
            self._place_new()
        self.live -= 1
        while True:
            entry = self._sorted.pop()
            if entry.queued:
                return entry

    def forget_one(self) -> None:
        self.live -= 1
        if len(self) > 2 * self.live + 16:
            self._sorted = [entry for entry in self._sorted if entry.queued]
            self._new = [entry for entry in self._new if entry.queued]

    def _place_new(self) -> None:
        new, self._new = self._new, []
        if self._sorted:
            for entry in new:
                insort_left(self._sorted, entry, key=_COST)
        else:
            new.sort(key=_COST, reverse=True)  # which leaves those that cost the same as they are
            new.reverse()
            self._sorted = new


class _Lane:
    """A tenant's waiting items of one priority: first those that came back, then request after request."""

    __slots__ = ("live", "requests", "returned")

    def __init__(self) -> None:
        self.returned: deque[Entry] = deque()
        self.requests: OrderedDict[str, _Request] = OrderedDict()
        self.live = 0

    def push(self, entry: Entry) -> None:
        request = self.requests.get(entry.item.request_id)
        if request is None:
            request = self.requests[entry.item.request_id] = _Request()
        request.push(entry)
        self.live += 1

    def push_front(self, entry: Entry) -> None:
        self.returned.appendleft(entry)
        self.live += 1

    def pop(self) -> Entry:
        self.live -= 1
        while self.returned:
            entry = self.returned.popleft()
            if entry.queued:
                return entry
        request_id, request = next(iter(self.requests.items()))
        entry = request.pop()
        if not request.live:
            del self.requests[request_id]
        return entry

    def remove(self, entry: Entry) -> None:
        self.live -= 1
        if not self.live:
            self.returned.clear()
        if entry.flow is not None:
            return  # It had been served once, so it is among the returned, and dropped there when it is met.
        request = self.requests[entry.item.request_id]
        request.forget_one()
        if not request.live:
            del self.requests[entry.item.request_id]


class _Flow:
    """A tenant that has something waiting, or is not yet due again.

    ``tag`` is the virtual time at which its next item is due. ``owed_s`` is how far background work is behind its
    share of what the tenant was given.
    """

    __slots__ = ("background", "interactive", "live", "owed_s", "tag", "tenant")

    def __init__(self, tenant: str, tag: float) -> None:
        self.tenant = tenant
        self.tag = tag
        self.interactive = _Lane()
        self.background = _Lane()
        self.live = 0  # in both lanes
        self.owed_s = 0.0

    def lane(self, priority: Priority) -> _Lane:
        return self.interactive if priority == "interactive" else self.background


class FairQueue:
    """Waiting items of all tenants, served by weighted fairness over cost.

    Start-time fair queueing (Goyal, Vin, Cheng: SIGCOMM 1996): a tenant's next item is due at the virtual time at
    which its last one was due, plus that one's cost over its weight; the tenant with the earliest is served, and
    its item's time is the time, which never goes back. A tenant that comes, or comes back later than it was due, was
    due up to ``idle_credit_s`` ago: a small batch goes before what others have queued by the thousand, and more than
    that is not earned by waiting. When nothing waits, nobody is owed anything, and all is forgotten.

    Within a tenant, interactive items go before background ones, except that background ones get
    ``background_share`` of the cost that the tenant is given, so that they do not wait for ever.
    """

    def __init__(
        self, cost_of: Callable[[Entry], float], background_share: float, idle_credit_s: float
    ) -> None:
        self._cost_of = cost_of
        self._share = background_share
        self._credit_s = idle_credit_s
        self._flows: dict[str, _Flow] = {}
        self._waiting: LazyHeap[_Flow] = LazyHeap(lambda flow: flow.tag if flow.live else None)
        self._resting: LazyHeap[_Flow] = LazyHeap(self._resting_key)
        self._live = 0
        self._now = 0.0  # virtual time: when the item that was served last was due

    def __len__(self) -> int:
        """How many items wait."""
        return self._live

    def counts(self) -> dict[tuple[str, Priority], int]:
        """Return how many items wait, by tenant and priority; only what is not 0."""
        return {
            (tenant, priority): live
            for tenant, flow in self._flows.items()
            for priority in PRIORITIES
            if (live := flow.lane(priority).live)
        }

    def sizes(self) -> dict[str, int]:
        """Return how many entries every table has, for the search for leaks."""
        return {
            "flows": len(self._flows),
            "waiting": len(self._waiting),
            "resting": len(self._resting),
            "queued": self._live,
            "in_requests": sum(
                len(request)
                for flow in self._flows.values()
                for lane in (flow.interactive, flow.background)
                for request in lane.requests.values()
            ),
        }

    def push(self, entry: Entry) -> None:
        """Queue a new item behind its tenant's others."""
        flow = self._flow(entry.item.tenant)
        entry.queued = True
        flow.lane(entry.item.priority).push(entry)
        flow.live += 1
        self._live += 1
        if flow.live == 1:
            self._waiting.push(flow)

    def put_back(self, entries: Iterable[Entry]) -> None:
        """Queue items that came back, in front of their tenants' others; what they were charged is given back."""
        for entry in reversed(list(entries)):
            flow = self._flow(entry.item.tenant)
            if flow is entry.flow:
                flow.tag -= entry.charge_s / entry.item.weight
            entry.queued = True
            flow.lane(entry.item.priority).push_front(entry)
            flow.live += 1
            self._live += 1
            self._waiting.push(flow)

    def pop(self) -> Entry | None:
        """Take the item whose turn it is, and charge its tenant for it; None when nothing waits."""
        flow = self._waiting.least()
        if flow is None:
            return None
        self._now = max(self._now, flow.tag)
        entry = self._lane_in_turn(flow).pop()
        entry.queued = False
        entry.flow = flow
        entry.charge_s = self._cost_of(entry)
        self._charge(flow, entry)
        flow.live -= 1
        self._live -= 1
        self._settle(flow)
        while (idle := self._resting.least()) is not None and idle.tag <= self._now - self._credit_s:
            del self._flows[idle.tenant]
        return entry

    def remove(self, entry: Entry) -> None:
        """Take out an item that is not wanted any more."""
        flow = self._flows[entry.item.tenant]
        entry.queued = False
        flow.lane(entry.item.priority).remove(entry)
        flow.live -= 1
        self._live -= 1
        if not flow.live:
            self._settle(flow)

    def _flow(self, tenant: str) -> _Flow:
        earliest = self._now - self._credit_s
        flow = self._flows.get(tenant)
        if flow is None:
            flow = self._flows[tenant] = _Flow(tenant, earliest)
        elif not flow.live:
            flow.tag = max(flow.tag, earliest)
        return flow

    def _lane_in_turn(self, flow: _Flow) -> _Lane:
        if not flow.interactive.live or (flow.background.live and flow.owed_s > 0):
            return flow.background
        return flow.interactive

    def _charge(self, flow: _Flow, entry: Entry) -> None:
        flow.tag += entry.charge_s / entry.item.weight
        if entry.item.priority == "background":
            if flow.interactive.live:
                flow.owed_s -= (1 - self._share) * entry.charge_s
            return
        flow.owed_s += self._share * entry.charge_s
        if not flow.background.live:
            flow.owed_s = min(flow.owed_s, 0.0)

    def _settle(self, flow: _Flow) -> None:
        """Put a flow where it belongs after it has lost an item because it was its turn, or has lost its last one."""
        if not self._live:
            self._flows.clear()
            self._waiting.clear()
            self._resting.clear()
            self._now = 0.0
        elif flow.live:
            self._waiting.push_least(flow)
        else:
            self._resting.push(flow)

    def _resting_key(self, flow: _Flow) -> float | None:
        return None if flow.live or self._flows.get(flow.tenant) is not flow else flow.tag


class Deadlines:
    """The deadlines of waiting items, in buckets: the items of one request share theirs."""

    def __init__(self) -> None:
        self._buckets: dict[float, dict[int, Entry]] = {}
        self._heap: list[float] = []

    def __len__(self) -> int:
        """How many buckets there are."""
        return len(self._buckets)

    def add(self, entry: Entry) -> None:
        """Watch an item's deadline, if it has one."""
        deadline = entry.item.deadline
        if deadline is None:
            return
        bucket = self._buckets.get(deadline)
        if bucket is None:
            bucket = self._buckets[deadline] = {}
            heappush(self._heap, deadline)
        bucket[entry.item.number] = entry

    def discard(self, entry: Entry) -> None:
        """Stop watching an item that does not wait any more."""
        deadline = entry.item.deadline
        if deadline is None:
            return
        bucket = self._buckets.get(deadline)
        if bucket is None:
            return
        bucket.pop(entry.item.number, None)
        if not bucket:
            del self._buckets[deadline]
            self._tidy()

    def next(self) -> float | None:
        """Return the earliest deadline of a waiting item, or None."""
        while self._heap and self._heap[0] not in self._buckets:
            heappop(self._heap)
        return self._heap[0] if self._heap else None

    def due(self, now: float) -> Iterable[Entry]:
        """Return the items whose deadline is not later than ``now``; the caller takes each of them out."""
        return self._due(now) if self._heap and self._heap[0] <= now else ()

    def _due(self, now: float) -> Iterator[Entry]:
        while (first := self.next()) is not None and first <= now:
            yield from list(self._buckets[first].values())

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._buckets) + 64:
            self._heap = list(self._buckets)
            heapify(self._heap)
