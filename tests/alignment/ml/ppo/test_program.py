"""The PPO program: what it learns, refuses and stops at, and that a kill changes nothing."""

import json

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml import checkers
from alignment.ml.checkers import ReferenceRecord
from alignment.ml.configs import PpoConfig
from alignment.ml.configs.ppo import PRESETS
from alignment.ml.ppo import training, updates
from alignment.ml.ppo.__main__ import main
from modelhub.ml.checkpoint import model_load
from modelhub.ml.configs import ConfigError, RefusedError, config_load
from modelhub.ml.divergence import Diverged
from modelhub.ml.records import records_write
from modelhub.ml.rundir import NotFinite, RunDir
from tests.alignment.ml.ppo.runs import figures_of, ppo_run
from tests.alignment.ml.programs import (
    checkpoints_of,
    program_kill,
    prompts_write,
    result_of,
    tiny_reward_write,
)
from tests.tiny_model import tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def reward(tmp_path_factory, base):
    return tiny_reward_write(tmp_path_factory.mktemp("reward"), base, head=0.3)


@pytest.fixture
def capitals(monkeypatch):
    """A checker that likes capital letters: a rule that a small policy can learn."""

    def share(text, right):
        return 1.0 if text == right else sum(one.isupper() for one in text) / max(1, len(text))

    monkeypatch.setitem(checkers.CHECKERS, "capitals", share)


def references_write(folder, prompts):
    folder.mkdir(parents=True)
    records = [ReferenceRecord(prompt_id=f"p{number:02}", answer="A") for number in range(prompts)]
    records += [ReferenceRecord(prompt_id=f"e{number}", answer="A") for number in range(8)]
    records_write(folder / "references.jsonl", records)
    return folder


# ── what it learns ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["every weight", "adapter"])
def test_it_learns_what_is_rewarded_on_prompts_it_never_saw(tmp_path, base, capitals, kind):
    run = ppo_run(
        tmp_path,
        {
            "base": base,
            "references": references_write(tmp_path / "references", 16),
            "evaluation_prompts": prompts_write(tmp_path / "e", [f"e{n}" for n in range(8)]),
        },
        prompts=16,
        checker="capitals",
        epochs=6,
        prompts_per_step=8,
        samples=4,
        kl_coef=0.0,
        **(
            {"lr": 2e-3}
            if kind == "every weight"
            else {"adapter": "lora", "lora_rank": 8, "lr": 2e-2}
        ),
    )
    main(RunDir(run))
    result = result_of(run)
    held_out = result["held_out"]
    assert held_out["difference_low"] > 0.02
    assert held_out["after"] == pytest.approx(held_out["before"] + held_out["difference"])
    assert (held_out["prompts"], held_out["answers"]) == (8, 32)
    assert result["steps"] == result["steps_planned"] == 12
    # What other tools load is a plain model, and not the one it started from.
    folder = run / "outputs" / "model"
    assert "shared_prefix" not in (folder / "config.json").read_text()
    trained, old = model_load(folder, dtype="float32"), model_load(base, dtype="float32")
    moved = [
        name
        for (name, one), other in zip(trained.named_parameters(), old.parameters(), strict=True)
        if not torch.equal(one, other.bfloat16().float())
    ]
    assert "model.layers.0.self_attn.q_proj.weight" in moved


def test_it_starts_at_the_reference_and_its_critic_at_the_reward_model(tmp_path, base, reward):
    run = ppo_run(tmp_path, {"base": base, "reward": reward})
    main(RunDir(run))
    first, second = figures_of(run)[1], figures_of(run)[2]
    assert first["objective/kl"] == 0.0
    assert second["objective/kl"] != 0.0
    assert first["objective/kl_coef"] == 0.02
    assert first["episode"] == 12 and second["episode"] == 24
    assert first["policy/updates"] == 4
    assert first["canary/logprob_difference"] < 1e-4
    assert 0 < first["policy/entropy_avg"] < 5.6  # log 259 at most


