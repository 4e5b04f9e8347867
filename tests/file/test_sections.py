"""The plan in a file: what it costs, what it does to a dense model, and that it never does more."""

import copy
import itertools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import laconic
from laconic import zoo
from laconic.cli.main import main
from laconic.codec.spec import Method, TensorSpec
from laconic.coding.bitio import Cursor, varint
from laconic.errors import FormatError, MismatchError, UnsupportedError
from laconic.file import Reader, sections
from laconic.file.sections import ENDINGS, MAX_NAME_BYTES, read_name, write_name
from laconic.surgery import Plan
from tests.file import small_bytes
from tests.support.files import plan_bytes, plan_of
from tests.support.networks import NETWORKS
from tests.surgery.test_conformance import agree, half, run


def cut(name, kinds=("find_channels",)):
    """A dense model of the list, its inputs, the model cut in half, and the plan."""
    network = NETWORKS[name]
    model, inputs = network.make(), network.inputs()
    groups = [group for kind in kinds for group in getattr(laconic.surgery, kind)(model, inputs).groups]
    plan = Plan.of(groups, half(laconic.surgery.Coupling(tuple(groups), {}), model)[0], model)
    return model, inputs, laconic.shrink(model, plan), plan


@pytest.fixture(scope="module")
def resnet():
    return cut("resnet20", ("find_channels", "find_residual_blocks"))


@pytest.fixture(scope="module")
def llama():
    return cut("llama", ("find_channels", "find_heads", "find_residual_blocks"))


def test_the_plan_of_resnet20_takes_a_few_hundred_bytes(tmp_path):
    _, _, small, plan = cut("resnet20")
    with_plan = laconic.save(small, tmp_path / "a.lac", plan=plan)
    without = laconic.save(small, tmp_path / "b.lac")
    assert with_plan - without == plan_bytes(tmp_path / "a.lac") <= 200


def test_a_file_without_a_plan_is_as_before(resnet, tmp_path):
    small = resnet[2]
    laconic.save(small, tmp_path / "a.lac")
    laconic.save(small, tmp_path / "b.lac", plan=Plan())
    assert (tmp_path / "a.lac").read_bytes() == (tmp_path / "b.lac").read_bytes()
    assert plan_of(tmp_path / "a.lac") is None


@pytest.mark.parametrize("case", ["resnet", "llama"])
def test_dense_and_cut_models_are_filled_from_one_file(case, request, tmp_path):
    _, inputs, small, plan = request.getfixturevalue(case)
    path = tmp_path / "small.lac"
    laconic.save(small, path, None, plan=plan)
    with Reader(path) as reader:
        assert reader.plan == plan
        assert list(reader.entries) == list(small.state_dict())
    assert laconic.load(path).keys() == small.state_dict().keys()
    expected = run(small, inputs)
    for model in (NETWORKS["llama" if case == "llama" else "resnet20"].make(), copy.deepcopy(small)):
        assert agree(expected, run(laconic.load(path, into=model), inputs))


def test_settings_and_bypassed_blocks_are_replayed(llama, tmp_path):
    plan = llama[-1]
    assert plan.bypassed == {"model.layers.1": 0}
    encoder, _, small_encoder, heads = cut("bert", ("find_heads",))
    assert heads.settings
    laconic.save(small_encoder, tmp_path / "bert.lac", plan=heads)
    laconic.load(tmp_path / "bert.lac", into=encoder)
    layer, expected = (m.bert.encoder.layer[0] for m in (encoder, small_encoder))
    assert layer.attention.self.num_attention_heads == expected.attention.self.num_attention_heads == 2


def test_a_model_of_neither_shape_is_untouched(resnet, tmp_path):
    _, _, small, plan = resnet
    laconic.save(small, tmp_path / "small.lac", plan=plan)
    other = zoo.resnet32()
    before = {name: (id(t), t.clone()) for name, t in other.state_dict(keep_vars=True).items()}
    with pytest.raises(MismatchError, match="expected the model's tensors"):
        laconic.load(tmp_path / "small.lac", into=other)
    after = other.state_dict(keep_vars=True)
    assert all(id(after[name]) == i and torch.equal(after[name], t) for name, (i, t) in before.items())
    assert other.layer1[0].conv1.out_channels == 16


