import pytest
import torch

from benchmarks.ranking import regret, rho, tau


def test_correlations_are_scipys_with_ties_and_without():
    stats = pytest.importorskip("scipy.stats")
    for n_values in (100, 4):
        x, y = torch.randint(n_values, (2, 12)).tolist()
        assert tau(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)
        assert rho(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert tau([1, 1, 1], [1, 2, 3]) == rho([1, 1, 1], [1, 2, 3]) == 0.0, "a constant says nothing"


def test_what_a_pick_loses_is_the_mean_of_those_that_tie():
    assert regret([1, 2, 3], [0.3, 0.1, 0.2]) == pytest.approx(0.2)
    assert regret([1, 1, 3], [0.3, 0.1, 0.2]) == pytest.approx(0.1)
    assert regret([0, 0], [0.1, 0.1]) == 0.0
