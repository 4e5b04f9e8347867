import re

import pytest

from laconic.description import Measurement
from laconic.report.pages.frontier_page import write_frontier_page
from laconic.report.trials import Trial

HOSTILE = "<b>lamp</b>"
KNOWN = {"data_bits": 100.0, "n_parameters": 40.0, "n_macs": 70.0}


def trials(**known):
    return [
        Trial(
            method,
            seed,
            Measurement(
                score=0.9 - sparsity / 10 + seed / 100, n_bytes=100 - 90 * sparsity, sparsity=sparsity, **known
            ),
            str(sparsity),
            Measurement(score=0.95, n_bytes=100.0, **known),
        )
        for method in ("magnitude", HOSTILE)
        for sparsity in (0.5, 0.9)
        for seed in (0, 1)
    ]


def test_the_page_has_means_deviations_and_figures_of_what_varies(tmp_path):
    path = write_frontier_page(tmp_path / "frontier.html", "Methods", trials(**KNOWN), {"data": "digits"})
    text = path.read_text(encoding="utf-8")
    assert "2 methods, 8 runs, 2 seeds; the dense network gets 95.00 % of the test examples right." in text
    assert "<td>2</td><td>50.0</td><td>85.50 ± 0.71</td><td>40</td><td>70</td><td>55</td><td>540</td>" in text
    captions = re.findall("<figcaption>(.*)</figcaption>", text)
    assert captions == [
        "Accuracy against sparsity",
        "Accuracy against the file&#39;s length",
        "Bits for the file and for the data given the network",
    ]
    assert text.count('scope="rowgroup" rowspan="2"') == 2
    assert HOSTILE not in text
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert "digits" in text


def test_what_is_not_known_of_all_is_left_out(tmp_path):
    text = write_frontier_page(tmp_path / "frontier.html", "Methods", trials()).read_text(encoding="utf-8")
    assert text.count("<figcaption>") == 2
    assert '<th scope="col">total<br>bits' not in text
    assert "nan" not in text


def test_no_trial_says_what_is_expected(tmp_path):
    with pytest.raises(ValueError, match="trials: expected at least one Trial, found none"):
        write_frontier_page(tmp_path / "frontier.html", "Nothing", [])
    assert list(tmp_path.iterdir()) == []
