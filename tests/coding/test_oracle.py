"""Another's coders as oracles: with the same tables, constriction's take no fewer bytes than ours, but for the lanes'.

A lane adds at most four bytes, and there is more than one only where they are under a thousandth of the words.
"""

import constriction
import numpy as np
import pytest

from laconic.coding import stream
from laconic.coding.bitio import Cursor
from laconic.coding.fit import fit
from laconic.coding.layout import Layout

SHAPE = (250, 400)
CODERS = {
    "range": (constriction.stream.queue.RangeEncoder, "encode"),
    "ANS": (constriction.stream.stack.AnsCoder, "encode_reverse"),
}


def integers(kind):
    rng = np.random.default_rng(0)
    scale = 2.0 ** (np.arange(SHAPE[0])[:, None] % 4)
    drawn = {
        "sparse": (rng.random(SHAPE) < 0.03) * rng.laplace(0, 3, SHAPE) * scale,
        "Gaussian": rng.normal(0, 6, SHAPE) * scale,
        "heavy-tailed": rng.standard_cauchy(SHAPE) * scale,
    }[kind]
    return np.rint(drawn.clip(-(2**30), 2**30)).astype(np.int32).ravel()


def classes_of(model):
    drop = model.column_drop if model.column_drop.size else np.zeros(SHAPE[1])
    return np.maximum(model.row_class[:, None] - drop.astype(int), 0).ravel()


def oracle_bits(symbols, model, coder):
    """The length of `symbols`, class after class, under the model's tables and another's coder."""
    make, method = CODERS[coder]
    encoder, class_of = make(), classes_of(model)
    for c, frequencies in enumerate(model.frequencies):
        (used,) = np.nonzero(frequencies)
        mine = np.searchsorted(used, symbols[class_of == c]).astype(np.int32)
        shares = frequencies[used] / 2.0**model.precision
        if used.size == 1:
            continue  # what is certain takes no bits
        getattr(encoder, method)(mine, constriction.stream.model.Categorical(shares, perfect=True))
    return encoder.num_bits()


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("kind", ["sparse", "Gaussian", "heavy-tailed"])
def test_words_and_states_against_other_coders_and_the_ideal(kind, coder):
    q = integers(kind)
    model, _ = fit(q, Layout(*SHAPE))
    symbols = np.where((q >= model.lo) & (q < model.lo + model.width), q - model.lo, model.width)
    shares = model.frequencies[classes_of(model), symbols] / 2**model.precision
    ideal = -np.log2(shares).sum()
    ours = 8 * stream.measure(Cursor(stream.write_static(q, Layout(*SHAPE)), "here"), Layout(*SHAPE))["weights"]
    theirs = oracle_bits(symbols, model, coder)
    assert ideal <= min(ours, theirs)
    assert ours <= 1.001 * ideal + 8 * (4 + 3)  # a lane's state, the varint, a word that is not full
    assert ours <= 1.001 * theirs + 8 * (4 + 3)
