"""Odds ratio preference optimisation: its losses, what it refuses, that it learns and goes on."""

import copy
import json
import math

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import orpo
from alignment.ml.configs import OrpoConfig
from alignment.ml.shared_prefix import Group, attach
from modelhub.ml.checkpoint import model_load
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.parallel import processes_start
from modelhub.ml.records import records_write
from modelhub.ml.rundir import NotFinite, RunDir
from tests.alignment.ml.programs import (
    checkpoints_of,
    metrics_of,
    program_kill,
    result_of,
    run_make,
)
from tests.alignment.ml.reward.test_training import rows
from tests.alignment.ml.test_data import ranking
from tests.alignment.ml.test_dpo import ranked
from tests.modelhub.ml.ranks import ranks_run
from tests.tiny_model import tiny_model_write, tiny_tokenizer

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]

FAST = {"lr": 1e-3, "rankings_per_step": 4, "bootstrap_samples": 100}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


def orpo_run(folder, base, records, **config):
    (folder / "inputs").mkdir(parents=True)
    records_write(folder / "inputs" / "rankings.jsonl", records)
    inputs = {"base": base, "rankings": folder / "inputs"}
    return run_make(folder / "run", "orpo", inputs, {**FAST, **config})


# ── losses ───────────────────────────────────────────────────────────────────────────────────────


def test_odds_have_the_values_worked_by_hand():
    # p = 1/2: odds 1. p = 3/4: odds 3. p = 1/5: odds 1/4. So −log σ(log 3 − log ¼) = log(1 + 1/12).
    odds = orpo.log_odds(torch.tensor([0.5, 0.75, 0.2]).log())
    assert odds.tolist() == pytest.approx([0.0, math.log(3), -math.log(4)], abs=1e-6)
    loss = orpo.odds_losses(torch.tensor([0.75]).log(), torch.tensor([0.2]).log())
    assert loss.item() == pytest.approx(math.log(1 + 1 / 12), rel=1e-5)


@pytest.mark.parametrize("logp", [-1e-6, -0.01, -math.log(2), -0.7, -30.0, -200.0])
def test_odds_keep_their_digits_and_their_gradient_at_both_ends(logp):
    x = torch.tensor(logp, requires_grad=True)
    found = orpo.log_odds(x)
    found.backward()
    exact = x.item() - math.log(-math.expm1(x.item()))
    assert found.item() == pytest.approx(exact, rel=1e-5, abs=1e-6)
    assert x.grad.item() == pytest.approx(1 / -math.expm1(x.item()), rel=1e-5)  # 1 / (1 − p)


def test_an_answer_that_is_certain_has_finite_odds_and_no_gradient():
    x = torch.tensor(0.0, requires_grad=True)
    found = orpo.log_odds(x)
    found.backward()
    assert math.isfinite(found.item())
    assert x.grad.item() == 0.0


def test_a_ranking_learns_its_best_tier_and_turns_from_the_others():
    config = OrpoConfig(odds_weight=0.5, annotator_weights=True)
    group = ranked(Group([1], [[1], [2, 2], [3]]), ((1, 0), (2,)), weight=3.0)
    logps_K = orpo.means_of(torch.tensor([math.log(0.5), 2 * math.log(0.75), math.log(0.2)]), group)
    nll, odds_loss = orpo.group_losses(logps_K, group, config)
    assert nll.item() == pytest.approx(-3 * (math.log(0.5) + math.log(0.75)) / 2)
    # Odds 1 and 3 against ¼, the mean of the two pairs; the tie makes none.
    assert odds_loss.item() == pytest.approx(3 * (math.log(1 + 1 / 4) + math.log(1 + 1 / 12)) / 2)