def test_an_adapter_is_its_own_reference_when_it_is_off(tmp_path, base, reward):
    run = ppo_run(tmp_path, {"base": base, "reward": reward}, adapter="lora", lora_rank=4, lr=1e-2)
    main(RunDir(run))
    assert figures_of(run)[1]["objective/kl"] == 0.0
    assert abs(figures_of(run)[2]["objective/kl"]) > 1e-3


def test_how_prompts_fall_into_rows_changes_nothing_but_rounding(tmp_path, base, reward):
    found = []
    for budget in (40, 4096):
        run = ppo_run(
            tmp_path / str(budget), {"base": base, "reward": reward}, budget_tokens=budget
        )
        main(RunDir(run))
        found.append([list(values.values()) for values in figures_of(run).values()])
    assert torch.tensor(found[0]).allclose(torch.tensor(found[1]), rtol=1e-3, atol=1e-4)


def test_pretraining_examples_are_learnt_beside(tmp_path, base, reward):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "texts.jsonl").write_text(json.dumps({"text": "to be or not to be"}) + "\n")
    run = ppo_run(
        tmp_path,
        {"base": base, "reward": reward, "pretraining": texts},
        epochs=4,
        ptx_coef=20.0,
        ptx_per_answer=0.5,
    )
    main(RunDir(run))
    losses = [values["loss/ptx_avg"] for values in figures_of(run).values()]
    assert losses[-1] < 0.8 * losses[0]


def test_two_rewards_are_combined_as_llama_2_does(tmp_path, base, reward):
    safety = tiny_reward_write(tmp_path / "safety", base, seed=3, head=0.3)
    references = tmp_path / "references"
    references.mkdir()
    records_write(
        references / "references.jsonl",
        [ReferenceRecord(prompt_id=f"p{n:02}", risky=n % 2 == 0) for n in range(8)],
    )
    inputs = {"base": base, "reward": reward, "safety": safety, "references": references}
    run = ppo_run(tmp_path, inputs, whiten_scores=True)
    main(RunDir(run))
    values = figures_of(run)[1]
    assert {"objective/helpfulness", "objective/safety", "objective/safety_share"} <= values.keys()
    assert values["objective/safety_share"] > 0


def test_the_published_weights_are_their_average_where_that_is_asked_for(tmp_path, base, reward):
    weights = {}
    for decay in (0.0, 0.9):
        run = ppo_run(tmp_path / str(decay), {"base": base, "reward": reward}, ema_decay=decay)
        main(RunDir(run))
        model = model_load(run / "outputs" / "model", dtype="float32")
        weights[decay] = model.model.layers[0].mlp.up_proj.weight.detach()
    start = model_load(base, dtype="float32").model.layers[0].mlp.up_proj.weight.detach()
    # The average lags: it has gone a part of the same way.
    assert (weights[0.9] - start).norm() < 0.8 * (weights[0.0] - start).norm()


def test_the_average_is_what_is_scored_and_published_where_both_are_asked_for(
    tmp_path, base, reward
):
    """Chosen of one step, the last, it is the average that a run without a choice publishes; and
    scoring it on the way leaves the actor where it was."""
    inputs = {"base": base, "reward": reward}
    inputs["evaluation_prompts"] = prompts_write(tmp_path / "e", ["e1", "e2", "e3", "e4"])
    weights = {}
    for name, settings in (("plain", {}), ("last", {"evaluate_every_steps": 99})):
        run = ppo_run(tmp_path / name, inputs, ema_decay=0.9, **settings)
        main(RunDir(run))
        weights[name] = (run / "outputs/model/model.safetensors").read_bytes()
    assert weights["last"] == weights["plain"]
    looked = ppo_run(tmp_path / "looked", inputs, ema_decay=0.9, evaluate_every_steps=1)
    main(RunDir(looked))
    result = result_of(looked)
    assert result["losses"] == result_of(run)["losses"]
    assert result["scores_by_step"][-1] == result_of(run)["scores_by_step"][-1]


# ── what is drawn when ───────────────────────────────────────────────────────────────────────────


