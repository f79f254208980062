"""Kahneman-Tversky optimisation: its loss, what it refuses, that it learns and goes on."""

import copy
import json
import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

from alignment.ml import kto, kto_loss
from alignment.ml.configs import KtoConfig
from alignment.ml.preference import logprobs_of
from alignment.ml.shared_prefix import Group, attach
from alignment.ml.unpaired import UnpairedGroup, mismatched
from modelhub.ml.checkpoint import model_load, model_save
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.divergence import Diverged
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
from tests.alignment.ml.reward.test_training import rows as rankings_rows
from tests.alignment.ml.test_unpaired import rating
from tests.modelhub.ml.ranks import ranks_run
from tests.tiny_model import tiny_model_write, tiny_tokenizer

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]

FAST = {"lr": 1e-3, "examples_per_step": 8, "bootstrap_samples": 100}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


def ratings_rows(count, *, first=0, split="train"):
    """Ratings with a rule a small model can learn: "a" is liked, "b" not, one answer a prompt."""
    return [
        rating(
            number,
            prompt=f"p{number}",
            split=split,
            text=("a" if number % 2 else "b") * 5 + str(number % 7),
            overall=7 if number % 2 else 1,
        )
        for number in range(first, first + count)
    ]


def kto_run(folder, base, ratings=(), rankings=(), **config):
    inputs = {"base": base}
    for role, records in (("ratings", ratings), ("rankings", rankings)):
        if records:
            (folder / role).mkdir(parents=True)
            records_write(folder / role / f"{role}.jsonl", records)
            inputs[role] = folder / role
    folder.mkdir(exist_ok=True)
    return run_make(folder / "run", "kto", inputs, {**FAST, **config})


# ── loss ─────────────────────────────────────────────────────────────────────────────────────────


def test_losses_have_the_values_worked_by_hand():
    # β (r − z0) = 0.5 · (3 − 1) = 1, and σ(−1) = 0.268941; β (z0 − r) = 0.5 · (1 − 3) = −1.
    losses = kto_loss.kto_losses(
        torch.tensor([3.0, 3.0, 1.0]),
        torch.tensor([True, False, False]),
        1.0,
        beta=0.5,
        desirable_weight=2.0,
        undesirable_weight=3.0,
    )
    assert losses.tolist() == pytest.approx([2 * 0.268941, 3 * 0.731059, 1.5], abs=1e-5)
    with pytest.raises(ValueError, match="2 log ratios"):
        kto_loss.kto_losses(torch.zeros(2), torch.ones(1, dtype=torch.bool), 0.0, beta=1.0)


def test_the_loss_of_an_answer_far_above_the_point_still_has_a_gradient():
    ratios = torch.tensor([400.0], requires_grad=True)
    loss = kto_loss.kto_losses(ratios, torch.tensor([True]), 0.0, beta=0.1)
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.exp(-40), rel=1e-3)
    assert ratios.grad.item() == pytest.approx(-0.1 * math.exp(-40), rel=1e-3)


def test_the_reference_point_is_the_mean_ratio_and_never_below_the_reference():
    assert kto_loss.reference_point([[1.0, 2.0], [6.0]], [[0.0, 0.0], [0.0]]) == pytest.approx(3.0)
    assert kto_loss.reference_point([[-1.0]], [[0.0]]) == 0.0
    assert kto_loss.reference_point([], []) == 0.0