def test_losses_are_those_of_trl(base, tmp_path):
    """TRL's own losses on random answers of a tiny model, against ours on shared rows.

    TRL's term of fine-tuning is over the prompt too, ours over the answer: its mean log-probability
    of the chosen answers is compared in its stead.
    """
    module = pytest.importorskip("trl.experimental.orpo.orpo_trainer")
    draw = torch.Generator().manual_seed(4)

    def tokens(count):
        return torch.randint(3, 200, (count,), generator=draw).tolist()

    groups = [
        ranked(Group(tokens(9), [tokens(5), tokens(8)]), ((0,), (1,))),
        ranked(Group(tokens(4), [tokens(7), tokens(3)]), ((0,), (1,))),
    ]
    policy = model_load(base, dtype="float32")
    theirs = trl_metrics(module, copy.deepcopy(policy), groups, tmp_path)
    attach(policy)
    config = OrpoConfig(odds_weight=0.2)
    seen = orpo.groups_see(policy, groups, config, processes_start())
    ours = orpo.seen_together(seen, groups, config)
    assert ours["odds_loss"] == pytest.approx(-theirs["log_odds_ratio"], rel=1e-4)
    assert ours["log_odds"] == pytest.approx(theirs["log_odds_chosen"], rel=1e-4)
    assert ours["nll"] == pytest.approx(-theirs["logps/chosen"], rel=1e-4)
    assert ours["logp_worse"] == pytest.approx(theirs["logps/rejected"], rel=1e-4)
    assert ours["accuracy"] == theirs["rewards/accuracies"]
    odds_part = theirs["loss"] - theirs["nll_loss"]
    assert ours["loss"] - ours["nll"] == pytest.approx(odds_part, rel=1e-3)


def trl_metrics(module, policy, groups, folder):
    """What ORPOTrainer makes of groups that are tokens already, in one batch."""
    from datasets import Dataset
    from trl.experimental.orpo import ORPOConfig as TrlOrpoConfig

    trainer = module.ORPOTrainer(
        model=policy,
        args=TrlOrpoConfig(
            output_dir=str(folder),
            beta=0.2,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
            max_length=64,
        ),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=tiny_tokenizer(),
    )
    batch = {}
    for place, name in enumerate(("chosen", "rejected")):
        rows = [(g.group.prompt_T, g.group.answers[place]) for g in groups]
        longest = max(len(prompt) + len(answer) for prompt, answer in rows)

        def padded(of, value, rows=rows, longest=longest):
            made = [of(prompt, answer) for prompt, answer in rows]
            return torch.tensor([one + [value] * (longest - len(one)) for one in made])

        batch[f"{name}_input_ids"] = padded(lambda prompt, answer: prompt + answer, 0)
        batch[f"{name}_attention_mask"] = padded(
            lambda prompt, answer: [1] * (len(prompt) + len(answer)), 0
        )
        batch[f"{name}_labels"] = padded(lambda prompt, answer: [-100] * len(prompt) + answer, -100)
    with torch.no_grad():
        loss, metrics = trainer.get_batch_loss_metrics(trainer.model, batch)
    return {**metrics, "loss": float(loss)}


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"odds_weight": 0.0}, "more than 0"),
        ({"rankings_per_step": 0}, "more than 0"),
        ({"adapter": "lora", "lora_dropout": 0.1}, "compared under one model"),
    ],
)
def test_settings_that_would_do_nothing_or_harm_are_refused(config, reason):
    with pytest.raises(ConfigError, match=reason):
        OrpoConfig(**config)


@pytest.mark.parametrize(
    ("records", "config", "reason"),
    [
        ([ranking(0, tiers="a=b")], {}, "1 put no answer above another"),
        ([ranking(0, texts=("a", "b"), tiers="a>b")], {}, "nothing to learn from 1 pair"),
        (rows(3), {"max_tokens": 20}, "3 have a prompt and answer of more than 20 tokens"),
        (rows(3), {"annotator_weights": True}, "no ranking carries a weight"),
    ],
)
def test_rows_that_teach_nothing_are_refused_before_a_model_is_loaded(
    tmp_path, base, monkeypatch, records, config, reason
):
    monkeypatch.setattr(orpo, "policy_make", None)
    with pytest.raises(RefusedError, match=reason):
        orpo.main(RunDir(orpo_run(tmp_path, base, records, **config)))


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


