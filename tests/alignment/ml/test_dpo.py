"""Direct preference optimisation: its losses, what it refuses, that it learns and goes on."""

import copy
import json
import math

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import dpo
from alignment.ml.configs import DpoConfig
from alignment.ml.data import RankedGroup, Ranking
from alignment.ml.preference import logprobs_of
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
from tests.modelhub.ml.ranks import ranks_run
from tests.tiny_model import tiny_model_write, tiny_tokenizer

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]

FAST = {"lr": 1e-3, "rankings_per_step": 4, "bootstrap_samples": 100}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


def dpo_run(folder, base, records, **config):
    (folder / "inputs").mkdir(parents=True)
    records_write(folder / "inputs" / "rankings.jsonl", records)
    inputs = {"base": base, "rankings": folder / "inputs"}
    return run_make(folder / "run", "dpo", inputs, {**FAST, **config})


# ── losses ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        # βΔ = 0.5 · 2 = 1; log σ(1) = −0.313262, log σ(−1) = −1.313262.
        ("sigmoid", {}, 0.313262),
        ("sigmoid", {"margin": 1.0}, math.log(2)),
        ("conservative", {"label_smoothing": 0.1}, 0.9 * 0.313262 + 0.1 * 1.313262),
        ("robust", {"label_smoothing": 0.1}, (0.9 * 0.313262 - 0.1 * 1.313262) / 0.8),
        ("hinge", {}, 0.0),
        ("hinge", {"margin": 0.25}, 0.25),
        ("ipo", {}, 1.0),  # (2 − 1 / (2 · 0.5))²
    ],
)
def test_losses_have_the_values_worked_by_hand(kind, more, expected):
    loss = dpo.dpo_losses(torch.tensor([2.0]), kind, beta=0.5, **more)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("kind", ["sigmoid", "robust", "hinge", "ipo"])
def test_losses_are_those_of_trl(kind, base, tmp_path):
    """TRL's own `compute_loss` on random answers of a tiny model, against ours on shared rows."""
    trainer_module = pytest.importorskip("trl.trainer.dpo_trainer")
    smoothing = 0.2 if kind == "robust" else 0.0
    config = DpoConfig(loss=kind, beta=0.3, label_smoothing=smoothing)
    draw = torch.Generator().manual_seed(4)

    def tokens(count):
        return torch.randint(3, 200, (count,), generator=draw).tolist()

    groups = [Group(tokens(9), [tokens(5), tokens(8)]), Group(tokens(4), [tokens(7), tokens(3)])]
    rows = [
        {"prompt_ids": g.prompt_T, "chosen_ids": g.answers[0], "rejected_ids": g.answers[1]}
        for g in groups
    ]
    policy, plain = (model_load(base, dtype="float32") for _ in range(2))
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=draw))
    settings = {"loss_type": [kind], "label_smoothing": smoothing}
    theirs = trl_loss(
        trainer_module, copy.deepcopy(policy), copy.deepcopy(plain), rows, settings, tmp_path
    )
    ours = 0.0
    attach(policy)
    attach(plain)
    processes = processes_start()
    logprobs, reference = (logprobs_of(m, groups, config, processes) for m in (policy, plain))
    for own, given, group in zip(logprobs, reference, groups, strict=True):
        ratios_K = dpo.ratios_of(torch.tensor(own), given)
        ours += float(dpo.group_loss(ratios_K, ranked(group, ((0,), (1,))), config)) / len(groups)
    assert ours == pytest.approx(theirs, rel=1e-4)