def test_every_epoch_uses_every_prompt_once():
    config = PpoConfig(epochs=3, prompts_per_step=4, minibatches=1)
    plan = training.steps_plan(10, config)
    assert len(plan) == 9
    for epoch in range(3):
        used = [place for step in plan[3 * epoch : 3 * epoch + 3] for place in step]
        assert sorted(used) == list(range(10))
    assert plan[:3] != plan[3:6]


@pytest.mark.parametrize(("prompts", "parts"), [(8, 2), (7, 3), (2, 4)])
def test_minibatches_deal_out_every_prompt_once(prompts, parts):
    hands = updates.minibatches_deal(prompts, parts=parts, salt="0:0:0")
    assert sorted(place for hand in hands for place in hand) == list(range(prompts))
    assert max(map(len, hands)) - min(map(len, hands)) <= 1 and all(hands)
    assert hands != updates.minibatches_deal(prompts, parts=parts, salt="0:0:1") or prompts < 3


def test_the_rate_rises_from_a_tenth_in_a_line():
    config = PpoConfig(warmup_steps=10)
    shares = [updates.learning_rate_share(step, config) for step in (0, 5, 10, 200)]
    assert shares == pytest.approx([0.1, 0.55, 1.0, 1.0])


# ── what stops it ────────────────────────────────────────────────────────────────────────────────


def test_a_rate_that_breaks_the_policy_stops_the_run_within_a_step(tmp_path, base, reward):
    run = ppo_run(tmp_path, {"base": base, "reward": reward}, lr=1e30, epochs=3)
    with pytest.raises(RefusedError):  # as NaN, or by the canary, whichever sees it first
        main(RunDir(run))
    assert list((run / "outputs").iterdir()) == [] and not (run / "result.json").exists()
    assert len(figures_of(run)) <= 1


def test_a_gradient_that_is_no_number_touches_no_weight(tmp_path, base, reward, monkeypatch):
    found = []

    def gradients(batch, places, *, actor, critic, config, processes):
        weight = next(actor.parameters())
        weight.grad = torch.full_like(weight, torch.nan)
        found.append((actor, [one.detach().clone() for one in actor.parameters()]))
        return {"policy/approxkl_avg": 0.0}, 1

    monkeypatch.setattr(updates, "minibatch_gradients", gradients)
    run = ppo_run(tmp_path, {"base": base, "reward": reward})
    with pytest.raises(NotFinite, match="policy/grad_norm is nan at step 1"):
        main(RunDir(run))
    actor, before = found[0]
    assert all(torch.equal(a, b) for a, b in zip(actor.parameters(), before, strict=True))


def test_an_infinite_reward_stops_the_run(tmp_path, base, monkeypatch):
    monkeypatch.setitem(
        checkers.CHECKERS, "capitals", lambda text, right: 1.0 if text == right else float("inf")
    )
    references = references_write(tmp_path / "references", 8)
    run = ppo_run(tmp_path, {"base": base, "references": references}, checker="capitals")
    with pytest.raises(NotFinite, match="a score is not finite at step 1"):
        main(RunDir(run))


def test_a_run_that_leaves_the_reference_behind_ends_early_and_says_so(tmp_path, base, reward):
    run = ppo_run(tmp_path, {"base": base, "reward": reward}, lr=1e-2, epochs=5, kl_limit=0.05)
    main(RunDir(run))
    result = result_of(run)
    assert 0 < result["steps"] < result["steps_planned"] == 10
    assert "nats an answer at step" in result["stopped_early"]


def test_updates_of_a_step_end_where_the_policy_has_moved_enough(tmp_path, base, reward):
    run = ppo_run(tmp_path, {"base": base, "reward": reward}, lr=1e-2, ppo_epochs=4, target_kl=1e-3)
    main(RunDir(run))
    assert figures_of(run)[1]["policy/updates"] < 8


def test_a_policy_that_has_lost_its_variety_stops_the_run(tmp_path, base, reward):
    run = ppo_run(tmp_path, {"base": base, "reward": reward}, epochs=3, entropy_floor=100.0)
    with pytest.raises(Diverged, match=r"policy/entropy_avg was .* below its limit of 100"):
        main(RunDir(run))
    assert len(figures_of(run)) == 3