def test_it_learns_what_holds_on_other_prompts(tmp_path, base):
    records = rows(16) + rows(4, first=16, split="validation") + rows(8, first=20, split="held_out")
    run = orpo_run(tmp_path, base, records, epochs=10, evaluate_every_steps=20)
    orpo.main(RunDir(run))
    metrics, result = metrics_of(run), result_of(run)
    assert metrics[40]["loss"] < 0.5 * metrics[1]["loss"]
    assert metrics[1]["loss"] == pytest.approx(
        metrics[1]["nll_loss"] + 0.1 * metrics[1]["odds_loss"], rel=1e-5
    )
    assert metrics[20]["validation_rewards/accuracies"] > 0.7
    held_out = result["held_out"]
    assert held_out["difference"]["high"] < 0
    assert held_out["accuracy_difference"]["low"] > 0
    assert held_out["log_odds_difference"]["low"] > 0
    assert held_out["accuracy_after"] == held_out["accuracy"]["mean"]
    assert (result["rankings"], result["pairs"], held_out["pairs"]) == (16, 96, 48)
    assert (run / "outputs" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "config",
    [
        {"adapter": "lora", "lora_rank": 4, "publish": "adapter"},
        {"adapter": "prefix", "virtual_tokens": 3, "publish": "adapter"},
        {"dtype": "bfloat16", "gradient_checkpointing": True},
    ],
    ids=lambda config: next(iter(config.values())),
)
def test_every_kind_comes_down(tmp_path, base, config):
    run = orpo_run(tmp_path, base, rows(8), epochs=8, **{**config, "lr": 1e-2})
    orpo.main(RunDir(run))
    metrics = metrics_of(run)
    assert metrics[16]["loss"] < 0.97 * metrics[1]["loss"]
    output = config.get("publish", "model")
    assert list((run / "outputs").iterdir()) == [run / "outputs" / output]


def test_packing_changes_nothing_but_the_memory(tmp_path, base):
    found = []
    for budget in (60, 4096):
        run = orpo_run(tmp_path / str(budget), base, rows(8), epochs=2, budget_tokens=budget)
        orpo.main(RunDir(run))
        found.append([(v["loss"], v["grad_norm"]) for v in metrics_of(run).values()])
    assert torch.tensor(found[0]).allclose(torch.tensor(found[1]), rtol=1e-3)


def test_an_answer_of_no_token_has_no_odds_and_is_left_out(tmp_path, base):
    cut_off = ranking(9, prompt="p9", texts=("yes", ""), tiers="a>b")
    cut_off.candidates[1]["finish_reason"] = "length"
    run = orpo_run(tmp_path, base, [*rows(4), cut_off])
    orpo.main(RunDir(run))
    result = result_of(run)
    assert result["rankings"] == 4
    assert "1 groups left out: an answer of no token" in result["notes"]


def test_nan_stops_the_run_and_nothing_is_published(tmp_path, base):
    run = orpo_run(tmp_path, base, rows(8), epochs=3, lr=1e30, max_grad_norm=1e30)
    with pytest.raises(NotFinite):
        orpo.main(RunDir(run))
    assert not (run / "result.json").exists()
    assert list((run / "outputs").iterdir()) == []


@pytest.mark.slow
def test_killed_and_started_again_it_ends_with_the_same_losses_and_weights(tmp_path, base):
    records = rows(12) + rows(4, first=12, split="held_out")
    config = {"epochs": 20, "lr": 1e-4, "checkpoint_every_steps": 5}
    whole = orpo_run(tmp_path / "whole", base, records, **config)
    orpo.main(RunDir(whole))
    killed = orpo_run(tmp_path / "killed", base, records, **config)
    program_kill(orpo.main, killed, lambda: len(checkpoints_of(killed)) == 2)
    step = json.loads((killed / "progress.json").read_text())["done"]
    assert 0 < step < len(metrics_of(whole))
    orpo.main(RunDir(killed))
    assert metrics_of(killed) == metrics_of(whole)
    assert result_of(killed)["held_out"] == result_of(whole)["held_out"]
    weights = "outputs/model/model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_have_the_losses_of_one(tmp_path, base, strategy):
    records = rows(7) + rows(3, first=7, split="held_out")
    found = {}
    for world in (1, 2):
        run = orpo_run(tmp_path / str(world), base, records, epochs=2, budget_tokens=200)
        assert ranks_run(orpo.main, run, world=world, strategy=strategy) == [0] * world
        found[world] = metrics_of(run)
    assert len(found[1]) == len(found[2]) == 4
    for step, values in found[2].items():
        assert values == pytest.approx(found[1][step], rel=1e-3, abs=1e-5)