def trl_loss(module, policy, plain, rows, settings, folder):
    """What DPOTrainer makes of rows that are tokens already, in one batch."""
    from datasets import Dataset
    from trl import DPOConfig as TrlDpoConfig

    class Tokenized(module.DPOTrainer):
        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset

    trainer = Tokenized(
        model=policy,
        ref_model=plain,
        args=TrlDpoConfig(
            output_dir=str(folder),
            beta=0.3,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
            max_length=None,
            **settings,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
    )
    batch = module.DataCollatorForPreference(pad_token_id=0)(rows)
    with torch.no_grad():
        return float(trainer.compute_loss(trainer.model, batch))


def ranked(group, *tiers, weight=1.0, degree=None):
    rankings = tuple(Ranking(tiers=one, weight=weight, degree=degree) for one in tiers)
    return RankedGroup(
        prompt_id="p",
        split="train",
        group=group,
        texts_K=tuple("x" for _ in group.answers),
        rankings=rankings,
    )


def test_a_ranking_is_the_mean_of_its_pairs_and_counts_by_weight():
    config = DpoConfig(beta=1.0, annotator_weights=True)
    group = ranked(Group([1], [[1], [2], [3]]), ((0,), (1, 2)), weight=3.0)
    ratios_K = torch.tensor([1.0, 0.0, -1.0])  # gaps 1 and 2
    expected = 3 * (math.log1p(math.exp(-1)) + math.log1p(math.exp(-2))) / 2
    assert dpo.group_loss(ratios_K, group, config).item() == pytest.approx(expected)


def test_a_degree_asks_for_its_margin():
    config = DpoConfig(beta=1.0, degree_margin="large")
    group = ranked(Group([1], [[1], [2]]), ((0,), (1,)), degree=4)
    loss = dpo.group_loss(torch.tensor([3.0, 0.0]), group, config)
    assert loss.item() == pytest.approx(math.log(2))


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"label_smoothing": 0.1}, "it does nothing to sigmoid"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "it does nothing to hinge"),
        ({"loss": "robust"}, "more than 0, less than 0.5"),
        ({"loss": "conservative", "label_smoothing": 0.5}, "more than 0, less than 0.5"),
        ({"loss": "ipo", "degree_margin": "small"}, "ipo has no margin"),
        ({"loss": "kto"}, "sigmoid, conservative"),
        ({"beta": 0.0}, "more than 0"),
        ({"adapter": "lora", "lora_dropout": 0.1}, "compared under one model"),
    ],
)
def test_settings_that_would_do_nothing_or_harm_are_refused(config, reason):
    with pytest.raises(ConfigError, match=reason):
        DpoConfig(**config)


@pytest.mark.parametrize(
    ("records", "config", "reason"),
    [
        ([ranking(0, tiers="a=b")], {}, "1 put no answer above another"),
        ([ranking(0, texts=("a", "b"), tiers="a>b")], {}, "nothing to learn from 1 pair"),
        (rows(3), {"max_tokens": 20}, "3 have a prompt and answer of more than 20 tokens"),
        (rows(3), {"annotator_weights": True}, "no ranking carries a weight"),
        (rows(3), {"degree_margin": "small"}, "no ranking to train on tells a degree"),
    ],
)
def test_rows_that_teach_nothing_are_refused_before_a_model_is_loaded(
    tmp_path, base, monkeypatch, records, config, reason
):
    monkeypatch.setattr(dpo, "policy_make", None)
    with pytest.raises(RefusedError, match=reason):
        dpo.main(RunDir(dpo_run(tmp_path, base, records, **config)))


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


