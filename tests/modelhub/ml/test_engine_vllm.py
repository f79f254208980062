"""vLLM, on a tiny model: seeded, exact, resumable, and gone when its program is killed."""

import importlib.util
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

from modelhub.ml.records import CandidateRecord, records_read
from tests.modelhub.ml.forks import Forks, forks_open
from tests.modelhub.ml.runs import prompts_write, run_write, session_members
from tests.tiny_model import tiny_model_write

# A start of vLLM takes half a minute on a quiet machine.
pytestmark = [pytest.mark.ml, pytest.mark.slow]

PROGRAM = "modelhub.ml.generate:main"
# Two chunks of 200 prompts of 25, 225 and 425 tokens: 45,000 in a first step that holds 32,768.
# Were prompts ever prefilled in parts, a seeded request among them would end the engine.
CONFIG = {
    "engine": "vllm",
    "dtype": "float32",
    "samples": 2,
    "temperatures": [1.0, 0.0],  # a prompt's first, uncached sample is the seeded one
    "max_tokens": 24,
    "chunk_samples": 400,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_write(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prompts_write(tmp_path_factory.mktemp("inputs") / "prompts", 400, words=40)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with forks_open() as found:
        yield found


def _records(run: Path) -> list[CandidateRecord]:
    return list(records_read(run / "outputs/candidates/candidates.jsonl", CandidateRecord))


@pytest.fixture(scope="module")
def sampled(
    tiny: Path, prompts: Path, forks: Forks, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("runs") / "vllm"
    run_write(run, "generate", CONFIG, prompts=prompts, model=tiny)
    forks.finish(PROGRAM, run)
    return run


def test_seeded_requests_with_more_prompt_than_a_step_holds_are_all_answered(sampled):
    records = _records(sampled)
    assert len(records) == 800
    assert {record.engine for record in records} == {"vllm"}
    result = json.loads((sampled / "result.json").read_text())["result"]
    assert result["engine"] == "vllm" and result["engine_version"].startswith("0.")
    assert len({record.text for record in records if record.index == 0}) > 300
    for record in records:
        # An answer may end itself with the last token it is allowed.
        assert record.finish_reason == "stop" or record.token_count == 24


def test_both_engines_agree_on_greedy_answers_and_their_log_probability(
    sampled, tiny, prompts, forks, tmp_path
):
    config = {**CONFIG, "engine": "transformers"}
    run = run_write(tmp_path / "run", "generate", config, prompts=prompts, model=tiny)
    forks.finish(PROGRAM, run)
    pairs = [
        (one, other)
        for one, other in zip(_records(sampled), _records(run), strict=True)
        if one.temperature == 0
    ]
    same = [(one, other) for one, other in pairs if one.text == other.text]
    # Where two tokens are all but equally likely, rounding decides.
    assert len(same) >= 0.95 * len(pairs)
    for one, other in same:
        assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=1e-3)
        assert (one.token_count, one.finish_reason) == (other.token_count, other.finish_reason)


def test_a_killed_run_leaves_no_process_and_ends_as_one_never_interrupted(
    sampled, tiny, prompts, forks, tmp_path
):
    run = run_write(tmp_path / "run", "generate", CONFIG, prompts=prompts, model=tiny)
    process = forks.start(PROGRAM, run)
    first = run / "checkpoints" / "parts" / "part-00000.jsonl"
    deadline = time.monotonic() + 400
    while not first.exists():
        assert session_members(process), (run / "log.txt").read_text()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    assert forks.wait(process) == -signal.SIGKILL
    assert session_members(process) == []
    assert not (run / "result.json").exists()
    forks.finish(PROGRAM, run)
    assert "resuming: 400 of 800" in (run / "log.txt").read_text()
    name = "outputs/candidates/candidates.jsonl"
    assert (run / name).read_bytes() == (sampled / name).read_bytes()


def test_a_lora_adapter_is_served_on_its_base_as_transformers_serves_it(tmp_path, tiny, forks):
    """Trained until its answer is not the base's, then greedy, by both engines."""
    from alignment.ml import sft
    from modelhub.ml.manifest import manifest_write
    from modelhub.ml.rundir import RunDir
    from tests.alignment.ml.test_sft import demonstration, sft_run

    manifest_write(tiny)
    prompts = prompts_write(tmp_path / "prompts", 3)
    asked = [json.loads(line) for line in (prompts / "prompts.jsonl").read_text().splitlines()]
    trained = sft_run(
        tmp_path / "sft",
        tiny,
        [
            demonstration(one["prompt_id"], "so it is", question=one["messages"][0]["content"])
            for one in asked
        ],
        adapter="lora",
        lora_rank=6,  # the engine makes room for 8
        publish="adapter",
        epochs=60,
        lr=1e-2,
    )
    sft.main(RunDir(trained))
    adapter = trained / "outputs" / "adapter"
    config = {**CONFIG, "samples": 1, "temperatures": [0.0], "max_tokens": 8}
    found = {}
    for engine in ("vllm", "transformers"):
        run = run_write(
            tmp_path / engine,
            "generate",
            {**config, "engine": engine},
            prompts=prompts,
            model=adapter,
            model_base=tiny,
        )
        forks.finish(PROGRAM, run)
        found[engine] = _records(run)
    assert [one.text for one in found["vllm"]] == ["so it is"] * 3
    for one, other in zip(found["vllm"], found["transformers"], strict=True):
        assert one.text == other.text
        assert one.mean_logprob == pytest.approx(other.mean_logprob, abs=1e-3)
