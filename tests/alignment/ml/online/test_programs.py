"""RLOO and GRPO as programs: what they learn, count, refuse and stop at, and that a kill changes
nothing."""

import itertools
import json

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml import checkers
from alignment.ml.checkers import ReferenceRecord
from alignment.ml.configs import GrpoConfig, RlooConfig
from alignment.ml.configs.grpo import PRESETS as GRPO_PRESETS
from alignment.ml.configs.rloo import PRESETS as RLOO_PRESETS
from alignment.ml.online import grpo, rloo, training
from alignment.ml.online.batch import batch_make
from alignment.ml.online.updates import Learner
from alignment.ml.ppo.rewards import Answers
from alignment.ml.shared_prefix import Group, attach
from modelhub.ml.chat import prompt_render
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import ConfigError, RefusedError, config_load
from modelhub.ml.divergence import Diverged
from modelhub.ml.records import records_write
from modelhub.ml.rundir import NotFinite, RunDir
from tests.alignment.ml.online.runs import online_run_make, plain_logprobs, references_write
from tests.alignment.ml.ppo.runs import figures_of
from tests.alignment.ml.programs import (
    checkpoints_of,
    program_kill,
    prompts_write,
    result_of,
    tiny_reward_write,
)
from tests.tiny_model import tiny_model_write

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]

METHODS = {"rloo": rloo, "grpo": grpo}


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


def step_run(tmp_path, method, inputs, **config):
    run = online_run_make(tmp_path, method, inputs, **config)
    METHODS[method].main(RunDir(run))
    return run


# ── what they learn ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("rloo", {"lr": 5e-3}),
        ("grpo", {"lr": 2e-3, "iterations": 2, "minibatches": 2}),
        (
            "grpo",
            {
                "lr": 2e-2,
                "adapter": "lora",
                "lora_rank": 8,
                "loss": "dr_grpo",
                "scale_rewards": "batch",
            },
        ),
    ],
    ids=["rloo", "grpo", "an adapter by grpo"],
)
def test_they_learn_what_is_rewarded_on_prompts_they_never_saw(
    tmp_path, base, capitals, method, config
):
    inputs = {
        "base": base,
        "references": references_write(tmp_path / "references"),
        "evaluation_prompts": prompts_write(tmp_path / "e", [f"e{n}" for n in range(8)]),
    }
    settings = {"checker": "capitals", "epochs": 6, "prompts_per_step": 8, "samples": 4}
    run = step_run(tmp_path, method, inputs, prompts=16, kl_coef=0.0, **settings, **config)
    result = result_of(run)
    assert result["held_out"]["difference_low"] > 0.02
    assert result["steps"] == result["steps_planned"] == 12
    trained = model_load(run / "outputs" / "model", dtype="float32")
    name = "layers.0.self_attn.q_proj.weight"
    before = model_load(base, dtype="float32").model.get_parameter(name)
    assert not torch.equal(trained.model.get_parameter(name), before.bfloat16().float())


@pytest.mark.parametrize("method", METHODS)
def test_they_start_at_the_reference(tmp_path, base, reward, method):
    run = step_run(tmp_path, method, {"base": base, "reward": reward}, kl_coef=0.02)
    first, second = figures_of(run)[1], figures_of(run)[2]
    assert first["objective/kl"] == 0.0
    assert second["objective/kl"] != 0.0
    assert first["val/ratio"] == pytest.approx(1.0)
    assert first["policy/updates"] == 1 and first["episode"] == 12
    assert first["canary/logprob_difference"] < 1e-4


