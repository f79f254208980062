"""Policies that learn from their own answers as adapters: what moves, what stays the reference."""

import json

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.configs import GrpoConfig, PpoConfig
from alignment.ml.online import dpo as online_dpo
from alignment.ml.online import grpo, rloo
from alignment.ml.ppo import __main__ as ppo
from alignment.ml.ppo.networks import (
    actor_load,
    critic_load,
    reference_logprobs,
    token_logprobs,
    token_values,
)
from alignment.ml.ppo.sampling import Drawing, prompts_lay
from alignment.ml.shared_prefix import Group, pack
from modelhub.ml.adapter import ModelInput, model_input_load
from modelhub.ml.adapter_directory import adapter_directory_check
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.manifest import manifest_write
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.online.runs import online_run_make
from tests.alignment.ml.ppo.runs import figures_of, ppo_run
from tests.alignment.ml.programs import prompts_write, result_of, tiny_reward_write
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml

SETTINGS = {
    "lora": {"lr": 1e-2, "lora_rank": 4},
    "prefix": {"lr": 1e-1, "virtual_tokens": 4},
    "p_tuning": {"lr": 1e-2, "virtual_tokens": 4, "encoder_width": 32},
}
GROUPS = [Group([5, 6, 7], [[8, 9], [10, 11, 12]]), Group([13, 14], [[15, 16, 17, 18]])]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tiny_model_write(tmp_path_factory.mktemp("base"))
    manifest_write(folder)
    return folder


@pytest.fixture(scope="module")
def reward(tmp_path_factory, base):
    return tiny_reward_write(tmp_path_factory.mktemp("reward"), base)


def flat(model, group):
    """log p of the answers' tokens, each answer alone. P-tuning has logits of its own in front."""
    found = []
    for answer in group.answers:
        logits_TV = model(input_ids=torch.tensor([group.prompt_T + answer])).logits[0]
        logs_TV = logits_TV[-len(answer) - 1 : -1].log_softmax(-1)
        found.append(logs_TV.gather(1, torch.tensor(answer)[:, None])[:, 0])
    return torch.cat(found)


@pytest.mark.parametrize("kind", SETTINGS)
def test_the_reference_is_the_base_and_the_policy_is_peft_s_own_alone(base, kind):
    """On a packed row of several prompts, which is where virtual tokens go silently wrong."""
    config = PpoConfig(adapter=kind, publish="adapter", **SETTINGS[kind])
    torch.manual_seed(0)
    actor = actor_load(base, config)
    with torch.no_grad():
        for weight in actor.parameters():  # as if it had learnt
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn_like(weight))
        (row,) = pack(GROUPS, 4096)
        theirs = reference_logprobs(None, actor, row, 1.0)
        ours, _ = token_logprobs(actor, row)
        plain = model_load(base, dtype="float32")
        ordered = [GROUPS[place] for place in row.indices]
        assert torch.allclose(theirs, torch.cat([flat(plain, one) for one in ordered]), atol=1e-4)
        alone = actor
        alone.get_base_model().set_attn_implementation("sdpa")
        expected = torch.cat([flat(alone, one) for one in ordered])
    assert torch.allclose(ours, expected, atol=1e-4)
    assert (ours - theirs).abs().mean() > 0.05


@pytest.mark.parametrize("kind", SETTINGS)
def test_only_the_adapter_moves_and_it_is_published_on_its_base(tmp_path, base, reward, kind):
    inputs = {
        "base": base,
        "reward": reward,
        "evaluation_prompts": prompts_write(tmp_path / "e", ["e0", "e1"]),
    }
    run = ppo_run(tmp_path, inputs, adapter=kind, publish="adapter", **SETTINGS[kind])
    ppo.main(RunDir(run))
    outputs = json.loads((run / "result.json").read_text())["outputs"]
    assert {role: one["kind"] for role, one in outputs.items()} == {"adapter": "adapter"}
    facts = adapter_directory_check(run / "outputs" / "adapter")
    assert (facts.kind, facts.role, facts.base_sha256) == (kind, "causal", manifest_write(base))
    assert result_of(run)["adapter"] == kind
    figures = figures_of(run)
    # Engine and trainer have the same policy at every step, the adapter's own tokens included.
    assert all(one["canary/logprob_difference"] < 1e-4 for one in figures.values())
    assert abs(figures[2]["objective/kl"]) > 1e-4
    if kind == "lora":  # which starts from nothing; virtual tokens are there from the start
        assert figures[1]["objective/kl"] == 0.0
    # Without its adapter what was trained is the base, to the bit.
    found = model_input_load(
        ModelInput(run / "outputs" / "adapter", base), dtype="float32", merge=False
    )
    plain = model_load(base, dtype="float32").state_dict()
    own = found.get_base_model().state_dict()
    kept = {name.replace(".base_layer.", "."): one for name, one in own.items()}
    assert all(torch.equal(kept[name], one) for name, one in plain.items())
    moved, bare = flat(found, GROUPS[0]), flat(model_load(base, dtype="float32"), GROUPS[0])
    assert not torch.allclose(moved, bare, atol=1e-3)


