"""Working on many tensors at once, with a bound on the bytes in flight.

Kernels, checksums and file reads release the GIL, so threads of one process suffice. Of two pools, one takes tensors,
the other the blocks of large ones, and never waits for anything itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Generic

from laconic.core.threads import A, B, Map, n_cores

MIN_THREADED_BYTES = 1 << 20  # in all; for less, starting threads takes longer than the work
BATCH_BYTES = 1 << 18  # small tensors go to a thread together: handing one over takes as long as its work
MAX_BATCHES_PER_THREAD = 4  # small ones would otherwise pile up
MAX_HELD = 2.5  # times the largest tensor: with what allocators keep, less than three times


@dataclass(frozen=True)
class FileOptions:
    """How a file is written or read.

    Attributes:
        threads: number of threads; by default this process's number of cores.
        done: called with the decoded bytes of each tensor when it is finished.
        resume: the input's identity. If given, finished tensors are kept beside the file, in its name with ``.part``,
            until it is whole; the same input and options then resume from there.
    """

    threads: int | None = None
    done: Callable[[int], object] = lambda n_bytes: None
    resume: str | None = None

    def for_bytes(self, n_bytes: int) -> FileOptions:
        """These options, or one thread if threads would take longer to start than the work takes."""
        return self if n_bytes >= MIN_THREADED_BYTES else replace(self, threads=1)

    @property
    def n_threads(self) -> int:
        """The number of threads."""
        return self.threads or n_cores()

    @contextmanager
    def blocks(self) -> Generator[Map]:
        """A `map` for the blocks of a tensor; several threads may call it."""
        if self.n_threads == 1:
            yield map
            return
        with ThreadPoolExecutor(self.n_threads) as pool:

            def run(work: Callable[[A], B], items: Iterable[A]) -> Iterable[B]:
                listed = list(items)
                return pool.map(work, listed) if len(listed) > 1 else map(work, listed)

            yield run

    def in_order(self, work: Callable[[A], B], items: Iterable[tuple[A, int]], largest: int) -> Generator[B]:
        """Results of `work` for items with their bytes, in order.

        At most MAX_HELD times `largest` bytes are held, counting an item and its result while it is worked on, and the
        result until the next one is asked for. An item that takes more is worked on alone.
        """
        if self.n_threads == 1:
            for item, n_bytes in items:
                yield work(item)
                self.done(n_bytes)
            return
        flying: deque[_Batch[B]] = deque()
        with ThreadPoolExecutor(self.n_threads) as pool:
            try:
                for batch, lengths in _batches(items, largest):
                    most_bytes = MAX_HELD * largest - 2 * sum(lengths)
                    while flying and (
                        sum(other.n_bytes_held for other in flying) > most_bytes
                        or len(flying) >= MAX_BATCHES_PER_THREAD * self.n_threads
                    ):
                        yield from self._one_on(flying)
                    flying.append(_Batch(pool.submit(deque, map(work, batch)), lengths))
                while flying:
                    yield from self._one_on(flying)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _one_on(self, flying: deque[_Batch[B]]) -> Generator[B]:
        """Wait for the first batch; the next call yields its results and keeps none.

        Another batch may begin between the two calls, and run while the results are used.
        """
        first = flying[0]
        results = first.future.result()
        if not first.has_landed:
            first.has_landed = True
            return
        flying.popleft()
        for n_bytes in first.lengths:
            yield results.popleft()
            self.done(n_bytes)


@dataclass
class _Batch(Generic[B]):
    """Items that are worked on together, or have been, with their bytes."""

    future: Future[deque[B]]
    lengths: list[int]
    has_landed: bool = False

    @property
    def n_bytes_held(self) -> int:
        """Bytes of the results, and, while they are worked on, of the items."""
        return sum(self.lengths) * (1 if self.has_landed else 2)


def _batches(items: Iterable[tuple[A, int]], largest: int) -> Generator[tuple[list[A], list[int]]]:
    """Neighbours, with their bytes, until a batch has BATCH_BYTES or would have more than `largest`."""
    batch: list[A] = []
    lengths: list[int] = []
    for item, n_bytes in items:
        if batch and (sum(lengths) >= BATCH_BYTES or sum(lengths) + n_bytes > largest):
            yield batch, lengths
            batch, lengths = [], []
        batch.append(item)
        lengths.append(n_bytes)
    if batch:
        yield batch, lengths
