"""The registry is whole: every entry builds, has words, and is in the documentation."""

import re
import tomllib
from pathlib import Path

import pytest
import torch

import laconic
from laconic import zoo
from laconic.pruning.criteria import Criterion
from laconic.recipes.axes import AXES, Setting, build, rows
from laconic.recipes.methods import Method
from laconic.recipes.options import REQUIRED, Choice, options_of

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
    "unit": lambda built: isinstance(built, laconic.Unit),
    "scope": lambda built: isinstance(built, laconic.Scope),
    "budget": lambda built: isinstance(built(0.5), laconic.Budget),
    "solver": lambda built: isinstance(built, laconic.Solver),
    "method": lambda built: isinstance(built, Method),
    "optimizer": lambda built: isinstance(built([torch.nn.Parameter()]), torch.optim.Optimizer),
    "scheduler": lambda built: (
        built is None
        or isinstance(
            built(torch.optim.SGD([torch.nn.Parameter()], lr=1)), torch.optim.lr_scheduler.LRScheduler
        )
    ),
}
NAMES = [(axis, name) for axis, names in AXES.items() for name in names]


@pytest.mark.parametrize(("axis", "name"), NAMES)
def test_every_entry_builds(axis, name):
    options = {
        key: REQUIRED_OPTIONS[key] if option.default is REQUIRED else option.default
        for key, option in options_of(AXES[axis][name]).items()
    }
    setting = Setting(zoo.digits_net().eval(), torch.randn(2, 64), seed=3)
    assert PROMISES[axis](build(axis, Choice(name, options), setting))


def test_names_are_pythons_in_lower_case_with_dashes():
    for _, name in NAMES:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
    public = {re.sub(r"(?<=[a-z])(?=[A-Z])", "-", n).replace("_", "-").lower() for n in laconic.__all__}
    for axis in ("criterion", "unit", "scope", "budget", "solver"):
        assert set(AXES[axis]) <= public, axis


def test_all_criteria_and_solvers_of_laconic_are_there():
    found = [getattr(laconic, name) for name in laconic.__all__]
    criteria = {n.__name__ for n in found if callable(n) and hasattr(n, "in_bits") and hasattr(n, "__name__")}
    criteria -= {"Criterion"}
    assert {name.replace("_", "-") for name in criteria} | {"random"} == set(AXES["criterion"])


def test_a_random_criterion_goes_by_the_runs_seed_unless_it_has_one():
    model = zoo.blobs_net()
    weights = laconic.tensors(model)

    def scores(options, seed):
        return build("criterion", Choice("random", options), Setting(model, None, seed))(weights)[
            "fc1.weight"
        ]

    assert torch.equal(scores({}, 5), laconic.random(5)(weights)["fc1.weight"])
    assert torch.equal(scores({"seed": 2}, 5), scores({"seed": 2}, 6))


def test_the_documentation_has_the_table_of_all_axes():
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    lines = {
        f"| {axis} | `{name}` | {f'`{options}`' if options else ''} | {what} |"
        for axis, name, options, what in rows()
    }
    found = {
        line.replace("\\|", "|") for line in page.splitlines() if re.match(rf"\| ({'|'.join(AXES)}) \|", line)
    }
    assert found == lines


def test_recipes_in_the_documentation_are_recipes():
    page = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```toml\n(.*?)^```", page, re.M | re.S)
    assert snippets
    for snippet in snippets:
        laconic.Recipe.of(tomllib.loads(snippet))
