"""The registry is whole: every entry builds and has words, of which the documentation makes its table."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest
import torch

import laconic
from laconic import zoo
from laconic.pruning import Scope, Solver, criteria
from laconic.pruning.criteria import Criterion
from laconic.recipes import parse_recipe
from laconic.recipes.registry import AXES, Choice, Setting, build, kebab, names_of, options_of, rows

REQUIRED_OPTIONS = {
    "length": 4,
    "n": 2,
    "densities": {"fc1": 0.5},
    "limit": 100.0,
    "rounds": 2,
    "price": 1.0,
    "penalty": 0.1,
    "lr": 0.1,
    "milestones": (1, 2),
}
PROMISES = {
    "criterion": lambda built: isinstance(built, Criterion),
    "unit": lambda built: isinstance(built, laconic.pruning.Unit),
    "scope": lambda built: isinstance(built, laconic.pruning.Scope),
    "budget": lambda built: isinstance(built, laconic.pruning.Budget),
    "solver": lambda built: isinstance(built, laconic.pruning.Solver),
    "optimizer": lambda built: isinstance(built([torch.nn.Parameter()]), torch.optim.Optimizer),
    "scheduler": lambda built: (
        built is None
        or isinstance(built(torch.optim.SGD([torch.nn.Parameter()], lr=1)), torch.optim.lr_scheduler.LRScheduler)
    ),
}
NAMES = [(axis, name) for axis in AXES for name in names_of(axis)]


@pytest.mark.parametrize(("axis", "name"), [entry for entry in NAMES if entry[0] != "method"])
def test_every_entry_builds(axis, name):
    fields = msgspec.structs.fields(options_of(names_of(axis)[name]))
    options = {one.name: REQUIRED_OPTIONS[one.name] if one.required else one.default for one in fields}
    setting = Setting(zoo.digits_net().eval(), torch.randn(2, 64), seed=3)
    assert PROMISES[axis](build(axis, Choice(name, options), setting))


def test_names_are_lower_case_with_dashes():
    for _, name in NAMES:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)


def test_all_criteria_solvers_and_budgets_of_laconic_are_there():
    assert {kebab(name) for name in criteria.CRITERIA} | {"random"} == set(names_of("criterion"))
    for axis, base in {"solver": Solver, "scope": Scope}.items():
        assert set(names_of(axis).values()) == set(base.__subclasses__())


def test_a_criterion_of_ones_own_is_known_to_recipes_by_its_name():
    @criteria.criterion()
    def my_own_scores(weights, evidence=None):
        return {name: weight.detach().abs() for name, weight in weights.items()}

    try:
        recipe = parse_recipe({"amount": 0.5, "criterion": "my-own-scores"})
        assert build("criterion", recipe.criterion, Setting(torch.nn.Identity(), None)) is my_own_scores
    finally:
        del criteria.CRITERIA["my_own_scores"]


def test_a_random_criterion_goes_by_the_runs_seed_unless_it_has_one():
    model = zoo.blobs_net()
    weights = laconic.model.compressible(model)

    def scores(options, seed):
        return build("criterion", Choice("random", options), Setting(model, None, seed))(weights)["fc1.weight"]

    assert torch.equal(scores({}, 5), laconic.pruning.criteria.random(5)(weights)["fc1.weight"])
    assert torch.equal(scores({"seed": 2}, 5), scores({"seed": 2}, 6))


def test_every_entry_has_words_for_the_table_of_all_axes():
    assert [(axis, name) for axis, name, _, _ in rows()] == [(axis, n) for axis in AXES for n in names_of(axis)]
    for axis, name, _, what in rows():
        assert re.fullmatch(r"[^\n]+\.", what), f"{axis} {name}: {what!r}"


def test_recipes_in_the_documentation_are_recipes():
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)
    assert snippets
    for snippet in snippets:
        laconic.recipes.parse_recipe(tomllib.loads(snippet))
