import random

import pytest

import laconic
from tests.file.test_golden import CASES, FOLDER
from tests.fuzz import surgeon


@pytest.mark.parametrize("name", CASES)
def test_a_file_taken_apart_goes_together_again(name):
    data = (FOLDER / f"{name}.lac").read_bytes()
    assert surgeon.assemble(surgeon.dissect(data)) == data


def test_a_changed_chunk_has_the_right_length_and_checksum(tmp_path):
    data = (FOLDER / "exact.lac").read_bytes()
    refused = 0
    for seed in range(50):
        mutant = surgeon.mutated(data, lambda part: part[:-1] + b"\1", random.Random(seed))
        (tmp_path / "mutant.lac").write_bytes(mutant)
        try:
            laconic.load(tmp_path / "mutant.lac")
        except laconic.errors.FormatError as error:
            refused += "checksum" in str(error)
    assert refused <= 5, "few mutants are stopped by a checksum"