# ── what it refuses ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("inputs", "config", "reason"),
    [
        ((), {}, "nothing rewards the answers"),
        ((), {"checker": "gsm8k"}, "needs the input references"),
        (("reward",), {"checker": "gsm8k"}, "the input reward would go unread"),
        (("reward",), {"ptx_coef": 1.0}, "give the input pretraining"),
        (("reward",), {"max_context_tokens": 30}, "beside an answer there is room for 22"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, base, reward, inputs, config, reason):
    given = {"base": base} | ({"reward": reward} if inputs else {})
    run = ppo_run(tmp_path, given, **config)
    with pytest.raises(RefusedError, match=reason):
        main(RunDir(run))


def test_right_answers_that_nothing_would_read_are_refused(tmp_path, base, reward):
    references = references_write(tmp_path / "references", 8)
    run = ppo_run(tmp_path, {"base": base, "reward": reward, "references": references})
    with pytest.raises(RefusedError, match="name a checker, or leave the input references out"):
        main(RunDir(run))


def test_a_reward_model_of_another_template_is_refused(tmp_path, base, reward):
    import shutil

    other = shutil.copytree(reward, tmp_path / "other")
    path = other / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant", "bot"))
    run = ppo_run(tmp_path, {"base": base, "reward": other})
    with pytest.raises(RefusedError, match="reward: its chat template is not the policy's"):
        main(RunDir(run))


def test_held_out_prompts_are_not_trained_on(tmp_path, base, reward):
    inputs = {"base": base, "reward": reward}
    inputs["evaluation_prompts"] = prompts_write(tmp_path / "e", ["p03", "e1"])
    run = ppo_run(tmp_path, inputs)
    with pytest.raises(RefusedError, match="evaluation_prompts: p03 is trained on too"):
        main(RunDir(run))


def test_presets_are_settings_that_can_be_run():
    for values in PRESETS.values():
        assert config_load(PpoConfig, values).PROGRAM == "ppo"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"kl_estimator": "k2"}, "kl_estimator"),
        ({"kl_controller": "adaptive", "kl_coef": 0.0}, "kl_coef"),
        ({"minibatches": 17}, "minibatches"),
        ({"lam": 1.5}, "lam"),
        ({"engine": "openai"}, "engine"),
        ({"temperature": 0.0}, "temperature"),
        ({"safety_threshold": 0.0}, "safety_threshold"),
    ],
)
def test_a_setting_out_of_range_is_named(values, field):
    with pytest.raises(ConfigError, match=rf"ppo\.{field}: wanted"):
        config_load(PpoConfig, values)


# ── a kill ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        {"kl_controller": "adaptive", "kl_horizon": 50.0, "ema_decay": 0.9},
        {"adapter": "lora", "lora_rank": 4, "sampler_dtype": "bfloat16"},
        {"evaluate_every_steps": 2, "ema_decay": 0.9},
    ],
    ids=["every weight", "adapter", "the best step"],
)
def test_killed_and_started_again_it_ends_with_the_same_figures_and_weights(
    tmp_path, base, reward, config
):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "texts.jsonl").write_text(
        "".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(5))
    )
    inputs = {"base": base, "reward": reward, "pretraining": texts}
    inputs["evaluation_prompts"] = prompts_write(tmp_path / "e", ["e1", "e2", "e3", "e4"])
    settings = {"epochs": 6, "checkpoint_every_steps": 3, "ptx_coef": 0.5, **config}
    whole = ppo_run(tmp_path / "whole", inputs, **settings)
    main(RunDir(whole))
    killed = ppo_run(tmp_path / "killed", inputs, **settings)
    program_kill(main, killed, lambda: len(checkpoints_of(killed)) == 2)
    step = json.loads((killed / "progress.json").read_text())["done"]
    assert 0 < step < 12
    main(RunDir(killed))

    assert figures_of(killed) == figures_of(whole)
    one, other = result_of(killed), result_of(whole)
    for result in (one, other):
        result.pop("seconds")
    assert one == other
    weights = "outputs/model/model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()
