"""Pretraining runs: what is learnt, and that a kill, a spike or a hang loses nothing."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import RefusedError
from modelhub.ml.divergence import Diverged
from modelhub.ml.mixture import MixtureError
from modelhub.ml.pretraining import training
from modelhub.ml.pretraining.__main__ import main
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.pretraining.data import Skip, source_make, step_samples
from modelhub.ml.pretraining.shards import MappedShards
from modelhub.ml.pretraining.watchdog import EXIT_HUNG
from modelhub.ml.rundir import NotFinite, RunDir
from tests.alignment.ml.programs import (
    checkpoints_of,
    metrics_of,
    program_kill,
    result_of,
)
from tests.modelhub.ml.pretraining.pretrain_runs import (
    pretrain_run,
    shards_write,
    sums,
)

pytestmark = [pytest.mark.ml, pytest.mark.usefixtures("one_thread")]


def weights_of(run):
    return (run / "outputs" / "model" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("architecture", "given"),
    [
        ("llama", {}),
        ("gpt2", {"optimizer": "muon"}),
        ("bloom", {"schedule": "wsd", "warmup_steps": 2}),
        ("mixtral", {}),
        ("rwkv", {"document_mask": False}),
        ("bert", {"lr": 5e-3}),
        ("t5", {"lr": 1e-2}),
    ],
)
def test_every_architecture_learns(tmp_path, tokenizer, tokens, architecture, given):
    run = pretrain_run(
        tmp_path / "run",
        tokenizer,
        {"tokens": tokens},
        **{"architecture": architecture, "steps": 25, "evaluate_every_steps": 25, **given},
    )
    main(RunDir(run))
    result = result_of(run)
    (source,) = result["sources"]
    assert source["loss_before"] == pytest.approx(math.log(262), abs=1.2)  # an even guess
    assert source["loss_after"] < source["loss_before"] - 0.7
    assert result["tokens"] == 25 * 4 * 32
    assert result["tokens_per_s"] > 0
    assert 0 < result["mfu"] < 1
    assert result["flops"] == result["flops_per_token"] * result["tokens"]


def test_what_is_published_is_loaded_as_any_model(tmp_path, tokenizer, tokens):
    run = pretrain_run(tmp_path / "run", tokenizer, {"tokens": tokens}, architecture="llama")
    main(RunDir(run))
    folder = run / "outputs" / "model"
    model = model_load(folder, dtype="float32")
    result = result_of(run)
    assert sum(weight.numel() for weight in model.parameters()) == result["parameters"]
    assert (result["architecture"], result["dtype"]) == ("LlamaForCausalLM", "bfloat16")
    assert result["context_tokens"] == 32
    assert tokenizer_load(folder).eos_token == "<|im_end|>"


def test_killed_and_resumed_it_ends_bit_for_bit_the_same(tmp_path, tokenizer, tokens, other_tokens):
    """A real SIGKILL between checkpoints; what a masked model hides is drawn as before, too."""
    inputs = {"tokens": tokens, "tokens_2": other_tokens}
    config = {"architecture": "bert", "dropout": 0.1, "steps": 14}
    whole = pretrain_run(tmp_path / "whole", tokenizer, inputs, **config)
    main(RunDir(whole))
    killed = pretrain_run(tmp_path / "killed", tokenizer, inputs, **config)
    program_kill(main, killed, lambda: len(checkpoints_of(killed)) >= 2)
    main(RunDir(killed))
    assert metrics_of(killed) == metrics_of(whole)
    assert weights_of(killed) == weights_of(whole)
    assert result_of(killed)["validation"] == result_of(whole)["validation"]


def test_kept_blocks_are_never_trained_on(tmp_path, tokenizer, tokens, monkeypatch):
    read = []
    drawn = training.blocks_read
    monkeypatch.setattr(
        training,
        "blocks_read",
        lambda sources, samples, vocabulary: (
            read.extend((sources[0].train_blocks, one.block) for one in samples),
            drawn(sources, samples, vocabulary),
        )[1],
    )
    run = pretrain_run(tmp_path / "run", tokenizer, {"tokens": tokens}, steps=80)
    main(RunDir(run))
    kept_from = read[0][0]
    assert {block for _, block in read} == set(range(kept_from))
    assert result_of(run)["planned"][0]["epochs"] == pytest.approx(320 / kept_from)


# ── several sources ──────────────────────────────────────────────────────────────────────────────


def test_shares_are_read_as_they_were_asked_and_may_change_at_a_step(
    tmp_path, tokenizer, tokens, other_tokens
):
    inputs = {"tokens": tokens, "tokens_2": other_tokens}
    later = {"10": [0.0, 1.0]}
    run = pretrain_run(
        tmp_path / "run", tokenizer, inputs, shares=[1.0, 0.0], later_shares=later, steps=30
    )
    main(RunDir(run))
    assert list(result_of(run)["tokens_of"].values()) == [10 * 4 * 32, 20 * 4 * 32]


def test_shares_that_do_not_fit_the_sources_are_refused(tmp_path, tokenizer, tokens):
    run = pretrain_run(tmp_path / "run", tokenizer, {"tokens": tokens}, shares=[0.5, 0.5])
    with pytest.raises(MixtureError, match="1 sources and 2 shares"):
        main(RunDir(run))


def test_a_domain_is_learnt_and_replay_forgets_less(tmp_path, tokenizer, tokens, other_tokens):
    base = pretrain_run(tmp_path / "base", tokenizer, {"tokens": tokens}, steps=60)
    main(RunDir(base))
    forgotten = {}
    for share in (0.0, 0.5):
        run = pretrain_run(
            tmp_path / f"run{share}",
            tokenizer,
            {"base": base / "outputs" / "model", "tokens": other_tokens, "replay": tokens},
            replay_share=share,
            steps=40,
            warmup_steps=2,
        )
        main(RunDir(run))
        result = result_of(run)
        domain, general = result["sources"]
        assert domain["loss_after"] < domain["loss_before"] - 0.5
        assert general["loss_before"] == pytest.approx(
            result_of(base)["sources"][0]["loss_after"], abs=0.01
        )
        forgotten[share] = result["forgotten_nats"]
        assert forgotten[share] == pytest.approx(general["loss_after"] - general["loss_before"])
    assert forgotten[0.0] > 0.1
    assert forgotten[0.5] < forgotten[0.0] / 2


def test_a_base_of_another_architecture_is_refused(tmp_path, tokenizer, tokens):
    base = pretrain_run(tmp_path / "base", tokenizer, {"tokens": tokens}, steps=1)
    main(RunDir(base))
    inputs = {"base": base / "outputs" / "model", "tokens": tokens}
    run = pretrain_run(tmp_path / "run", tokenizer, inputs, architecture="llama")
    with pytest.raises(RefusedError, match="the base is a 'gpt2'"):
        main(RunDir(run))


def test_a_token_that_the_tokenizer_has_not_is_refused(tmp_path, tokenizer, tokens):
    broken = tmp_path / "broken"
    shards_write(broken, sums(0, 40))
    held = np.memmap(broken / "t.ds", dtype=np.uint16, mode="r+")
    held[5] = 999
    held.flush()
    run = pretrain_run(tmp_path / "run", tokenizer, {"tokens": broken}, steps=80)
    with pytest.raises(RefusedError, match="token 999, and the tokenizer has 259"):
        main(RunDir(run))


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────


def spoiled(monkeypatch, steps, *, factor=40.0):
    """Losses of these steps (from 0) as a bad meeting of weights and data makes them."""
    taken = training.step_backward
    seen = []

    def step_backward(model, sources, samples, config, *given):
        found = taken(model, sources, samples, config, *given)
        first = samples[0].number // config.blocks_per_step
        seen.append(first)
        if first in steps:
            blocks = [(at, loss * factor) for at, loss in found.blocks]
            return training.Stepped(found.loss * factor, found.grad_norm, blocks)
        return found

    monkeypatch.setattr(training, "step_backward", step_backward)
    return seen


def test_a_spike_is_gone_back_from_its_blocks_skipped_and_its_documents_named(
    tmp_path, tokenizer, tokens, monkeypatch
):
    seen = spoiled(monkeypatch, {21, 22})
    run = pretrain_run(tmp_path / "run", tokenizer, {"tokens": tokens}, steps=30)
    main(RunDir(run))
    # Found at the 23rd step, behind the checkpoint of step 20: 20, 21 and 22 are never read again.
    assert seen == [*range(23), *range(23, 33)]
    result = result_of(run)
    (spike,) = result["spikes"] if isinstance(result["spikes"], list) else [result["spikes"]]
    assert (spike["step"], spike["back_to_step"]) == (23, 20)
    assert (spike["first_sample"], spike["last_sample"]) == (80, 91)
    assert len(result["spike_blocks"]) == 8
    assert all(block["documents"] for block in result["spike_blocks"])
    assert result["steps"] == 30
    assert result["next_sample"] == 33 * 4  # where in the data it has come to


def test_no_checkpoint_is_made_where_a_spike_begins(tmp_path, tokenizer, tokens, monkeypatch):
    seen = spoiled(monkeypatch, {19, 20})
    run = pretrain_run(tmp_path / "run", tokenizer, {"tokens": tokens}, steps=30)
    main(RunDir(run))
    # Step 20's own loss is the first of the spike: back to the checkpoint before, of step 16.
    (spike,) = result_of(run)["spikes"]
    assert (spike["step"], spike["back_to_step"]) == (21, 16)
    assert seen == [*range(21), *range(21, 35)]


def test_a_spiked_run_that_is_killed_skips_the_same(tmp_path, tokenizer, tokens, monkeypatch):
    spoiled(monkeypatch, {21, 22})
    whole = pretrain_run(tmp_path / "whole", tokenizer, {"tokens": tokens}, steps=30)
    main(RunDir(whole))
    killed = pretrain_run(tmp_path / "killed", tokenizer, {"tokens": tokens}, steps=30)
    look = training.Watch.look

    def die(watch, run, step, config, model):
        if step == 27:
            raise KeyboardInterrupt
        look(watch, run, step, config, model)

    with monkeypatch.context() as patched:
        patched.setattr(training.Watch, "look", die)
        with pytest.raises(KeyboardInterrupt):
            main(RunDir(killed))
    main(RunDir(killed))
    assert weights_of(killed) == weights_of(whole)
    assert result_of(killed)["spikes"] == result_of(whole)["spikes"]


def test_spikes_without_end_stop_the_run_and_publish_nothing(
    tmp_path, tokenizer, tokens, monkeypatch
):
    spoiled(monkeypatch, set(range(21, 90)))
    run = pretrain_run(tmp_path / "run", tokenizer, {"tokens": tokens}, steps=30, spike_rewinds=2)
    with pytest.raises(Diverged, match=r"after 2 rewinds; nothing is published\. Blocks: tokens"):
        main(RunDir(run))
    assert not (run / "result.json").exists()
    assert not list((run / "outputs").iterdir())


def test_a_loss_that_is_no_number_stops_before_its_step_is_taken(
    tmp_path, tokenizer, tokens, monkeypatch
):
    spoiled(monkeypatch, {5}, factor=math.nan)
    run = pretrain_run(tmp_path / "run", tokenizer, {"tokens": tokens}, spike_rewinds=0)
    with pytest.raises(NotFinite, match="at step 6: the loss is nan"):
        main(RunDir(run))
    assert max(metrics_of(run)) == 5
    assert not (run / "result.json").exists()


@pytest.mark.parametrize("deviations", [8, 0])
def test_a_loss_that_is_no_number_is_gone_back_from(
    tmp_path, tokenizer, tokens, monkeypatch, capsys, deviations
):
    seen = spoiled(monkeypatch, {21}, factor=math.nan)
    run = pretrain_run(
        tmp_path / "run", tokenizer, {"tokens": tokens}, steps=30, spike_deviations=deviations
    )
    main(RunDir(run))
    assert seen == [*range(22), *range(22, 32)]
    assert "(no number)" in capsys.readouterr().out
    assert result_of(run)["steps"] == 30


def test_a_gradient_that_is_no_number_stops_before_its_step_is_taken(
    tmp_path, tokenizer, tokens, monkeypatch
):
    """The loss is a number: what overflows on the way back is seen by the norm alone."""
    taken = training.block_losses
    passes = []

    def block_losses(model, inputs, targets_BR):
        loss_B, balance = taken(model, inputs, targets_BR)
        passes.append(None)
        if len(passes) == 11:  # of the sixth step's two
            loss_B.register_hook(lambda grad_B: grad_B * math.inf)
        return loss_B, balance

    monkeypatch.setattr(training.step_backward, "__defaults__", (block_losses,))
    monkeypatch.setattr(training, "block_losses", block_losses)
    run = pretrain_run(tmp_path / "run", tokenizer, {"tokens": tokens}, spike_rewinds=0)
    with pytest.raises(NotFinite, match=r"at step 6: the gradient's norm is (nan|inf)"):
        main(RunDir(run))
    assert max(metrics_of(run)) == 5
    assert not list((run / "outputs").iterdir())


def test_a_rate_of_a_thousand_publishes_nothing(tmp_path, tokenizer, tokens):
    run = pretrain_run(
        tmp_path / "run",
        tokenizer,
        {"tokens": tokens},
        steps=60,
        lr=1e3,
        warmup_steps=0,
        spike_deviations=3.0,
        spike_rewinds=0,
    )
    with pytest.raises((Diverged, NotFinite)):
        main(RunDir(run))
    assert not (run / "result.json").exists()
    assert not list((run / "outputs").iterdir())


def test_steps_with_nothing_to_learn_leave_the_weights_numbers(
    tmp_path, tokenizer, tokens, monkeypatch
):
    """No target in any block: a loss and gradients of nothing, not of 0 / 0."""
    taken = training.batch_make

    def batch_make(blocks, generators, config, special):
        found = taken(blocks, generators, config, special)
        return replace(found, targets_BR=torch.full_like(found.targets_BR, -100))

    monkeypatch.setattr(training, "batch_make", batch_make)
    run = pretrain_run(tmp_path / "run", tokenizer, {"tokens": tokens}, steps=4)
    main(RunDir(run))
    assert [metrics_of(run)[step]["loss"] for step in range(1, 5)] == [0.0] * 4
    model = model_load(run / "outputs" / "model", dtype="float32")
    assert all(bool(weight.isfinite().all()) for weight in model.parameters())


def test_the_same_run_twice_is_the_same_bit_for_bit(tmp_path, tokenizer, tokens):
    runs = [
        pretrain_run(tmp_path / name, tokenizer, {"tokens": tokens}, dropout=0.1, dtype="bfloat16")
        for name in ("first", "second")
    ]
    for run in runs:
        main(RunDir(run))
    first, second = runs
    assert metrics_of(first) == metrics_of(second)
    assert weights_of(first) == weights_of(second)


def test_skipped_samples_are_passed_over_from_their_step_on():
    class Numbers:
        def at(self, numbers):
            return type("Drawn", (), dict.fromkeys(("source_S", "epoch_S", "block_S"), numbers))

    class Config:
        blocks_per_step = 4
        skipped_ranges = ()

    def numbers(step, skips):
        return [one.number for one in step_samples(Numbers(), step, Config, skips)]

    assert numbers(3, []) == [12, 13, 14, 15]
    assert numbers(3, [Skip(4, 8)]) == [12, 13, 14, 15]
    assert numbers(4, [Skip(4, 8)]) == [24, 25, 26, 27]
    assert numbers(5, [Skip(4, 8), Skip(5, 4)]) == [32, 33, 34, 35]
    Config.skipped_ranges = ((13, 14), (17, 17))  # asked for: 12, 15, 16 and 18 are read at step 3
    assert numbers(3, []) == [12, 15, 16, 18]
    assert numbers(4, [Skip(4, 8)]) == [27, 28, 29, 30]


def test_a_process_that_hangs_ends_itself_and_tells_where(tmp_path):
    code = (
        "import time\n"
        "from modelhub.ml.pretraining.watchdog import watchdog\n"
        "def stuck_in_a_collective(): time.sleep(60)\n"
        "with watchdog(0.5) as dog:\n"
        "    for _ in range(5): time.sleep(0.2); dog.beat()\n"
        "    print('still alive', flush=True)\n"
        "    stuck_in_a_collective()\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, env=os.environ
    )
    assert found.returncode == EXIT_HUNG
    assert "still alive" in found.stdout
    assert "stuck_in_a_collective" in found.stderr


def test_the_result_is_plain_json_with_tables(tmp_path, tokenizer, tokens):
    run = pretrain_run(tmp_path / "run", tokenizer, {"tokens": tokens}, sample_every_steps=6)
    main(RunDir(run))
    result = json.loads((run / "result.json").read_text())["result"]
    assert [one["step"] for one in result["validation"]] == [0, 5, 10, 12]
    assert [one["step"] for one in result["samples"]] == [0, 6, 12]
    # Behind the beginning of the first block that is kept.
    config = RunDir(run).config(PretrainConfig)
    source = source_make("tokens", MappedShards(tokens), config, is_replay=False)
    beginning = source.read(source.train_blocks)[0][:16]
    assert result["samples"][0]["prompt"] == tokenizer_load(tokenizer).decode(beginning)
    assert result["curve"][-1] == {"step": 12, "loss": result["loss"]}


def test_what_was_pretrained_is_fine_tuned_as_any_base(tmp_path, tokenizer, tokens):
    from alignment.ml import sft
    from alignment.ml.data import DemonstrationRecord
    from modelhub.ml.records import records_write
    from tests.alignment.ml.programs import run_make

    run = pretrain_run(
        tmp_path / "run", tokenizer, {"tokens": tokens}, architecture="llama", context_tokens=256
    )
    main(RunDir(run))
    (tmp_path / "demonstrations").mkdir()
    talks = [
        DemonstrationRecord(
            prompt_id=f"p{number}",
            messages=[{"role": "user", "content": f"{number} and {number}?"}],
            text=f"{2 * number}.",
            finish_reason="stop",
            score=1.0,
            batch="first",
        )
        for number in range(6)
    ]
    records_write(tmp_path / "demonstrations" / "demonstrations.jsonl", talks)
    inputs = {
        "base": run / "outputs" / "model",
        "demonstrations": tmp_path / "demonstrations",
    }
    tuned = run_make(tmp_path / "sft", "sft", inputs, {"epochs": 4, "lr": 3e-3})
    sft.main(RunDir(tuned))
    epochs = result_of(tuned)["epochs"]
    assert epochs[-1]["loss"] < epochs[0]["loss"]


def test_a_set_of_another_tokenizer_is_refused_though_its_tokens_are_all_known(
    tmp_path, tokenizer, tokens
):
    folder = tmp_path / "tokens"
    shutil.copytree(tokens, folder)
    (folder / "t.ds.metadata").write_text("200-tokens|2\n1000\n1.00 kT")
    run = pretrain_run(tmp_path / "run", tokenizer, {"tokens": folder}, steps=2)
    with pytest.raises(RefusedError, match="made with a tokenizer of 200 tokens"):
        main(RunDir(run))
    size = len(tokenizer_load(tokenizer))
    (folder / "t.ds.metadata").write_text(f"{size}-tokens|2\n1000\n1.00 kT")
    main(RunDir(pretrain_run(tmp_path / "again", tokenizer, {"tokens": folder}, steps=2)))


@pytest.mark.parametrize("architecture", ["t5", "bert"])
def test_tokens_that_an_objective_adds_refuse_no_set_made_before(
    tmp_path, tokenizer, tokens, architecture
):
    """As the hub makes sets, and from them a model, and with that model sets again."""
    size = len(tokenizer_load(tokenizer))
    old = tmp_path / "old"
    shutil.copytree(tokens, old)
    (old / "t.ds.metadata").write_text(f"{size}-tokens|2\n1000\n1.00 kT")
    run = pretrain_run(
        tmp_path / "run", tokenizer, {"tokens": old}, architecture=architecture, steps=1
    )
    main(RunDir(run))
    base = run / "outputs" / "model"
    grown = len(tokenizer_load(base))
    assert grown == size + {"t5": 100, "bert": 1}[architecture]
    new = tmp_path / "new"
    shutil.copytree(tokens, new)
    (new / "t.ds.metadata").write_text(f"{grown}-tokens|2\n1000\n1.00 kT")
    given = {"base": base, "tokens": new, "replay": old}
    main(
        RunDir(pretrain_run(tmp_path / "on", tokenizer, given, architecture=architecture, steps=1))
    )
    (new / "t.ds.metadata").write_text(f"{size + 50}-tokens|2\n1000\n1.00 kT")
    run = pretrain_run(tmp_path / "off", tokenizer, given, architecture=architecture, steps=1)
    with pytest.raises(RefusedError, match=f"made with a tokenizer of {size + 50} tokens"):
        main(RunDir(run))