def test_damage_in_the_last_chunk_leaves_a_dense_model_untouched(resnet, tmp_path):
    dense, _, small, plan = resnet
    path = tmp_path / "small.lac"
    laconic.save(small, path, plan=plan)
    with Reader(path) as reader:
        offset = reader.entries["linear.weight"].offset
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    model = copy.deepcopy(dense)
    tensors = {name: id(t) for name, t in model.state_dict(keep_vars=True).items()}
    with pytest.raises(FormatError, match="linear.weight: expected checksum"):
        laconic.load(path, into=model)
    assert {name: id(t) for name, t in model.state_dict(keep_vars=True).items()} == tensors
    assert model.layer1[0].conv1.out_channels == 16


def test_a_plan_must_leave_what_is_saved(resnet, tmp_path):
    dense, _, small, plan = resnet
    with pytest.raises(MismatchError, match=r"layer1.\d.bn1.bias: plan leaves \(8,\), tensor is \(16,\)"):
        laconic.save(dense, tmp_path / "x.lac", plan=plan)
    with pytest.raises(MismatchError, match="the tensors to save have it"):
        laconic.save(small, tmp_path / "x.lac", plan=Plan(bypassed={"linear": 0}))
    with pytest.raises(MismatchError, match="the plan has it, the tensors to save do not"):
        laconic.save({"a": torch.zeros(2, 2)}, tmp_path / "x.lac", plan=plan)
    with pytest.raises(UnsupportedError, match="@plan"):
        laconic.save({"@plan": torch.zeros(2, 2)}, tmp_path / "x.lac", plan=Plan(bypassed={"linear": 0}))
    assert not list(tmp_path.iterdir())


def test_an_old_reader_refuses_the_plan_by_name_and_reads_the_rest(resnet, tmp_path, monkeypatch):
    """What the version before did with an entry of a method that it did not know."""
    from laconic.file import container

    _, _, small, plan = resnet
    path = tmp_path / "small.lac"
    laconic.save(small, path, None, plan=plan)
    known = tuple(method for method in container.METHODS if method.name != "PLAN")
    monkeypatch.setattr(container, "METHODS", known)
    assert laconic.load(path, names=["conv1.weight"])["conv1.weight"].shape == (16, 3, 3, 3)
    with pytest.raises(UnsupportedError, match="@plan: type 0, method 3: not known to this version"):
        laconic.load(path)


def test_the_ledger_counts_the_plan(resnet, tmp_path):
    dense, inputs, small, plan = resnet
    n_bytes = laconic.save(small, tmp_path / "small.lac", plan=plan)
    ledger = laconic.describe(tmp_path / "small.lac", [(inputs, torch.zeros(4, dtype=torch.int64))], into=dense)
    assert ledger.model_bits == 8 * n_bytes
    assert ledger.by_part()["plan"] == 8 * plan_bytes(tmp_path / "small.lac") > 0
    assert ledger.n_examples == 4
    assert dense.layer1[0].conv1.out_channels == 16


def test_inspect_tells_of_the_plan(llama, tmp_path, capsys):
    _, _, small, plan = llama
    laconic.save(small, tmp_path / "small.lac", plan=plan)
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "small.lac")])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("plan: ")
    assert "1 block bypassed" in line
    with pytest.raises(SystemExit):
        main(["inspect", "--json", str(tmp_path / "small.lac")])
    found = json.loads(capsys.readouterr().out)["plan"]
    assert found["bypassed"] == ["model.layers.1"]
    assert found["tensors_cut"] == len(plan.kept)
    laconic.save(small, tmp_path / "none.lac")
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "none.lac")])
    assert "plan:" not in capsys.readouterr().out


def test_the_same_positions_are_stored_once():
    kept = torch.tensor([1, 3, 400])
    names = [f"t{i}" for i in range(20)]
    plan = Plan(dict.fromkeys(names, (500, 500)), {n: {0: kept, 1: kept} for n in names})
    specs = [TensorSpec(n, torch.float32, (3, 3), Method.EXACT) for n in names]
    encoded = sections.write_plan(plan, specs)
    assert len(encoded) <= 2 + 63 + 1 + 3 * 40 + 2
    assert sections.read_plan(Cursor(encoded, "plan"), specs) == plan


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
