"""The ways and presets of deploy/launch: each is taken by whoever it is for.

LAUNCH_WAYS=run trains by every way of the table on a tiny model, with the losses of one process; a
way whose extra is not installed is skipped.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml import sft
from alignment.ml.configs.sft import SftConfig
from alignment.ml.data import DemonstrationRecord
from modelhub.ml.launch import LAUNCHERS, arguments_read
from modelhub.ml.pretraining import __main__ as pretraining
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.records import records_write
from tests.alignment.ml.programs import messages, metrics_of, run_make
from tests.modelhub.ml.pretraining.pretrain_runs import (
    pretrain_run,
    shards_write,
    sums,
    tokenizer_write,
)
from tests.modelhub.ml.ranks import ranks_run
from tests.modelhub.ml.runs import ROOT
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml

FOLDER = ROOT / "deploy" / "launch"
TABLE = (FOLDER / "README.md").read_text(encoding="utf-8")
# | way | `launcher processes strategy` | `module` | `settings` | …
ROW = re.compile(r"^\| ([^|]+) \| `([^`]+)` \| `([^`]+)` \| `([^`]+)` \|", re.MULTILINE)
WAYS = {
    way: (launch.split(), module, json.loads(settings))
    for way, launch, module, settings in ROW.findall(TABLE)
}
PROGRAMS = {
    "alignment.ml.sft": (sft.main, SftConfig),
    "modelhub.ml.pretraining": (pretraining.main, PretrainConfig),
}
EXTRAS = {"ray": "ray", "zero": "deepspeed"}
ACCELERATE = sorted(path.name for path in FOLDER.glob("*.yaml"))
DEEPSPEED = sorted(path.name for path in FOLDER.glob("*.json"))


def test_the_table_has_every_launcher_and_kind_of_sharing():
    assert {launch[0] for launch, _, _ in WAYS.values()} == set(LAUNCHERS)
    assert {launch[2] for launch, _, _ in WAYS.values()} == {"ddp", "fsdp2"}
    settings = [own for _, _, own in WAYS.values()]
    assert {own.get("zero_stage") for own in settings} == {None, 1, 2, 3}
    for name in ("tensor_parallel", "expert_parallel", "pipeline_parallel"):
        assert any(name in own for own in settings), name


def test_every_preset_is_told_of():
    assert [name for name in ACCELERATE + DEEPSPEED if f"`{name}`" not in TABLE] == []


def test_what_is_said_to_show_a_way_is_there():
    shown = re.findall(r"`(tests/[^` ]+)`", TABLE)
    assert len(shown) >= 6
    assert [name for name in shown if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("way", WAYS)
def test_a_ways_command_and_settings_are_taken(way):
    launch, module, settings = WAYS[way]
    assert arguments_read([*launch, module, "run"])[0] == launch[0]
    PROGRAMS[module][1](**settings)


@pytest.mark.parametrize(
    "given",
    [
        ["mpirun", "2", "ddp", "m", "run"],
        ["torchrun", "two", "ddp", "m", "run"],
        ["torchrun", "0", "ddp", "m", "run"],
        ["torchrun", "2", "zero", "m", "run"],
        ["torchrun", "2", "ddp", "m"],
    ],
)
def test_another_command_is_told_the_usage(given):
    with pytest.raises(SystemExit, match=r"usage: torchrun\|accelerate\|ray PROCESSES ddp\|fsdp2"):
        arguments_read(given)


@pytest.mark.parametrize("name", ACCELERATE)
def test_accelerate_takes_its_preset(name, monkeypatch):
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    monkeypatch.chdir(ROOT)  # a preset names another's file from there
    given = ["--config_file", str(FOLDER / name), "--num_processes", "2", "--module", "m", "run"]
    taken, _, _ = _validate_launch_command(launch_command_parser().parse_args(given))
    kinds = {"ddp": "multi_gpu", "deepspeed": "use_deepspeed"}
    kind = kinds.get(name.split("_")[1].removesuffix(".yaml"), "use_fsdp")
    for other in ("multi_gpu", "use_deepspeed", "use_fsdp"):
        assert getattr(taken, other) == (other == kind), other
    assert (taken.training_script, taken.num_processes) == ("m", 2)
    if taken.deepspeed_config_file:
        assert Path(taken.deepspeed_config_file).is_file()


@pytest.mark.parametrize("name", DEEPSPEED)
def test_deepspeed_takes_its_preset(name):
    pytest.importorskip("deepspeed", reason="the deepspeed extra is not installed")
    from deepspeed.runtime.config import DeepSpeedConfig

    config = DeepSpeedConfig(str(FOLDER / name))
    assert config.zero_config.stage == int(name.removesuffix(".json")[-1])
    assert config.gradient_clipping == 1.0


# ── by hand: LAUNCH_WAYS=run ─────────────────────────────────────────────────────────────────────


def made(folder, module, settings):
    """A run of six steps."""
    if module == "modelhub.ml.pretraining":
        tokens = {"tokens": shards_write(folder / "tokens", sums(0, 120))}
        tokenizer = tokenizer_write(folder / "tokenizer")
        return pretrain_run(
            folder / "run", tokenizer, tokens, **{**settings, "size": "tiny", "steps": 6}
        )
    demonstrations = [
        DemonstrationRecord(
            prompt_id=f"p{number}",
            messages=messages(f"Say {number}"),
            text=f"{number} it is",
            finish_reason="stop",
            score=1.0,
            batch="first",
        )
        for number in range(24)
    ]
    (folder / "rows").mkdir(parents=True)
    records_write(folder / "rows" / "demonstrations.jsonl", demonstrations)
    inputs = {"base": tiny_model_write(folder / "base"), "demonstrations": folder / "rows"}
    return run_make(
        folder / "run", "sft", inputs, {"epochs": 1, "examples_per_step": 4, "lr": 1e-4, **settings}
    )


def losses_of(run):
    return [values["loss"] for values in metrics_of(run).values() if "loss" in values]


@pytest.mark.skipif(os.environ.get("LAUNCH_WAYS") != "run", reason="asked for by LAUNCH_WAYS=run")
@pytest.mark.parametrize("way", WAYS)
def test_a_way_trains_to_the_losses_of_one_process(tmp_path, way):
    launch, module, settings = WAYS[way]
    for word, extra in EXTRAS.items():
        if word in f"{way} {launch[0]}".lower() and importlib.util.find_spec(extra) is None:
            pytest.skip(f"the {extra} extra is not installed")
    main, _ = PROGRAMS[module]
    shared = ("tensor_parallel", "expert_parallel", "pipeline_parallel", "zero_stage")
    own = {name: value for name, value in settings.items() if name not in shared}
    alone, run = made(tmp_path / "alone", module, own), made(tmp_path / "way", module, settings)
    assert ranks_run(main, alone, world=1) == [0], (alone / "log.txt").read_text()[-3000:]
    with (run / "log.txt").open("ab") as log:
        ended = subprocess.run(
            [sys.executable, "-m", "modelhub.ml.launch", *launch, module, str(run)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=800,
        )
    told = (run / "log.txt").read_text()
    assert ended.returncode == 0, told[-3000:]
    assert f"rank {int(launch[1]) - 1} of {launch[1]} on cpu, {launch[2]}" in told
    assert len(losses_of(alone)) == 6
    assert losses_of(run) == pytest.approx(losses_of(alone), rel=2e-4)