@pytest.mark.parametrize("swapped", [False, True])
def test_losses_and_reference_point_are_those_of_trl(base, tmp_path, swapped):
    """TRL's own `compute_loss` on random answers of a tiny model, against ours on shared rows.

    With policy and reference exchanged every log ratio changes its sign: z0 is clamped in one case.
    """
    module = pytest.importorskip("trl.trainer.kto_trainer")
    config = KtoConfig(beta=0.3, desirable_weight=1.2, undesirable_weight=0.7)
    draw = torch.Generator().manual_seed(4)

    def tokens(count):
        return torch.randint(3, 200, (count,), generator=draw).tolist()

    groups = [
        UnpairedGroup(
            prompt_id=str(number),
            split="train",
            group=Group(tokens(prompt), [tokens(answer)]),
            desirable_K=(number != 1,),
        )
        for number, (prompt, answer) in enumerate([(9, 5), (4, 8), (6, 3)])
    ]
    policy, plain = (model_load(base, dtype="float32") for _ in range(2))
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=draw))
    if swapped:
        policy, plain = plain, policy
    theirs, their_kl = trl_loss(
        module, copy.deepcopy(policy), copy.deepcopy(plain), groups, config, tmp_path
    )
    own = [group.group for group in groups]
    apart = mismatched(own, context_tokens=512)
    attach(policy)
    attach(plain)
    processes = processes_start()
    seen = [
        tuple(logprobs_of(model, asked, config, processes) for asked in (own, apart))
        for model in (policy, plain)
    ]
    found = kto_loss.groups_see(*seen, groups, config)
    assert found.z0 == pytest.approx(their_kl, rel=1e-3)
    assert (found.z0 > 0.01) is not swapped
    assert found.described()["loss"] == pytest.approx(theirs, rel=1e-4)


def trl_loss(module, policy, plain, groups, config, folder):
    """What KTOTrainer makes of rows that are tokens already, in one batch: (loss, kl)."""
    from datasets import Dataset
    from trl import KTOConfig as TrlKtoConfig

    class Tokenized(module.KTOTrainer):
        def _prepare_dataset(self, dataset, *args, **kwargs):
            return dataset

    answers = [group.group.answers[0] for group in groups]
    rows = [
        {
            "prompt_ids": group.group.prompt_T,
            "completion_ids": group.group.answers[0],
            "KL_completion_ids": other,  # as its _prepare_dataset turns them
            "label": group.desirable_K[0],
        }
        for group, other in zip(groups, [answers[-1], *answers[:-1]], strict=True)
    ]
    trainer = Tokenized(
        model=policy,
        ref_model=plain,
        args=TrlKtoConfig(
            output_dir=str(folder),
            beta=config.beta,
            desirable_weight=config.desirable_weight,
            undesirable_weight=config.undesirable_weight,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            report_to="none",
            per_device_train_batch_size=len(rows),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tiny_tokenizer(),
    )
    batch = module.DataCollatorForUnpairedPreference(pad_token_id=0)(rows)
    with torch.no_grad():
        loss = float(trainer.compute_loss(trainer.model, batch))
    return loss, trainer._metrics["eval"]["kl"][-1]


# ── what is refused ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"beta": 0.0}, "more than 0"),
        ({"desirable_weight": 0.0}, "more than 0"),
        ({"examples_per_step": 1}, "both classes"),
        ({"desirable_from": 3.0}, "more than undesirable_to"),
        ({"undesirable_to": 0.5}, "1 to 7"),
        ({"kl_limit": -1.0}, "0 or more"),
        ({"adapter": "lora", "lora_dropout": 0.1}, "compared under one model"),
    ],
)
def test_settings_that_would_do_nothing_or_harm_are_refused(config, reason):
    with pytest.raises(ConfigError, match=reason):
        KtoConfig(**config)


@pytest.mark.parametrize(
    ("ratings", "config", "reason"),
    [
        ([], {}, "give ratings, rankings, or both"),
        (ratings_rows(8)[1::2], {}, "4 desirable and 0 undesirable answers"),
        (ratings_rows(8)[::2], {}, "0 desirable and 4 undesirable answers"),
        (ratings_rows(4), {"max_tokens": 20}, "4 ratings left out: .* more than 20 tokens"),
        (ratings_rows(4), {"annotator_weights": True}, "no row carries a weight"),
    ],
)
def test_rows_that_teach_nothing_are_refused_before_a_model_is_loaded(
    tmp_path, base, monkeypatch, ratings, config, reason
):
    monkeypatch.setattr(kto, "policy_make", None)
    with pytest.raises(RefusedError, match=reason):
        kto.main(RunDir(kto_run(tmp_path, base, ratings, **config)))


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