@pytest.mark.parametrize("method", [grpo, rloo, online_dpo], ids=["grpo", "rloo", "online_dpo"])
@pytest.mark.parametrize("kind", ["lora", "prefix"])
def test_the_others_publish_adapters_too(tmp_path, base, reward, method, kind):
    name = method.__name__.rpartition(".")[2]
    run = online_run_make(
        tmp_path,
        "online_dpo" if name == "dpo" else name,
        {"base": base, "reward": reward},
        prompts=4,
        adapter=kind,
        publish="adapter",
        **SETTINGS[kind],
    )
    method.main(RunDir(run))
    assert adapter_directory_check(run / "outputs" / "adapter").kind == kind
    assert figures_of(run)[1]["canary/logprob_difference"] < 1e-4


def test_a_critic_has_an_adapter_of_its_own_and_starts_at_the_reward_model(base, reward):
    config = PpoConfig(adapter="prefix", publish="adapter", virtual_tokens=4)
    critic = critic_load(reward, base, config)
    trained = {name for name, one in critic.named_parameters() if one.requires_grad}
    assert len(trained) == 3 and all("prompt" in one or "score" in one for one in trained)
    plain = critic_load(reward, base, PpoConfig())
    own = critic.get_base_model()
    hidden = torch.randn(3, 64)
    assert torch.equal(own.score(hidden), plain.score(hidden))
    (row,) = pack(GROUPS, 4096)
    with torch.no_grad():
        assert torch.isfinite(token_values(critic, row)).all()


def test_virtual_tokens_take_their_place_in_the_context(tmp_path, base):
    folder = prompts_write(tmp_path / "asked", ["p00"])
    laid = prompts_lay(folder / "prompts.jsonl", tokenizer_load(base), room_tokens=100)
    length = len(laid[0].tokens)
    inputs = {"base": base, "reward": base}
    run = online_run_make(
        tmp_path,
        "grpo",
        inputs,
        prompts=1,
        adapter="prefix",
        publish="adapter",
        virtual_tokens=512 - 1 - 8 - length + 1,  # one too many
    )
    from alignment.ml.ppo.inputs import prompts_load
    from modelhub.ml.generate import PromptsError

    described = RunDir(run)
    with pytest.raises(PromptsError, match=f"there is room for {length - 1}"):
        prompts_load(described, tokenizer_load(base), described.config(GrpoConfig))


def test_texts_learnt_beside_leave_their_place_to_them(tmp_path, base, reward):
    """A text that fills the context by itself is cut where the adapter's own tokens need room."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "texts.jsonl").write_text(json.dumps({"text": "word " * 200}) + "\n")
    run = ppo_run(
        tmp_path,
        {"base": base, "reward": reward, "pretraining": tmp_path / "texts"},
        prompts=4,
        adapter="prefix",
        publish="adapter",
        ptx_coef=1.0,
        **SETTINGS["prefix"],
    )
    ppo.main(RunDir(run))
    assert figures_of(run)[1]["loss/ptx_avg"] > 0


def test_the_engine_that_draws_is_one_that_has_a_place_for_them(tmp_path, base):
    folder = prompts_write(tmp_path / "prompts", ["p00"])
    laid = prompts_lay(folder / "prompts.jsonl", tokenizer_load(base), room_tokens=100)
    config = PpoConfig(adapter="prefix", publish="adapter", engine="auto", max_tokens=4)
    assert Drawing(base, tokenizer_load(base), laid, config).name == "transformers"
    with pytest.raises(ConfigError, match="engine: wanted transformers or auto: vLLM serves no"):
        PpoConfig(adapter="prefix", publish="adapter", engine="vllm")


def test_qlora_is_refused_plainly_where_there_is_no_gpu(tmp_path, base, reward, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    inputs = {"base": base, "reward": reward}
    run = ppo_run(tmp_path, inputs, adapter="qlora", publish="adapter")
    with pytest.raises(RefusedError, match=r"qlora needs an NVIDIA GPU.*take adapter lora"):
        ppo.main(RunDir(run))
