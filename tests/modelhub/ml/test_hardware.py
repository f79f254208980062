"""The dtype that "auto" stands for: by the processor's flags, and kept for a run that resumes."""

import dataclasses
import json
from pathlib import Path

import pytest

from alignment.methods import METHODS
from modelhub.ml import hardware, rundir
from modelhub.ml.configs import CHOICES, GenerateConfig
from modelhub.ml.rundir import RunDir
from tests.modelhub.ml.runs import run_write

# Cut from three machines: an EPYC of the second generation, a Xeon with AMX, a Graviton 3.
ROME = "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu sse4_2 avx avx2 fma\n"
SAPPHIRE = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16\nbugs\t\t: mds\n"
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd sve svebf16 bf16\nCPU part\t: 0xd40\n"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Make this machine one without a GPU whose processor tells what is given."""

    def become(cpu_info: str | None) -> None:
        path = tmp_path / "cpuinfo"
        path.unlink(missing_ok=True)
        if cpu_info is not None:
            path.write_text(cpu_info)
        monkeypatch.setattr(hardware, "_CPU_INFO", path)
        monkeypatch.setattr(hardware, "_NVIDIA_DRIVER", tmp_path / "no-driver")
        hardware.bfloat16_multiplies.cache_clear()

    yield become
    hardware.bfloat16_multiplies.cache_clear()


@pytest.mark.parametrize(
    ("cpu_info", "dtype"),
    [(ROME, "float32"), (SAPPHIRE, "bfloat16"), (GRAVITON, "bfloat16"), (None, "float32")],
    ids=["avx2", "amx", "arm", "unknown"],
)
def test_auto_is_bfloat16_only_where_the_processor_multiplies_in_it(machine, cpu_info, dtype):
    machine(cpu_info)
    assert hardware.dtype_resolve("auto") == dtype
    assert hardware.dtype_resolve("float16") == "float16"


@pytest.mark.parametrize(("capability", "dtype"), [("7.5", "float32"), ("9.0", "bfloat16")])
def test_a_gpu_is_asked_first(machine, monkeypatch, tmp_path, capability, dtype):
    machine(SAPPHIRE if dtype == "float32" else ROME)
    (tmp_path / "driver").write_text("NVRM version: 570\n")
    monkeypatch.setattr(hardware, "_NVIDIA_DRIVER", tmp_path / "driver")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho {capability}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert hardware.dtype_resolve("auto") == dtype


def test_a_hidden_gpu_is_not_asked(machine, monkeypatch, tmp_path):
    machine(ROME)
    (tmp_path / "driver").write_text("NVRM version: 570\n")
    monkeypatch.setattr(hardware, "_NVIDIA_DRIVER", tmp_path / "driver")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert hardware.dtype_resolve("auto") == "float32"


def test_a_run_goes_on_in_the_dtype_it_began_with(machine, tmp_path, capfd):
    folder = run_write(tmp_path / "run", "generate", {"dtype": "auto"})
    machine(ROME)
    begun = RunDir(folder)
    assert begun.config(GenerateConfig).dtype == "float32"
    assert "dtype: auto is float32 here" in capfd.readouterr().out
    begun._lock.close()
    machine(SAPPHIRE)  # the run's next attempt is on another machine
    resumed = RunDir(folder)
    assert resumed.config(GenerateConfig).dtype == "float32"
    (resumed.output("candidates") / "candidates.jsonl").write_text("{}\n")
    resumed.succeed(outputs={"candidates": "candidates"}, result={})
    manifest = json.loads((folder / "outputs/candidates/manifest.json").read_text())
    assert manifest["origin"]["config"]["dtype"] == "float32"


def test_a_dtype_that_was_asked_for_stays_and_is_warned_of(machine, tmp_path, capfd):
    folder = run_write(tmp_path / "run", "generate", {"dtype": "bfloat16"})
    machine(ROME)
    assert RunDir(folder).config(GenerateConfig).dtype == "bfloat16"
    assert "float32 (or auto) is many times faster here" in capfd.readouterr().out
    assert not (folder / rundir.RESOLVED_NAME).exists()


def test_every_later_process_of_a_run_takes_what_was_kept(machine, monkeypatch, tmp_path):
    folder: Path = run_write(tmp_path / "run", "generate", {"dtype": "auto"})
    machine(SAPPHIRE)
    assert RunDir(folder).config(GenerateConfig).dtype == "bfloat16"
    machine(ROME)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert RunDir(folder).config(GenerateConfig).dtype == "bfloat16"


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
def test_only_the_setting_that_a_run_resolves_offers_auto_among_dtypes(method):
    offering = [
        field.name
        for field in dataclasses.fields(method.config)
        if {"auto", "float32"} <= set(field.metadata.get(CHOICES, ()))
    ]
    assert offering in ([], ["dtype"])
