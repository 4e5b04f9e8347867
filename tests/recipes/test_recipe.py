import itertools
import random
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from laconic.errors import MismatchError
from laconic.recipes import parse_recipe, read_recipe
from laconic.recipes.registry import BY_AMOUNT, COUPLED, names_of

TRAINING = {"epochs": 2}
FRACTIONS = st.floats(0, 1)
UNITS = st.sampled_from(["weight", "4x2", {"name": "block", "height": 3}, {"name": "block", "width": 2}])
SCORES = st.fixed_dictionaries(
    {"criterion": st.sampled_from(sorted(names_of("criterion").keys() - {"movement", "norm-scale"}))},
    optional={"unit": UNITS, "scope": st.sampled_from(["model", "tensor", "row"])},
)
BUDGETS = st.sampled_from(["density", {"name": "density", "each": 16}, {"name": "density", "each": "macs"}])
METHODS = st.one_of(
    st.just("one-shot"),
    st.builds(lambda n, r: {"name": "lottery", "rounds": n, "rewind": r}, st.integers(1, 9), st.integers(0, 9)),
    st.builds(lambda f: {"name": "gradual", "until": f, "curve": "linear"}, FRACTIONS),
)
FITTINGS = st.fixed_dictionaries(
    {"epochs": st.integers(1, 99)},
    optional={
        "optimizer": st.one_of(st.just("adam"), st.builds(lambda lr: {"name": "sgd", "lr": lr}, st.floats(0, 1e9))),
        "scheduler": st.sampled_from(["cosine", {"name": "multi-step", "milestones": [3, 5]}]),
        "batch_size": st.integers(1, 999),
    },
)
REST = st.fixed_dictionaries(
    {"amount": FRACTIONS, "budget": BUDGETS, "method": METHODS, "dense": FITTINGS, "training": FITTINGS},
    optional={
        "exclude": st.lists(st.text(st.characters(codec="utf-8"))),
        "include": st.lists(st.text(st.characters(codec="utf-8"))),
        "calibration": st.integers(1, 10**6),
        "reestimate": st.booleans(),
        "relative_error": st.floats(0, 0.99),
        "seed": st.integers(0, 2**32),
    },
)


@given(SCORES, REST, st.randoms())
def test_a_recipe_goes_to_toml_and_back(scores, rest, shuffle: random.Random):
    recipe = parse_recipe({**scores, **rest})
    again = parse_recipe(tomllib.loads(recipe.to_toml()))
    assert again == recipe
    assert again.digest == recipe.digest
    values = list(recipe.to_dict().items())
    shuffle.shuffle(values)
    assert parse_recipe(dict(values)).digest == recipe.digest


def test_spelling_order_comments_and_defaults_do_not_matter(tmp_path):
    texts = [
        'amount = 0.5\nunit = "4x4"\n',
        '# a comment\nunit = {width = 4, name = "block", height = 4}\ncriterion = "magnitude"\namount = 5e-1\n',
        'amount = 0.50\nseed = 0\nmethod = {name = "one-shot"}\n[unit]\nname = "block"\nheight = 4\nwidth = 4\n',
    ]
    digests = set()
    for i, text in enumerate(texts):
        (tmp_path / f"{i}.toml").write_text(text)
        digests.add(read_recipe(tmp_path / f"{i}.toml").digest)
    assert len(digests) == 1
    assert len(digests.pop()) == 12


def test_whatever_is_chosen_differently_has_another_digest():
    base = {"amount": 0.5, "training": {"epochs": 3}}
    others = [
        base,
        {**base, "amount": 0.6},
        {**base, "seed": 1},
        {**base, "criterion": "wanda"},
        {**base, "criterion": {"name": "random", "seed": 1}},
        {**base, "criterion": {"name": "random", "seed": 2}},
        {**base, "training": {"epochs": 4}},
        {**base, "dense": {"epochs": 3}},
        {**base, "exclude": ["fc1"]},
    ]
    recipes = [parse_recipe(values) for values in others]
    assert len({recipe.digest for recipe in recipes}) == len(recipes)
    assert recipes[0].seeded(1) == recipes[2]


def test_integers_are_numbers_and_shorthands_are_their_long_forms():
    assert parse_recipe({"amount": 1}).amount == 1.0
    long = {"scope": {"name": "run", "length": 4}, "budget": {"name": "count", "n": 2}}
    assert parse_recipe({"pattern": "2:4"}) == parse_recipe(long)


