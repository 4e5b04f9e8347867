"""Working on many tensors at once, with a bound on the bytes in flight.

Kernels, checksums and file reads release the GIL, so threads of one process suffice. Two pools: one takes
tensors, the other the blocks of large ones, and never waits for anything itself.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from laconic.lossless import Run

A = TypeVar("A")
B = TypeVar("B")
WORTH_THREADS = 1 << 20  # bytes
TENSORS_AHEAD = 4  # by a thread: small tensors would otherwise pile up


@dataclass(frozen=True)
class Work:
    """How a file is written or read.

    Attributes:
        threads: how many at once; by default as many as this process has cores.
        done: called with the bytes of each tensor, decoded, when it is finished.
        resume: what the input is. If given, finished tensors are kept beside the file, in its name with
            ``.part``, until it is whole; the same input and options then go on from there.
    """

    threads: int | None = None
    done: Callable[[int], object] = lambda n_bytes: None
    resume: str | None = None

    def for_bytes(self, n_bytes: int) -> Work:
        """This, or without threads where they would take longer to start than the work."""
        return self if n_bytes >= WORTH_THREADS else replace(self, threads=1)

    @property
    def n_threads(self) -> int:
        """The number of threads."""
        return self.threads or _n_cores()

    @contextmanager
    def blocks(self) -> Generator[Run]:
        """A `map` for the blocks of a tensor, which several threads may call."""
        if self.n_threads == 1:
            yield map
            return
        with ThreadPoolExecutor(self.n_threads) as pool:

            def run(work: Callable[[A], B], items: Iterable[A]) -> Iterable[B]:
                listed = list(items)
                return pool.map(work, listed) if len(listed) > 1 else map(work, listed)

            yield run

    def in_order(
        self, work: Callable[[A], B], items: Iterable[tuple[A, int]], most_bytes: int
    ) -> Generator[B]:
        """Results of `work` for items with their bytes, in order; at most `most_bytes` are in flight.

        An item above that is worked on alone. One is in flight until the next result is asked for.
        """
        if self.n_threads == 1:
            for item, n_bytes in items:
                yield work(item)
                self.done(n_bytes)
            return
        pending: deque[tuple[Future[B], int]] = deque()
        in_flight = 0
        most = TENSORS_AHEAD * self.n_threads
        with ThreadPoolExecutor(self.n_threads) as pool:
            try:
                for item, n_bytes in items:
                    while pending and (in_flight + n_bytes > most_bytes or len(pending) >= most):
                        in_flight -= pending[0][1]
                        yield pending[0][0].result()
                        self.done(pending.popleft()[1])
                    pending.append((pool.submit(work, item), n_bytes))
                    in_flight += n_bytes
                while pending:
                    yield pending[0][0].result()
                    self.done(pending.popleft()[1])
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _n_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1
