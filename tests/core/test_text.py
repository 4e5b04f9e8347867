import pytest

from laconic.core.text import elided


@pytest.mark.parametrize("width", range(1, 60))
def test_an_elided_name_fits_and_keeps_both_ends(width):
    name = "encoder.layer.0.attention.self.query.weight"
    shown = elided(name, width)
    assert len(shown) == min(width, len(name))
    if width < len(name):
        first, last = shown.split("…")
        assert name.startswith(first) and name.endswith(last) and len(first) <= len(last)
