import tomllib

from hypothesis import given
from hypothesis import strategies as st

from laconic.recipes.toml import to_toml

TEXT = st.text(st.characters(codec="utf-8"))
PLAIN = st.recursive(
    TEXT | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXT, PLAIN, max_size=4), st.dictionaries(TEXT, PLAIN, max_size=4))
def test_python_reads_what_is_written(values, table):
    values = {**values, "table": table}
    assert tomllib.loads(to_toml(values, ("table",))) == values


def test_none_is_left_out_and_tables_stand_below():
    values = {"table": {"x": 1, "none": None}, "a": None, "b": {"y": None, "z": True}}
    assert to_toml(values, ("table", "other")) == "b = {z = true}\n\n[table]\nx = 1\n"
