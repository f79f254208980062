"""Saving and loading models and training states."""

import random
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

import numpy as np

from modelhub.ml.checkpoint import (
    CheckpointError,
    model_load,
    model_save,
    rng_restore,
    rng_state,
    tokenizer_load,
    training_state_load,
    training_state_save,
)
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_write(tmp_path_factory.mktemp("tiny"))


def test_a_saved_model_loads_with_the_same_weights_and_its_embedding_still_tied(tiny, tmp_path):
    model = model_load(tiny, dtype="float32")
    model_save(model, tokenizer_load(tiny), tmp_path / "copy", dtype="float32")
    copy = model_load(tmp_path / "copy", dtype="float32")
    assert copy.lm_head.weight is copy.model.embed_tokens.weight
    for (name, one), (_, other) in zip(
        model.state_dict().items(), copy.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name


def test_the_same_seed_writes_the_same_bytes(tiny, tmp_path):
    other = tiny_model_write(tmp_path / "again")
    assert (tiny / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_saving_in_bfloat16_leaves_the_model_in_memory_as_it_was(tiny, tmp_path):
    model = model_load(tiny, dtype="float32")
    model_save(model, tokenizer_load(tiny), tmp_path)
    assert model.dtype == torch.float32
    assert model_load(tmp_path, dtype="float32").config.dtype == torch.float32
    assert '"dtype": "bfloat16"' in (tmp_path / "config.json").read_text()
    # 20 tensors, 2 bytes a weight, the tied embedding once.
    weights = sum(p.numel() for p in model.parameters())
    assert 2 * weights < (tmp_path / "model.safetensors").stat().st_size < 2 * weights + 4096


def test_every_saved_file_is_readable_by_the_group_and_by_nobody_else(tiny):
    assert {path.stat().st_mode & 0o777 for path in tiny.iterdir()} == {0o640}


def test_a_reward_model_keeps_its_head(tiny, tmp_path):
    torch.manual_seed(3)
    model = model_load(tiny, dtype="float32", role="reward", new_head=True)
    assert model.score.weight.shape == (1, 64)
    model_save(model, tokenizer_load(tiny), tmp_path, dtype="float32")
    assert torch.equal(
        model_load(tmp_path, dtype="float32", role="reward").score.weight, model.score.weight
    )


def test_a_language_model_is_not_taken_for_a_reward_model(tiny):
    with pytest.raises(CheckpointError, match=r"score\.weight is missing"):
        model_load(tiny, dtype="float32", role="reward")


def test_a_reward_model_is_not_taken_for_a_language_model(tiny, tmp_path):
    model = model_load(tiny, dtype="float32", role="reward", new_head=True)
    model_save(model, tokenizer_load(tiny), tmp_path)
    with pytest.raises(CheckpointError, match=r"score\.weight is not a weight of this"):
        model_load(tmp_path, dtype="float32")


def test_an_unknown_dtype_is_named(tiny):
    with pytest.raises(CheckpointError, match="'int8'"):
        model_load(tiny, dtype="int8")


def _draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_generators_go_on_where_they_were():
    state = rng_state()
    first = _draws()
    _draws()
    rng_restore(state)
    assert _draws() == first


def _train(model, optimizer, steps: int) -> list[float]:
    losses = []
    for _ in range(steps):
        ids = torch.randint(0, 259, (2, 12))
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def _start(folder: Path, lr: float):
    model = model_load(folder, dtype="float32").train()
    return model, torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95))


def test_training_resumed_from_a_state_gives_the_same_losses_bit_for_bit(tiny, tmp_path):
    torch.manual_seed(0)
    model, optimizer = _start(tiny, lr=1e-3)
    _train(model, optimizer, 3)
    training_state_save(tmp_path, model=model, optimizer=optimizer, values={"step": 3})
    expected = _train(model, optimizer, 3)

    again, its_optimizer = _start(tiny, lr=1e-5)
    values = training_state_load(tmp_path, model=again, optimizer=its_optimizer)
    assert values == {"step": 3}
    assert its_optimizer.param_groups[0]["lr"] == 1e-3
    assert _train(again, its_optimizer, 3) == expected


def test_only_trained_weights_are_kept_in_a_state(tiny, tmp_path):
    model = model_load(tiny, dtype="float32")
    model.requires_grad_(False)
    model.model.norm.weight.requires_grad_(True)
    optimizer = torch.optim.AdamW([model.model.norm.weight])
    training_state_save(tmp_path, model=model, optimizer=optimizer, values={})
    assert (tmp_path / "weights.safetensors").stat().st_size < 1000
    training_state_load(tmp_path, model=model, optimizer=optimizer)


def test_a_state_of_another_model_is_refused(tiny, tmp_path):
    model, optimizer = _start(tiny, lr=1e-3)
    training_state_save(tmp_path, model=model, optimizer=optimizer, values={})
    model.model.norm.weight.requires_grad_(False)
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight is on one side only"):
        training_state_load(tmp_path, model=model, optimizer=optimizer)


def test_a_state_of_another_optimizer_is_refused(tiny, tmp_path):
    model, optimizer = _start(tiny, lr=1e-3)
    training_state_save(tmp_path, model=model, optimizer=optimizer, values={})
    with pytest.raises(CheckpointError, match="the optimizer was a AdamW"):
        training_state_load(
            tmp_path, model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1)
        )