def test_a_kl_in_the_loss_of_rloo_is_the_mean_over_answers_of_their_tokens_sum(base):
    config = RlooConfig(samples=2, kl_in="loss", kl_estimator="k2", kl_coef=0.3)
    actor, reference, alone = (model_load(base, dtype="float32") for _ in range(3))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in reference.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    wanted = 0.0
    answers = ([8, 9], [10, 11, 12])
    for answer in answers:
        ratio = plain_logprobs(alone, [5, 6], answer) - plain_logprobs(reference, [5, 6], answer)
        wanted = wanted + 0.3 * 0.5 * ratio.square().sum() / 2
    wanted.backward()

    groups = [Group([5, 6], list(answers))]
    attach(actor)
    attach(reference)
    drawn = Answers(["a"], groups, groups, [["", ""]], [[True, True]])
    batch, _ = batch_make(drawn, actor=actor, reference=reference, config=config)
    learner = Learner(actor, reference, config)
    figures, _ = rloo.minibatch_gradients(learner, batch, torch.zeros(1, 2), config, [0])
    assert figures["loss/policy_avg"] == 0.0
    assert 0.3 * figures["loss/kl_avg"] == pytest.approx(wanted.item(), rel=1e-4)
    for own, one in zip(actor.parameters(), alone.parameters(), strict=True):
        assert torch.allclose(own.grad, one.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_how_prompts_fall_into_rows_changes_nothing_but_rounding(tmp_path, base, reward, method):
    found = []
    for budget in (40, 4096):
        inputs = {"base": base, "reward": reward}
        run = step_run(tmp_path / str(budget), method, inputs, budget_tokens=budget, kl_coef=0.1)
        found.append([list(values.values()) for values in figures_of(run).values()])
    assert torch.tensor(found[0]).allclose(torch.tensor(found[1]), rtol=1e-3, atol=1e-4)


@pytest.fixture
def falling(tmp_path, monkeypatch):
    """References by which small letters are right where it trains, and capitals where not."""

    def share(text, right):
        upper = sum(one.isupper() for one in text) / max(1, len(text))
        return 1.0 if text == right else upper if right == "A" else 1.0 - upper

    monkeypatch.setitem(checkers.CHECKERS, "falling", share)
    folder = tmp_path / "falling"
    folder.mkdir()
    records = [ReferenceRecord(prompt_id=f"p{n:02}", answer="a") for n in range(8)]
    records += [ReferenceRecord(prompt_id=f"e{n}", answer="A") for n in range(8)]
    records_write(folder / "references.jsonl", records)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_the_policy_that_scores_best_on_held_out_prompts_is_published(
    tmp_path, base, falling, method
):
    """It gets worse by what is held out: the first policy that was scored is the best, to a bit
    what a run of so many steps publishes."""
    inputs = {
        "base": base,
        "references": falling,
        "evaluation_prompts": prompts_write(tmp_path / "e", [f"e{n}" for n in range(8)]),
    }
    config = {"checker": "falling", "lr": 1e-2, "kl_coef": 0.0, "samples": 4}
    run = step_run(tmp_path / "run", method, inputs, evaluate_every_steps=2, epochs=4, **config)
    result = result_of(run)
    assert [one["step"] for one in result["scores_by_step"]] == [2, 4, 6, 8]
    scores = [one["score"] for one in result["scores_by_step"]]
    assert result["published_step"] == 2 and result["published_step_score"] == max(scores)
    assert scores[-1] < scores[0] - 0.01
    assert result["held_out"]["prompts"] == 4  # the half that nothing was chosen by
    short = step_run(tmp_path / "short", method, inputs, epochs=1, **config)
    weights = "outputs/model/model.safetensors"
    assert (run / weights).read_bytes() == (short / weights).read_bytes()


def test_there_are_prompts_to_choose_by_and_others_to_report_on(tmp_path, base, reward):
    inputs = {"base": base, "reward": reward}
    with pytest.raises(RefusedError, match="4 are wanted at least, there are 0"):
        step_run(tmp_path / "none", "grpo", inputs, evaluate_every_steps=1)
    inputs["evaluation_prompts"] = prompts_write(tmp_path / "e", ["e0", "e1", "e2"])
    with pytest.raises(RefusedError, match="4 are wanted at least, there are 3"):
        step_run(tmp_path / "few", "grpo", inputs, evaluate_every_steps=1)


# ── answers of one score ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def odd_prompts(monkeypatch):
    """A checker by whose lights the answers of every other prompt are all alike."""
    seen = []

    def check(text, right):
        if text == right:
            return 1.0
        seen.append(text)
        prompt = (len(seen) - 1) // 3
        return 0.0 if prompt % 2 else float(len(seen) % 3)

    monkeypatch.setitem(checkers.CHECKERS, "odd", check)


@pytest.mark.parametrize("method", METHODS)
def test_prompts_whose_answers_score_alike_are_counted_and_dropped_if_asked(
    tmp_path, base, odd_prompts, method
):
    computed = {}
    for kept in ("keep", "drop"):
        inputs = {"base": base, "references": references_write(tmp_path / kept / "references")}
        config = {"checker": "odd", "equal_groups": kept, "kl_coef": 0.0}
        run = step_run(tmp_path / kept, method, inputs, prompts=4, **config)
        assert figures_of(run)[1]["objective/equal_prompts"] == 0.5
        assert result_of(run)["equal_prompts_share"] == 0.5
        computed[kept] = result_of(run)["tokens"]
    assert 0 < computed["drop"] < 0.7 * computed["keep"]


@pytest.fixture
def dull_evens(tmp_path, monkeypatch):
    """References by which all answers to even prompts score alike, and no two to odd ones."""
    count = itertools.count(1)

    def check(text, right):
        return 1.0 if text == right else 0.0 if right == "even" else next(count) / 1000

    monkeypatch.setitem(checkers.CHECKERS, "dull evens", check)
    folder = tmp_path / "dull"
    folder.mkdir()
    records = [
        ReferenceRecord(prompt_id=f"p{n:02}", answer="odd" if n % 2 else "even") for n in range(8)
    ]
    records_write(folder / "references.jsonl", records)
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_prompts_that_tell_nothing_make_room_for_others(
    tmp_path, base, dull_evens, monkeypatch, method
):
    learnt, make = [], training.batch_make
    monkeypatch.setattr(
        training, "batch_make", lambda drawn, **k: learnt.append(drawn) or make(drawn, **k)
    )
    inputs = {"base": base, "references": dull_evens}
    config = {"checker": "dull evens", "equal_groups": "drop", "kl_coef": 0.0}
    run = step_run(tmp_path / "free", method, inputs, redraws=9, **config)
    episodes = 0
    for step, answers in enumerate(learnt, start=1):
        # All odd prompts there are, each with what belongs to it.
        assert sorted(answers.prompt_ids) == ["p01", "p03", "p05", "p07"]
        for prompt_id, own in zip(answers.prompt_ids, answers.judged, strict=True):
            assert own.prompt_T == prompt_render(
                tokenizer_load(base), [{"role": "user", "content": f"Say {prompt_id}"}]
            )
        figures = figures_of(run)[step]
        replaced = figures["objective/redrawn_prompts"]  # as many even ones were drawn
        assert figures["objective/equal_prompts"] == pytest.approx(replaced / (4 + replaced))
        episodes += (4 + replaced) * 3
        assert figures["episode"] == episodes
    assert episodes > 2 * 4 * 3


def test_there_is_an_end_to_drawing_others(tmp_path, base, dull_evens):
    inputs = {"base": base, "references": dull_evens}
    config = {"checker": "dull evens", "equal_groups": "drop", "kl_coef": 0.0}
    drawn = {}
    for redraws in (0, 1, 9):
        run = step_run(tmp_path / f"{redraws}", "grpo", inputs, redraws=redraws, **config)
        drawn[redraws] = figures_of(run)[2]["episode"]
    assert drawn[0] == 8 * 3 < drawn[1] <= drawn[9]
    assert drawn[1] <= 8 * 2 * 3


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kept", ["keep", "drop"])
def test_a_run_that_had_nothing_to_learn_from_publishes_nothing(
    tmp_path, base, monkeypatch, method, kept
):
    monkeypatch.setitem(checkers.CHECKERS, "never", lambda text, right: float(text == right))
    inputs = {"base": base, "references": references_write(tmp_path / "references")}
    with pytest.raises(RefusedError, match="none of 8 prompts had answers of different scores"):
        step_run(tmp_path, method, inputs, checker="never", equal_groups=kept)
    assert not (tmp_path / "run" / "result.json").exists()
    assert list((tmp_path / "run" / "outputs").iterdir()) == []


# ── what stops them ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", METHODS)
def test_a_rate_that_breaks_the_policy_stops_the_run(tmp_path, base, reward, method):
    with pytest.raises(RefusedError):  # as NaN, or by the canary, whichever sees it first
        step_run(tmp_path, method, {"base": base, "reward": reward}, lr=1e30, epochs=3)
    assert list((tmp_path / "run" / "outputs").iterdir()) == []


def test_an_infinite_reward_stops_the_run(tmp_path, base, monkeypatch):
    monkeypatch.setitem(
        checkers.CHECKERS, "capitals", lambda text, right: 1.0 if text == right else float("inf")
    )
    inputs = {"base": base, "references": references_write(tmp_path / "references")}
    with pytest.raises(NotFinite, match="a score is not finite at step 1"):
        step_run(tmp_path, "rloo", inputs, checker="capitals")


def test_a_run_that_leaves_the_reference_behind_ends_early_and_says_so(tmp_path, base, reward):
    inputs = {"base": base, "reward": reward}
    run = step_run(tmp_path, "rloo", inputs, lr=1e-2, epochs=5, kl_limit=0.05)
    result = result_of(run)
    assert 0 < result["steps"] < result["steps_planned"] == 10
    assert "nats an answer at step" in result["stopped_early"]


def test_a_run_that_starts_too_far_from_its_reference_publishes_nothing(tmp_path, base, reward):
    policy = step_run(tmp_path / "a", "rloo", {"base": base, "reward": reward}, lr=1e-2, epochs=5)
    inputs = {"base": policy / "outputs" / "model", "reward": reward, "reference": base}
    run = online_run_make(tmp_path / "b", "rloo", inputs, kl_limit=1e-3)
    with pytest.raises(RefusedError, match=r"no step was taken.* more than kl_limit"):
        rloo.main(RunDir(run))
    assert not (run / "result.json").exists()


def test_updates_of_a_step_end_where_the_policy_has_moved_enough(tmp_path, base, reward):
    inputs = {"base": base, "reward": reward}
    run = step_run(tmp_path, "grpo", inputs, lr=1e-2, iterations=8, target_kl=1e-3)
    assert figures_of(run)[1]["policy/updates"] < 8


def test_a_policy_that_has_lost_its_variety_stops_the_run(tmp_path, base, reward):
    with pytest.raises(Diverged, match=r"policy/entropy_avg was .* below its limit of 100"):
        step_run(tmp_path, "rloo", {"base": base, "reward": reward}, epochs=3, entropy_floor=100.0)


# ── what they refuse ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", METHODS)
def test_what_does_not_fit_together_is_refused(tmp_path, base, reward, method):
    with pytest.raises(RefusedError, match="nothing rewards the answers"):
        step_run(tmp_path / "a", method, {"base": base})
    with pytest.raises(RefusedError, match="the input reward would go unread"):
        step_run(tmp_path / "b", method, {"base": base, "reward": reward}, checker="gsm8k")


def test_a_reward_model_of_another_template_is_refused(tmp_path, base, reward):
    import shutil

    other = shutil.copytree(reward, tmp_path / "other")
    path = other / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant", "bot"))
    with pytest.raises(RefusedError, match="reward: its chat template is not the policy's"):
        step_run(tmp_path, "grpo", {"base": base, "reward": other})


@pytest.mark.parametrize(
    ("config", "values", "field"),
    [
        (RlooConfig, {"samples": 1}, "samples"),
        (RlooConfig, {"kl_in": "loss"}, "kl_estimator"),
        (RlooConfig, {"kl_estimator": "k2"}, "kl_estimator"),
        (RlooConfig, {"equal_groups": "redraw"}, "equal_groups"),
        (GrpoConfig, {"redraws": -1}, "redraws"),
        (GrpoConfig, {"loss": "bnpo"}, "loss"),
        (GrpoConfig, {"scale_rewards": "std"}, "scale_rewards"),
        (GrpoConfig, {"cliprange_high": 0.0}, "cliprange_high"),
        (GrpoConfig, {"minibatches": 17}, "minibatches"),
    ],
)
def test_a_setting_out_of_range_is_named(config, values, field):
    with pytest.raises(ConfigError, match=rf"{config.PROGRAM}\.{field}: wanted"):
        config_load(config, values)


def test_presets_are_settings_that_can_be_run():
    for config, presets in ((RlooConfig, RLOO_PRESETS), (GrpoConfig, GRPO_PRESETS)):
        for values in presets.values():
            assert config_load(config, values).PROGRAM == config.PROGRAM


# ── a kill ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "config"),
    [
        ("rloo", {"minibatches": 2}),
        ("grpo", {"adapter": "lora", "lora_rank": 4, "sampler_dtype": "bfloat16"}),
        # Clipped to their signs, scores are alike often: others are drawn.
        ("grpo", {"reward_clip": 1e-3, "redraws": 2, "evaluate_every_steps": 2}),
    ],
)
def test_killed_and_started_again_they_end_with_the_same_figures_and_weights(
    tmp_path, base, reward, method, config
):
    inputs = {"base": base, "reward": reward}
    inputs["evaluation_prompts"] = prompts_write(tmp_path / "e", ["e1", "e2", "e3", "e4"])
    settings = {"epochs": 6, "checkpoint_every_steps": 3, **config}
    whole = step_run(tmp_path / "whole", method, inputs, **settings)
    killed = online_run_make(tmp_path / "killed", method, inputs, **settings)
    program_kill(METHODS[method].main, killed, lambda: len(checkpoints_of(killed)) == 2)
    step = json.loads((killed / "progress.json").read_text())["done"]
    assert 0 < step < 12
    METHODS[method].main(RunDir(killed))

    assert figures_of(killed) == figures_of(whole)
    if config.get("redraws"):
        assert any(one["objective/redrawn_prompts"] for one in figures_of(whole).values())
    one, other = result_of(killed), result_of(whole)
    for result in (one, other):
        result.pop("seconds")
    assert one == other
    weights = "outputs/model/model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()
