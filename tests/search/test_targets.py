import math

import pytest

from laconic import MaxBytes, MaxDrop, Shortest
from laconic.description import Measurement
from laconic.search import Attempt
from laconic.search.targets import Search

SEARCH = Search(100.0, 1.1)
SCORE = 0.9


def attempted(price, n_bytes, score, data_bits=0.0, how="rounded"):
    return Attempt(price, how, Measurement(n_bytes=n_bytes, score=score, data_bits=data_bits))


def file(price):
    """Bytes grow with the logarithm of the price; the score with the price, towards SCORE; bits of data fall."""
    n_bytes = int(1000 + 200 * math.log2(price + 1))
    return attempted(price, n_bytes, SCORE - 1 / (price + 1), data_bits=3e5 / (price + 1))


def searched(target, search=SEARCH, known=()):
    attempts = list(known)
    while (price := target.next_price(attempts, SCORE, search)) is not None:
        assert price not in [attempt.price for attempt in attempts]
        attempts.append(file(price))
    return attempts


@pytest.mark.parametrize("first", [1e-3, 100.0, 1e6])
@pytest.mark.parametrize("drop", [0.5, 0.01, 0.0001])
def test_the_shortest_file_that_loses_no_more(first, drop):
    target = MaxDrop(drop)
    attempts = searched(target, Search(first, 1.1))
    best = target.best(attempts, SCORE)
    assert target.misses(best.measured, SCORE) <= 0
    assert 1 / drop - 1 <= best.price <= 1.1 * (1 / drop - 1) * (1 + 1e-9) + 0.2
    assert len(attempts) <= 20


@pytest.mark.parametrize("n_bytes", [1100, 3000, 5000])
def test_the_best_network_that_fits(n_bytes):
    target = MaxBytes(n_bytes)
    best = target.best(searched(target), SCORE)
    assert n_bytes - 40 <= best.measured.n_bytes <= n_bytes


def test_the_fewest_bits_in_all():
    target = Shortest()
    best = target.best(searched(target), SCORE)
    least = min(file(1.02**k).measured.total_bits for k in range(2000))
    assert best.measured.total_bits <= 1.001 * least


@pytest.mark.parametrize("target", [MaxDrop(0.01), MaxBytes(3000), Shortest()])
def test_a_search_goes_on_from_its_attempts(target):
    attempts = searched(target)
    for n in range(len(attempts) + 1):
        assert searched(target, known=attempts[:n]) == attempts


def test_where_no_attempt_meets_it_the_nearest_is_best():
    assert MaxBytes(10).best([file(1.0), file(8.0)], SCORE) == file(1.0)
    assert MaxDrop(0.0).best([file(1.0), file(8.0)], SCORE) == file(8.0)


def test_a_network_of_zeros_ends_the_search():
    def zeros(price):
        return attempted(price, 1000, 0.1, data_bits=50.0)

    assert len(_searched_for_the_fewest_bits(zeros, SEARCH)) < 5


@pytest.mark.parametrize("first", [20.0, 100.0, 1e5])
def test_a_hill_before_good_networks_is_crossed(first):
    """At low prices nonsense that costs more than it tells, then networks that pay."""

    def attempt(price):
        return attempted(price, int(100 + 50 * math.log2(price)), 0.1, 9000 if price < 80 else 1e5 / price)

    attempts = _searched_for_the_fewest_bits(attempt, Search(first, 1.1))
    least = min(attempt(1.02**k).measured.total_bits for k in range(1, 1000))
    assert Shortest().best(attempts, SCORE).measured.total_bits <= 1.01 * least


def test_what_is_trained_is_alive():
    zeros = attempted(0.0, 100, 0.1, 4000, "all zeros")
    exact = attempted(math.inf, 9000, SCORE, 0, "as it was")
    dead, alive = attempted(1.0, 120, 0.2, 9000), attempted(8.0, 900, 0.7, 500)
    for target in (Shortest(), MaxBytes(200), MaxDrop(0.25)):
        assert target.to_train([zeros, exact, dead, alive], SCORE) == alive
    assert MaxDrop(0.1).to_train([zeros, exact, dead, alive], SCORE) == exact


def _searched_for_the_fewest_bits(attempt, search):
    target, attempts = Shortest(), []
    while (price := target.next_price(attempts, SCORE, search)) is not None:
        attempts.append(attempt(price))
    return attempts


@pytest.mark.parametrize("wrong", [lambda: MaxDrop(-0.1), lambda: MaxDrop(math.nan), lambda: MaxBytes(0)])
def test_targets_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match="expected"):
        wrong()


def test_a_drop_is_kept_at_its_confidences_bound():
    sure, unsure = Measurement(score=0.895, score_error=0.001), Measurement(score=0.895, score_error=0.01)
    assert MaxDrop(0.01).misses(sure, SCORE) == pytest.approx(0.005 + 1.645 * 0.001 - 0.01, abs=1e-5)
    assert MaxDrop(0.01).misses(unsure, SCORE) > 0
    assert MaxDrop(0.01, confidence=0.5).misses(unsure, SCORE) < 0
    assert MaxDrop(0.01).misses(Measurement(score=0.895), SCORE) < 0, "a function's score counts as it is"
    for confidence in (0.4, 1.0):
        with pytest.raises(ValueError, match="confidence: expected within"):
            MaxDrop(0.01, confidence)


def test_an_attempt_that_meets_the_target_by_luck_is_not_chosen():
    lucky, missed, safe = attempted(1.0, 1000, 0.9), attempted(2.0, 1200, 0.8), attempted(4.0, 1400, 0.9)
    attempts = [lucky, missed, safe]
    assert MaxDrop(0.01).best(attempts, SCORE) is safe
    other = attempted(1.0, 1000, 0.9, how="trained")
    assert MaxDrop(0.01).best([*attempts, other], SCORE) is other, "prices of another procedure"