def test_it_learns_from_ratings_what_holds_on_other_prompts(tmp_path, base):
    records = (
        ratings_rows(32)
        + ratings_rows(8, first=32, split="validation")
        + ratings_rows(16, first=40, split="held_out")
    )
    run = kto_run(tmp_path, base, records, epochs=8, evaluate_every_steps=16)
    kto.main(RunDir(run))
    metrics, result = metrics_of(run), result_of(run)
    assert metrics[1]["loss"] == pytest.approx(0.5, rel=1e-4)
    assert metrics[1]["kl"] == pytest.approx(0.0, abs=1e-4)
    assert metrics[32]["loss"] < 0.3
    assert metrics[32]["rewards/margins"] > 1
    assert metrics[16]["validation_rewards/accuracies"] > 0.7
    held_out = result["held_out"]
    assert held_out["loss_before"] == 0.5
    assert held_out["difference"]["high"] < 0
    assert held_out["accuracy"]["low"] > 0.5
    assert "pair_accuracy" not in held_out  # one answer a prompt
    assert (result["desirable"], result["undesirable"], result["prompts"]) == (16, 16, 32)
    assert result["dtype"] == "bfloat16"
    assert (run / "outputs" / "model" / "model.safetensors").exists()


def test_it_learns_from_rankings_and_ratings_together(tmp_path, base):
    rankings = rankings_rows(16) + rankings_rows(8, first=20, split="held_out")
    ratings = ratings_rows(8, first=100)
    run = kto_run(tmp_path, base, ratings, rankings, epochs=8, balance=True)
    kto.main(RunDir(run))
    result = result_of(run)
    assert (result["desirable"], result["undesirable"]) == (16 * 2 + 4, 16 * 2 + 4)
    assert result["held_out"]["pairs"] == 8 * 2 * 2
    assert result["held_out"]["pair_accuracy"]["low"] > 0.5
    assert result["held_out"]["difference"]["high"] < 0


@pytest.mark.parametrize(
    "config",
    [
        {"adapter": "lora", "lora_rank": 4, "publish": "adapter"},
        {"dtype": "bfloat16", "gradient_checkpointing": True},
        {"desirable_weight": 1.4, "undesirable_weight": 1.0},
    ],
    ids=lambda config: str(next(iter(config.values()))),
)
def test_every_kind_starts_at_the_references_loss_and_comes_down(tmp_path, base, config):
    run = kto_run(tmp_path, base, ratings_rows(16), epochs=8, **config)
    kto.main(RunDir(run))
    metrics = metrics_of(run)
    rough = 5e-2 if config.get("dtype") == "bfloat16" else 1e-3
    start = 0.5 * (config.get("desirable_weight", 1.0) + 1) / 2
    assert metrics[1]["loss"] == pytest.approx(start, rel=rough)
    assert metrics[16]["loss"] < 0.9 * start
    output = config.get("publish", "model")
    assert list((run / "outputs").iterdir()) == [run / "outputs" / output]


def test_a_rare_class_makes_fewer_larger_steps_and_both_notes_are_in_the_result(tmp_path, base):
    liked = ratings_rows(16)[1::2] + ratings_rows(2, first=20)[:1]
    run = kto_run(tmp_path, base, liked, balance=True, examples_per_step=4)
    kto.main(RunDir(run))
    result = result_of(run)
    assert (result["steps"], result["desirable"], result["undesirable"]) == (1, 8, 1)
    assert result["undesirable_weight"] == pytest.approx(8 / 1.5)
    assert any("1 steps of about 9 answers instead of 4" in note for note in result["notes"])
    assert any("undesirable_weight is taken as 5.333" in note for note in result["notes"])


def test_answers_that_fit_behind_their_own_prompts_alone_do_not_stop_the_run(tmp_path, base):
    """Half the prompts, and the answers of the others, take most of the model's context of 512."""
    records = []
    for number, record in enumerate(ratings_rows(8)):
        if number // 2 % 2:
            record = replace(record, messages=[{"role": "user", "content": "q" * 400}])
        else:
            record = replace(record, candidate={**record.candidate, "text": "ab" * 200})
        records.append(record)
    run = kto_run(tmp_path, base, records)
    kto.main(RunDir(run))
    assert result_of(run)["prompts"] == 8


