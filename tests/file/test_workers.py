import threading

import pytest

from laconic.file.workers import BATCH_BYTES, MAX_BATCHES_PER_THREAD, MAX_HELD, FileOptions

KIB = 1 << 10


def worked(lengths, largest, threads=2):
    """Which thread worked on each item, and the lengths that were reported, in order."""
    done = []
    work = FileOptions(threads, done.append)
    items = enumerate(lengths)
    results = list(work.in_order(lambda i: (i, threading.get_ident()), items, largest))
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
    assert list(FileOptions(2).in_order(work, items, 4 * BATCH_BYTES)) == list(range(6))
    assert len(set(started)) == 2


@pytest.mark.parametrize("length", [KIB, 100 * KIB, BATCH_BYTES, 3 * BATCH_BYTES, 4 * BATCH_BYTES])
def test_no_more_is_held_than_allowed(length):
    """An item and its result while it is worked on, then the result until the next one is asked for."""
    largest, most_ahead = 4 * BATCH_BYTES, (MAX_BATCHES_PER_THREAD * 2 + 1) * (BATCH_BYTES + length)
    lock, begun, ended, taken, held = threading.Lock(), [], [], [], []

    def work(_):
        with lock:
            begun.append(1)
            held.append((2 * len(begun) - len(ended) - len(taken)) * length)
        with lock:
            ended.append(1)

    for _ in FileOptions(2).in_order(work, [(None, length)] * 3000, largest):
        taken.append(1)
        held.append((2 * len(begun) - len(ended) - len(taken)) * length)
    assert max(held) <= max(2 * length, min(MAX_HELD * largest, 2 * most_ahead))


def test_the_next_is_begun_while_a_result_is_used():
    begun = threading.Semaphore(0)
    results = FileOptions(2).in_order(lambda _: begun.release(), [(None, 4), (None, 3), (None, 3)], 4)
    for n_new in (2, 1, 0):
        next(results)
        assert all(begun.acquire(timeout=10) for _ in range(n_new))
