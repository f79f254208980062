"""The engine beside the actor: its answers, its weights, and the canary that watches them."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.configs import PpoConfig
from alignment.ml.ppo.networks import actor_load, plain_weights, rounded_weights
from alignment.ml.ppo.sampling import CanaryError, Drawing, prompts_lay
from modelhub.ml.chat import end_of_turn_id
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.engines import Drawn
from modelhub.ml.engines.transformers import TransformersEngine
from tests.alignment.ml.programs import prompts_write
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml

EMBEDDING = "model.embed_tokens.weight"
CONFIG = PpoConfig(engine="transformers", max_tokens=8, samples=2, prompts_per_step=4)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory, base):
    folder = prompts_write(tmp_path_factory.mktemp("inputs") / "prompts", list("abcd"))
    return prompts_lay(folder / "prompts.jsonl", tokenizer_load(base), room_tokens=100)


def nudge(actor, size):
    """Move every trained weight a little."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in actor.parameters():
            if weight.requires_grad:
                weight.add_(size * torch.randn(weight.shape, generator=generator))


def drawing_make(base, prompts, config=CONFIG):
    return Drawing(base, tokenizer_load(base), prompts, config)


def test_the_engine_has_the_weights_that_are_trained(base, prompts):
    actor, drawing = actor_load(base, CONFIG), drawing_make(base, prompts)
    assert drawing.refresh(actor, step=1) < 1e-5
    nudge(actor, 0.05)
    assert drawing.refresh(actor, step=2) < 1e-5


def test_an_engine_that_was_not_refreshed_is_caught(base, prompts, monkeypatch):
    actor, drawing = actor_load(base, CONFIG), drawing_make(base, prompts)
    drawing.refresh(actor, step=1)
    monkeypatch.setattr(TransformersEngine, "refresh", lambda self, weights: None)
    nudge(actor, 0.05)
    with pytest.raises(CanaryError, match=r"step 2: transformers and the trainer disagree .* by"):
        drawing.refresh(actor, step=2)


def test_an_engine_that_kept_its_weights_is_caught_however_little_they_moved(
    base, prompts, monkeypatch
):
    actor, drawing = actor_load(base, CONFIG), drawing_make(base, prompts)
    drawing.refresh(actor, step=1)
    monkeypatch.setattr(TransformersEngine, "refresh", lambda self, weights: None)
    nudge(actor, 1e-5)  # far less than the tolerance
    with pytest.raises(CanaryError, match="it has kept its old weights"):
        drawing.refresh(actor, step=2)


def test_an_engine_that_took_a_part_of_the_weights_is_caught(base, prompts, monkeypatch):
    """As vLLM's own reload leaves a tied output layer behind on the CPU."""
    actor, drawing = actor_load(base, CONFIG), drawing_make(base, prompts)
    whole = TransformersEngine.refresh

    def partly(self, weights):
        old = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        whole(self, {**weights, **{name: old[name] for name in ("lm_head.weight", EMBEDDING)}})

    monkeypatch.setattr(TransformersEngine, "refresh", partly)
    nudge(actor, 0.05)
    with pytest.raises(CanaryError, match="disagree"):
        drawing.refresh(actor, step=1)


def test_weights_that_do_not_move_raise_no_alarm(base, prompts):
    actor, drawing = actor_load(base, CONFIG), drawing_make(base, prompts)
    assert drawing.refresh(actor, step=1) == drawing.refresh(actor, step=2)


def test_an_adapter_reaches_the_engine_merged(base, prompts):
    config = PpoConfig(engine="transformers", max_tokens=8, adapter="lora", lora_rank=4)
    actor = actor_load(base, config)
    nudge(actor, 0.1)
    weights = {name: tensor.clone() for name, tensor in plain_weights(actor).items()}
    assert drawing_make(base, prompts, config).refresh(actor, step=1) < 1e-4
    merged = actor.merge_and_unload().state_dict()
    assert merged.keys() == weights.keys()
    assert all(torch.allclose(weights[name], merged[name], atol=1e-6) for name in merged)


def test_small_updates_reach_an_engine_in_bfloat16(base):
    """Rounded to nearest, most weights would lie where they were."""
    model = model_load(base, dtype="float32")
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())
            weight.mul_(1 + 2**-12)  # a sixteenth of a step of the grid
    weights = dict(model.state_dict())
    rounded = rounded_weights(weights, dtype="bfloat16", seed=1)
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(rounded[name].bfloat16().float(), rounded[name])
    gained = (rounded[name] - weights[name].bfloat16()).mean()
    wanted = (weights[name] - weights[name].bfloat16()).abs().mean()
    assert gained.abs() < wanted  # both signs: the mean is kept, not the direction
    assert (rounded[name] != weights[name].bfloat16()).float().mean() > 0.02
    # Tied weights stay tied.
    assert rounded["lm_head.weight"].data_ptr() == rounded[EMBEDDING].data_ptr()
    assert rounded_weights(weights, dtype="float32", seed=1) is weights


def test_the_same_step_draws_the_same_answers_and_another_one_others(base, prompts):
    actor, drawing = actor_load(base, CONFIG), drawing_make(base, prompts)
    drawing.refresh(actor, step=1)
    first, again, other = (
        drawing.draw(prompts, samples=2, salt=salt) for salt in ("step:0", "step:0", "step:1")
    )
    assert first == again
    assert first.groups != other.groups
    assert [len(group.answers) for group in first.groups] == [2] * 4
    assert first.count == 8


def test_a_reward_model_reads_the_template_s_own_ending(base, prompts):
    """A policy may stop by a token that no reward model was trained on."""
    drawing = drawing_make(base, prompts)
    ending = end_of_turn_id(tokenizer_load(base))
    stopped = Drawn(tokens=(70, 71, 0), logprobs=(0.0,) * 3, finish_reason="stop")
    cut = Drawn(tokens=(70, 71, 72), logprobs=(0.0,) * 3, finish_reason="length")
    assert drawing._judged(stopped) == [70, 71, ending]
    assert drawing._judged(cut) == [70, 71, 72]
