import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.coding.bitio import Cursor, varint
from laconic.errors import UnsupportedError
from laconic.file.names import ENDINGS, MAX_NAME_BYTES, read_name, write_name
from tests.file import small_bytes

PARTS = st.sampled_from([b"layer1.", b"0.", b"conv1", b"bn", "é".encode(), b".", b"running_", *ENDINGS[1:]])
NAMES = st.lists(PARTS, min_size=1, max_size=5).map(b"".join)


def spellings(name, previous):
    """Every way to write `name`."""
    for ending, shared in itertools.product(ENDINGS, range(min(len(name), len(previous)) + 1)):
        rest = name.removesuffix(ending)
        if name.endswith(ending) and shared <= len(rest) and rest[:shared] == previous[:shared]:
            kind = 16 * (len(rest) - shared) + ENDINGS.index(ending)
            yield varint(shared) + varint(kind) + rest[shared:]


@given(name=NAMES, previous=NAMES | st.just(b""))
def test_names_are_read_however_they_are_written_and_written_as_short_as_can_be(name, previous):
    written = list(spellings(name, previous))
    assert write_name(name, previous) in written
    assert len(write_name(name, previous)) == min(map(len, written))
    for data in written:
        source = Cursor(data, "here")
        assert read_name(source, previous) == small_bytes.Bytes(data).name(previous) == name
        assert not len(source)


def test_the_endings_are_those_of_the_page():
    assert list(ENDINGS) == small_bytes.ENDINGS
    assert len(set(ENDINGS)) == 16


@pytest.mark.parametrize("name", [b"", b"x" * (MAX_NAME_BYTES + 1)])
def test_names_of_other_lengths_are_refused(name):
    with pytest.raises(UnsupportedError, match="1 to 1024"):
        write_name(name, b"")


def test_a_batch_norm_takes_its_own_name_and_little_else():
    own = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = [f"stem.norm.{name}".encode() for name in own]
    lengths = [len(write_name(b, a)) for a, b in itertools.pairwise([b"", *names])]
    assert lengths == [2 + len("stem."), 2, 2, 2, 2]