def test_it_starts_at_the_reference_and_learns_what_holds_on_other_prompts(tmp_path, base):
    records = rows(16) + rows(4, first=16, split="validation") + rows(8, first=20, split="held_out")
    run = dpo_run(tmp_path, base, records, epochs=10, evaluate_every_steps=20)
    dpo.main(RunDir(run))
    metrics, result = metrics_of(run), result_of(run)
    assert metrics[1]["loss"] == pytest.approx(math.log(2), rel=1e-4)
    assert metrics[40]["loss"] < 0.3
    assert metrics[20]["validation_rewards/accuracies"] > 0.7
    assert result["held_out"]["loss_before"] == pytest.approx(math.log(2))
    assert result["held_out"]["difference"]["high"] < 0
    assert result["held_out"]["accuracy"]["low"] > 0.5
    assert (result["rankings"], result["pairs"], result["held_out"]["pairs"]) == (16, 96, 48)
    assert result["dtype"] == "bfloat16"
    assert (run / "outputs" / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "config",
    [
        {"loss": "conservative", "label_smoothing": 0.1},
        {"loss": "robust", "label_smoothing": 0.1},
        {"loss": "hinge"},
        {"loss": "ipo"},
        {"adapter": "lora", "lora_rank": 4, "publish": "adapter"},
        {"dtype": "bfloat16", "gradient_checkpointing": True},
    ],
    ids=lambda config: next(iter(config.values())),
)
def test_every_kind_starts_at_the_references_loss_and_comes_down(tmp_path, base, config):
    run = dpo_run(tmp_path, base, rows(8), epochs=6, **config)
    dpo.main(RunDir(run))
    metrics = metrics_of(run)
    rough = 5e-2 if config.get("dtype") == "bfloat16" else 1e-3
    start = dpo.loss_start(DpoConfig(**config))
    assert metrics[1]["loss"] == pytest.approx(start, rel=rough)
    assert metrics[12]["loss"] < 0.9 * start
    output = config.get("publish", "model")
    assert list((run / "outputs").iterdir()) == [run / "outputs" / output]


def test_virtual_tokens_are_measured_against_the_base_without_them(tmp_path, base):
    run = dpo_run(
        tmp_path, base, rows(4), adapter="prefix", virtual_tokens=3, publish="adapter", epochs=2
    )
    dpo.main(RunDir(run))
    found = metrics_of(run)[1]
    assert abs(found["rewards/chosen"]) > 1e-3  # a prefix is not the base from its start


def test_packing_changes_nothing_but_the_memory(tmp_path, base):
    found = []
    for budget in (60, 4096):
        run = dpo_run(tmp_path / str(budget), base, rows(8), epochs=2, budget_tokens=budget)
        dpo.main(RunDir(run))
        found.append([(v["loss"], v["grad_norm"]) for v in metrics_of(run).values()])
    assert torch.tensor(found[0]).allclose(torch.tensor(found[1]), rtol=1e-3)


def test_nan_stops_the_run_and_nothing_is_published(tmp_path, base):
    run = dpo_run(tmp_path, base, rows(8), epochs=3, lr=1e30, max_grad_norm=1e30)
    with pytest.raises(NotFinite):
        dpo.main(RunDir(run))
    assert not (run / "result.json").exists()
    assert list((run / "outputs").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, {"adapter": "lora", "lora_rank": 4}], ids=["all", "lora"])
def test_killed_and_started_again_it_ends_with_the_same_losses_and_weights(tmp_path, base, config):
    config = {"epochs": 20, "lr": 1e-4, "checkpoint_every_steps": 5, **config}
    whole = dpo_run(tmp_path / "whole", base, rows(12), **config)
    dpo.main(RunDir(whole))
    killed = dpo_run(tmp_path / "killed", base, rows(12), **config)
    program_kill(dpo.main, killed, lambda: len(checkpoints_of(killed)) == 2)
    step = json.loads((killed / "progress.json").read_text())["done"]
    assert 0 < step < len(metrics_of(whole))
    dpo.main(RunDir(killed))
    assert metrics_of(killed) == metrics_of(whole)
    weights = "outputs/model/model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_have_the_losses_of_one(tmp_path, base, strategy):
    records = rows(7) + rows(3, first=7, split="held_out")
    found = {}
    for world in (1, 2):
        run = dpo_run(tmp_path / str(world), base, records, epochs=2, budget_tokens=200)
        assert ranks_run(dpo.main, run, world=world, strategy=strategy) == [0] * world
        found[world] = metrics_of(run)
    assert len(found[1]) == len(found[2]) == 4
    for step, values in found[2].items():
        assert values == pytest.approx(found[1][step], rel=1e-3, abs=1e-5)
