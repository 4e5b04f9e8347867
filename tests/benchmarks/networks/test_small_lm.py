import pytest
import torch

from benchmarks.networks import small_lm


def test_parts_share_no_text_and_windows_are_whole():
    windows = small_lm.windows()
    assert {part.shape[1] for part in windows.values()} == {small_lm.TOKENS}
    assert len(windows["train"]) > 10 * len(windows["choose"])
    first = small_lm.batches("train", seed=0)[0]["input_ids"]
    assert not torch.equal(first, small_lm.batches("train", seed=1)[0]["input_ids"])


def test_the_table_is_the_output_too():
    model = small_lm.network()
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    untrained = small_lm.loss(model, "choose")
    assert untrained == pytest.approx(torch.tensor(float(small_lm.VOCABULARY)).log().item(), rel=0.05)
