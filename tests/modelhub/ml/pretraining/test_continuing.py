"""Going on from a checkpoint with other settings: what was read before stays what it was."""

import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from modelhub.ml.configs import ConfigError, RefusedError, config_load
from modelhub.ml.pretraining import training
from modelhub.ml.pretraining.__main__ import main
from modelhub.ml.pretraining.configs import PretrainConfig, sample_number
from modelhub.ml.pretraining.data import Skip, TokenSource, mixture_make, step_samples
from modelhub.ml.rundir import RunDir
from tests.alignment.ml.programs import result_of
from tests.modelhub.ml.pretraining.pretrain_runs import (
    TINY,
    cities,
    figures_of,
    pretrain_run,
    shards_write,
    sums,
    tokenizer_write,
)

pytestmark = pytest.mark.ml


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    tokens = shards_write(folder / "sums", sums(0, 120))
    other = shards_write(folder / "cities", cities(0, 120))
    return tokenizer_write(folder / "tokenizer"), {"tokens": tokens, "tokens_2": other}


@pytest.fixture(scope="module")
def stopped(given, tmp_path_factory):
    """A run of 12 steps that was stopped in the tenth, behind its checkpoint of step 8."""
    run = pretrain_run(tmp_path_factory.mktemp("stopped") / "run", *given, shares=[0.5, 0.5])
    taken = training.step_backward

    def step_backward(model, sources, samples, config, *rest):
        if samples[0].number >= 9 * config.blocks_per_step:
            raise KeyboardInterrupt
        return taken(model, sources, samples, config, *rest)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "step_backward", step_backward)
        with pytest.raises(KeyboardInterrupt):
            main(RunDir(run))
    return run


def continued(folder, given, stopped, **config):
    run = pretrain_run(folder, *given, shares=[0.5, 0.5], continues="run@8", **config)
    shutil.copytree(stopped / "checkpoints", run / "checkpoints")
    return run


def watched(monkeypatch):
    """The numbers of the samples of each step that is taken."""
    taken, seen = training.step_backward, []

    def step_backward(model, sources, samples, *rest):
        seen.append([one.number for one in samples])
        return taken(model, sources, samples, *rest)

    monkeypatch.setattr(training, "step_backward", step_backward)
    return seen


def test_another_blend_takes_over_at_its_step_and_history_is_kept(
    tmp_path, given, stopped, monkeypatch
):
    whole = pretrain_run(tmp_path / "whole", *given, shares=[0.5, 0.5])
    main(RunDir(whole))
    seen = watched(monkeypatch)
    run = continued(
        tmp_path / "run",
        given,
        stopped,
        steps=16,
        later_shares={"10": {"shares": [0.0, 1.0], "first_sample": 40}},
    )
    main(RunDir(run))
    assert seen == [list(range(at, at + 4)) for at in range(32, 64, 4)]
    # Steps 9 and 10 have the old blend still, but another rate: the schedule is longer.
    assert figures_of(run, "loss")[0] == figures_of(whole, "loss")[8]
    counts = result_of(run)["tokens_of"]
    of_ten = [figures_of(run, f"tokens_{name}")[1] for name in counts]
    assert list(counts.values()) == [of_ten[0], of_ten[1] + 6 * 4 * 32]
    assert result_of(run)["steps"] == 16


def test_samples_that_are_to_be_skipped_are_never_read(tmp_path, given, stopped, monkeypatch):
    seen = watched(monkeypatch)
    run = continued(tmp_path / "run", given, stopped, skip_samples=["34-41"])
    main(RunDir(run))
    assert [number for step in seen for number in step] == [32, 33, *range(42, 56)]
    assert result_of(run)["next_sample"] == 56


def test_a_run_that_goes_on_is_refused_without_its_checkpoint(tmp_path, given):
    run = pretrain_run(tmp_path / "run", *given, continues="0123@8")
    with pytest.raises(RefusedError, match="goes on from 0123@8, and that checkpoint is not"):
        main(RunDir(run))


# ── the sampler ──────────────────────────────────────────────────────────────────────────────────

SOURCES = [
    TokenSource(name, None, 32, blocks, 0, False) for name, blocks in (("a", 40), ("b", 999))
]


def drawn(first, last, **config):
    mixture = mixture_make(SOURCES, config_load(PretrainConfig, {**TINY, **config}))
    found = mixture.draw(first, last - first)
    return np.stack([found.source_S, found.epoch_S, found.block_S])


def test_a_longer_plan_changes_no_sample_that_a_capped_run_has_read():
    capped = {"shares": [0.5, 0.5], "epoch_caps": [10.0, 0.0], "spike_rewinds": 0}
    # 40 blocks, ten times, in two periods: 200 of each. In four periods it would be 100.
    old = drawn(0, 4096, steps=1024, **capped)
    later = {"1024": {"shares": [0.5, 0.5], "first_sample": 4096}}
    longer = {"steps": 2048, "later_shares": later, **capped}
    assert (drawn(0, 4096, **longer) != old).any()
    kept = drawn(0, 8192, planned_samples=4096, **longer)
    assert (kept[:, :4096] == old).all()
    assert (kept[0] == 0).sum() == 400  # the cap holds over the whole
    assert kept[1][kept[0] == 0].max() == 9
    # A third plan keeps both.
    third = {"1024": {**later["1024"], "planned_samples": 8192}}
    third["2048"] = {"shares": [0.0, 1.0], "first_sample": 8192}
    again = drawn(0, 9000, steps=2250, planned_samples=4096, later_shares=third, **capped)
    assert (again[:, :8192] == kept).all()
    assert (again[0, 8192:] == 1).all()


def test_places_pass_over_what_is_skipped():
    config = config_load(PretrainConfig, {"skip_samples": ["20-29", "5-9", "10-11"]})
    assert config.skipped_ranges == [(5, 11), (20, 29)]
    read = [sample_number(place, config.skipped_ranges) for place in range(20)]
    assert read == [*range(5), *range(12, 20), *range(30, 37)]
    tiny = config_load(PretrainConfig, {**TINY, "skip_samples": ["6-9"]})
    mixture = mixture_make(SOURCES, tiny)
    numbers = [one.number for one in step_samples(mixture, 1, tiny, [Skip(1, 4)])]
    assert numbers == [12, 13, 14, 15]  # places 8 to 11
    last = step_samples(mixture, 11, tiny, [Skip(1, 4)])
    assert last[-1].number == 55


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("skip_samples", ["9-8"]),
        ("skip_samples", ["8"]),
        ("later_shares", {"5": {"shares": [1.0], "first_sample": 0}}),
        ("later_shares", {"5": {"shares": [1.0], "from": 4}}),
        ("later_shares", {"5": {"first_sample": 4}}),
    ],
)
def test_what_is_no_range_and_no_blend_is_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        config_load(PretrainConfig, {name: value})
