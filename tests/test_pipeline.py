import threading

import pytest

from laconic.pipeline import BATCH_BYTES, BATCHES_AHEAD, Work

KIB = 1 << 10


def worked(lengths, most_bytes, threads=2):
    """Which thread worked on each item, and the lengths that were reported, in order."""
    done = []
    work = Work(threads, done.append)
    items = enumerate(lengths)
    results = list(work.in_order(lambda i: (i, threading.get_ident()), items, most_bytes))
    assert [i for i, _ in results] == list(range(len(lengths)))
    assert done == lengths
    return [thread for _, thread in results]


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order_and_are_reported(threads):
    worked([0, 1, BATCH_BYTES, 3 * BATCH_BYTES, 7] * 9, 3 * BATCH_BYTES, threads)
    worked([5] * 100, 5, threads)
    worked([], 0, threads)


def test_small_items_are_worked_on_together_with_the_large_one_behind_them():
    started = []

    def work(item):
        started.append(threading.get_ident())
        barrier.wait(10)  # both threads are at work, so neither takes the other's batch
        return item

    barrier = threading.Barrier(2)
    items = enumerate([KIB, KIB, BATCH_BYTES] * 2)
    assert list(Work(2).in_order(work, items, 4 * BATCH_BYTES)) == list(range(6))
    assert len(set(started)) == 2


@pytest.mark.parametrize("length", [KIB, 100 * KIB, BATCH_BYTES, 3 * BATCH_BYTES])
def test_no_more_is_in_flight_than_allowed(length):
    """Begun and not yet asked for the next: a batch, and as many as fit beside it."""
    begun, most_bytes = [], 4 * BATCH_BYTES
    results = Work(2).in_order(begun.append, [(None, length)] * 3000, most_bytes)
    for taken, _ in enumerate(results):
        in_flight = (len(begun) - taken) * length
        assert in_flight <= min(most_bytes, 2 * BATCHES_AHEAD * (BATCH_BYTES + length))