def test_mismatched_answers_that_a_window_would_cut_do_not_stop_the_run(tmp_path):
    """As above, with a context of 2048 of which attention sees the last 512."""
    records = []
    for number, record in enumerate(ratings_rows(8)):
        if number // 2 % 2:
            record = replace(record, messages=[{"role": "user", "content": "q" * 400}])
        else:
            record = replace(record, candidate={**record.candidate, "text": "ab" * 200})
        records.append(record)
    records.append(
        replace(records[0], prompt_id="long", messages=[{"role": "user", "content": "q" * 400}])
    )
    tokenizer = tiny_tokenizer()
    model = transformers.MistralForCausalLM(
        transformers.MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=2048,
            sliding_window=512,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model_save(model, tokenizer, tmp_path / "base", dtype="float32")
    run = kto_run(tmp_path / "kto", tmp_path / "base", records)
    kto.main(RunDir(run))
    result = result_of(run)
    assert result["prompts"] == 8
    assert any(
        "1 ratings left out: a prompt and answer of more than 512" in one for one in result["notes"]
    )


def test_virtual_tokens_are_measured_against_the_base_without_them(tmp_path, base):
    run = kto_run(
        tmp_path, base, ratings_rows(8), adapter="prefix", virtual_tokens=3, publish="adapter"
    )
    kto.main(RunDir(run))
    assert (
        abs(metrics_of(run)[1]["rewards/chosen"]) > 1e-3
    )  # a prefix is not the base from its start


def test_packing_changes_nothing_but_the_memory(tmp_path, base):
    found = []
    for budget in (60, 4096):
        run = kto_run(
            tmp_path / str(budget), base, (), rankings_rows(8), epochs=2, budget_tokens=budget
        )
        kto.main(RunDir(run))
        found.append([(v["loss"], v["kl"], v["grad_norm"]) for v in metrics_of(run).values()])
    assert torch.tensor(found[0]).allclose(torch.tensor(found[1]), rtol=1e-3, atol=1e-5)


def test_nan_stops_the_run_and_nothing_is_published(tmp_path, base):
    run = kto_run(tmp_path, base, ratings_rows(16), epochs=3, lr=1e30, max_grad_norm=1e30)
    with pytest.raises(NotFinite):
        kto.main(RunDir(run))
    assert not (run / "result.json").exists()
    assert list((run / "outputs").iterdir()) == []


def test_a_policy_that_runs_away_from_the_reference_stops_the_run(tmp_path, base):
    liked = ratings_rows(16)[1::2] + ratings_rows(2, first=20)  # the mean ratio goes up with them
    run = kto_run(tmp_path, base, liked, epochs=20, kl_limit=1.0)
    with pytest.raises(Diverged, match="distance from the reference"):
        kto.main(RunDir(run))
    assert list((run / "outputs").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("config", [{}, {"adapter": "lora", "lora_rank": 4}], ids=["all", "lora"])
def test_killed_and_started_again_it_ends_with_the_same_losses_and_weights(tmp_path, base, config):
    config = {"epochs": 20, "lr": 1e-4, "checkpoint_every_steps": 5, **config}
    whole = kto_run(tmp_path / "whole", base, ratings_rows(24), **config)
    kto.main(RunDir(whole))
    killed = kto_run(tmp_path / "killed", base, ratings_rows(24), **config)
    program_kill(kto.main, killed, lambda: len(checkpoints_of(killed)) == 2)
    step = json.loads((killed / "progress.json").read_text())["done"]
    assert 0 < step < len(metrics_of(whole))
    kto.main(RunDir(killed))
    assert metrics_of(killed) == metrics_of(whole)
    weights = "outputs/model/model.safetensors"
    assert (killed / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_have_the_losses_of_one(tmp_path, base, strategy):
    rankings = rankings_rows(7) + rankings_rows(3, first=7, split="held_out")
    found = {}
    for world in (1, 2):
        run = kto_run(tmp_path / str(world), base, (), rankings, epochs=2, budget_tokens=200)
        assert ranks_run(kto.main, run, world=world, strategy=strategy) == [0] * world
        found[world] = metrics_of(run)
    assert len(found[1]) == len(found[2]) >= 4
    for step, values in found[2].items():
        assert values == pytest.approx(found[1][step], rel=1e-3, abs=1e-5)
