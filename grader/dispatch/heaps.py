"""A heap whose values change places without being searched for."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, TypeVar

T = TypeVar("T")


class LazyHeap(Generic[T]):
    """Values by their key, the least first; of equal keys, the one that was pushed first.

    ``key_of`` gives a value's present key, None while it is not to be found here. When it changes, push the value
    again: what was pushed under an older key is dropped where it is met, so that every step is O(log n) in the mean.
    """

    def __init__(self, key_of: Callable[[T], float | None]) -> None:
        self._key_of = key_of
        self._heap: list[tuple[float, int, T]] = []
        self._order = itertools.count()
        self._limit = 64

    def __len__(self) -> int:
        """How many entries there are, those out of date included."""
        return len(self._heap)

    def push(self, value: T) -> None:
        """Put a value where its key says; nothing happens while it has none."""
        key = self._key_of(value)
        if key is None:
            return
        heappush(self._heap, (key, next(self._order), value))
        if len(self._heap) > self._limit:
            self._drop_stale()

    def push_least(self, value: T) -> None:
        """Do as ``push`` does; where the value was the least, it is dropped there in the same step."""
        heap = self._heap
        key = self._key_of(value)
        if key is not None and heap and heap[0][2] is value:
            heapreplace(heap, (key, next(self._order), value))
        else:
            self.push(value)

    def least(self, rejected: Collection[T] = ()) -> T | None:
        """Return the value with the least key that is not among ``rejected``; it stays."""
        heap, key_of = self._heap, self._key_of
        kept = []
        found = None
        while heap:
            key, _, value = heap[0]
            if key_of(value) != key:
                heappop(heap)
            elif rejected and value in rejected:
                kept.append(heappop(heap))
            else:
                found = value
                break
        for entry in kept:
            heappush(heap, entry)
        return found

    def clear(self) -> None:
        """Drop everything."""
        self._heap.clear()

    def _drop_stale(self) -> None:
        seen: set[int] = set()
        kept = []
        for entry in self._heap:
            if self._key_of(entry[2]) == entry[0] and id(entry[2]) not in seen:
                seen.add(id(entry[2]))
                kept.append(entry)
        heapify(kept)
        self._heap = kept
        # Doubling makes this O(1) a push in the mean.
        self._limit = 2 * len(kept) + 64