ITERATIVE = {"name": "iterative", "rounds": 3}
REFUSED = {
    "a name": (
        {"amount": 0.5, "scope": "tensr"},
        "scope: expected one of model, tensor, row, run, found 'tensr'; did you mean 'tensor'?",
    ),
    "a key": ({"amount": 0.5, "exclud": []}, "found 'exclud'; did you mean 'exclude'?"),
    "an option": (
        {"amount": 0.5, "unit": {"name": "block", "hight": 3}},
        "unit block: expected one of height, width, found 'hight'; did you mean 'height'?",
    ),
    "an option of none": (
        {"amount": 0.5, "unit": {"name": "weight", "height": 3}},
        "unit weight: expected no option, found 'height'",
    ),
    "no name": (
        {"amount": 0.5, "scope": {"length": 4}},
        "scope: expected a name, or a table with one, found {'length': 4}",
    ),
    "a type": ({"amount": True}, "amount: expected a number, found true"),
    "not a number": ({"amount": float("nan")}, "amount: expected a number, found nan"),
    "a list": ({"amount": 0.5, "exclude": "fc1"}, "exclude: expected a list, found 'fc1'"),
    "a fraction of an integer": (
        {"amount": 0.5, "method": {"name": "iterative", "rounds": 2.5}},
        "method iterative.rounds: expected an integer, found 2.5",
    ),
    "a missing option": ({"scope": "run", "amount": 0.5}, "scope run.length: expected an integer, found nothing"),
    "a literal": (
        {"amount": 0.5, "budget": {"name": "density", "each": "mac"}},
        "budget density.each: expected 'weights' or 'macs' or a number, found 'mac'; did you mean 'macs'?",
    ),
    "an inner option": (
        {"amount": 0.5, "training": {"epochs": 1, "optimizer": {"name": "sgd", "l": 1.0}}},
        "training.optimizer sgd: expected one of lr, momentum, weight_decay, nesterov, found 'l'; did you mean 'lr'?",
    ),
    "a range": ({"amount": 1.5}, "amount: expected a number <= 1.0, found 1.5"),
    "a range of an option": (
        {"amount": 0.5, "unit": {"name": "block", "height": 0, "width": 3}},
        "unit: block: expected sides of at least 1, got 0 by 3",
    ),
    "a learning rate": (
        {"amount": 0.5, "training": {"epochs": 1, "optimizer": {"name": "sgd", "lr": -1}}},
        "training.optimizer sgd: Invalid learning rate: -1.0",
    ),
    "no epochs": ({"amount": 0.5, "training": {"epochs": 0}}, "training.epochs: expected an integer >= 1, found 0"),
    "no cases": ({"amount": 0.5, "calibration": 0}, "calibration: expected an integer >= 1, found 0"),
    "all error": ({"amount": 0.5, "relative_error": 1}, "relative_error: expected a number < 1.0, found 1"),
    "no amount": ({}, "amount: expected a fraction removed, in [0, 1], found nothing"),
    "an amount too many": (
        {"amount": 0.5, "pattern": "2:4"},
        "amount: expected none, as budget count decides how much stays, found 0.5",
    ),
    "an amount of gates": (
        {"amount": 0.5, "method": {"name": "gates", "penalty": 1.0}, "training": TRAINING},
        "amount: expected none, as method gates decides how much stays, found 0.5",
    ),
    "a pattern and a budget": (
        {"pattern": "2:4", "budget": "erk"},
        "pattern: expected no budget beside it, which it stands for, found one",
    ),
    "a pattern": ({"pattern": "2-4"}, "pattern: expected one such as '2:4', found '2-4'"),
    "2:4 by ERK": (
        {"amount": 0.5, "scope": {"name": "run", "length": 4}, "budget": "erk"},
        "scope: expected tensor or row for budget erk, which decides for each tensor, found 'run'",
    ),
    "a price of ranks": (
        {"budget": "price"},
        "criterion: expected one in bits (taylor, fisher, obs) for budget price, found 'magnitude', which only ranks",
    ),
    "nothing to train by": (
        {"amount": 0.5, "method": "rigl"},
        "training: expected a table [training] for method rigl, found nothing",
    ),
    "an axis without use": (
        {"method": {"name": "gates", "penalty": 1.0}, "criterion": "wanda", "training": TRAINING},
        "criterion: expected none, for which method gates has no use, found 'wanda'",
    ),
    "a ramp of counts": (
        {"method": ITERATIVE, "pattern": "2:4", "training": TRAINING},
        "budget: expected density or erk for method iterative, whose amount grows, found 'count'",
    ),
    "moving blocks": (
        {"amount": 0.5, "method": "set", "unit": "4x4", "training": TRAINING},
        "unit: expected weight for method set, which moves single weights, found 'block'",
    ),
    "moving patterns": (
        {"method": "rigl", "pattern": "2:4", "training": TRAINING},
        "scope: expected model, tensor or row for method rigl, whose connections move, found 'run'",
    ),
    "movement at once": (
        {"amount": 0.5, "criterion": "movement"},
        "criterion: expected one that is known at once for method one-shot, found 'movement', which is for gradual",
    ),
    "movement and repair": (
        {"amount": 0.5, "criterion": "movement", "solver": "sparse-gpt", "method": "gradual", "training": TRAINING},
        "solver: expected cut for criterion movement, which comes from training, found 'sparse-gpt'",
    ),
    "scales of single weights": (
        {"amount": 0.5, "criterion": "norm-scale"},
        "criterion: expected one that has scores for unit weight; norm-scale is for channels, found 'norm-scale'",
    ),
    "rows of channels": (
        {"amount": 0.5, "unit": "channels", "scope": "row"},
        "scope: expected model or tensor for unit channels, whose members lie across tensors, found 'row'",
    ),
    "sparse channels": (
        {"amount": 0.5, "unit": "channels", "solver": "sparse-gpt"},
        "solver: expected cut or least-squares for unit channels, found 'sparse-gpt'",
    ),
    "ERK of channels": (
        {"unit": "channels", "scope": "tensor", "budget": "erk", "amount": 0.5},
        "budget: expected one that asks no tensor's shape for unit channels, across tensors, found 'erk'",
    ),
    "shrinking channels": (
        {"method": {"name": "proximal", "penalty": 1.0}, "unit": "channels", "training": TRAINING},
        "unit: expected weight or block for method proximal, found 'channels'",
    ),
    "steps of no training": (
        {"amount": 0.5, "method": {"name": "lottery", "rounds": 2, "rewind": 5}, "training": TRAINING},
        "method.rewind: expected 0 without a table [dense], whose steps it counts, found 5",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_by_place_expectation_and_finding(case):
    values, message = REFUSED[case]
    with pytest.raises(MismatchError) as refused:
        parse_recipe(values, "recipe.toml")
    assert str(refused.value).startswith("recipe.toml: ")
    assert str(refused.value).endswith(message)


def test_what_is_no_toml_is_refused(tmp_path):
    path = tmp_path / "r.toml"
    for content in (b"amount = ", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(MismatchError, match=r"r\.toml: expected TOML, found an error"):
            read_recipe(path)


def test_every_combination_of_names_is_a_recipe_or_is_refused():
    """No choice fails in another way than by a refusal."""
    needed = {"block": {"height": 2}, "run": {"length": 4}, "count": {"n": 2}, "rates": {"densities": {}}}
    needed |= {"total": {"limit": 9}, "iterative": {"rounds": 2}, "lottery": {"rounds": 2}}
    needed |= {"gates": {"penalty": 1.0}, "proximal": {"penalty": 1.0}}
    axes = ("method", "criterion", "unit", "scope", "budget")
    fine = 0
    for names in itertools.product(*(names_of(axis) for axis in axes)):
        used = names_of("method")[names[0]].traits.axes | {"method"}
        values = {a: {"name": n, **needed.get(n, {})} for a, n in zip(axes, names, strict=True) if a in used}
        amount = {"amount": 0.5} if "budget" in used and names[4] in BY_AMOUNT else {}
        try:
            recipe = parse_recipe({**values, **amount, "training": TRAINING})
        except MismatchError:
            continue
        fine += 1
        assert not (recipe.unit and recipe.unit.name in COUPLED and recipe.method.name in ("rigl", "proximal"))
    assert fine > 100


EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_recipes(path):
    assert path.read_text().startswith("# ")
    assert read_recipe(path).relative_error == 0.1


def test_the_examples_are_nine():
    assert len(EXAMPLES) == 9
