"""The sampling program: what it plans, refuses, and keeps when it is killed."""

import json
import time
from pathlib import Path

import pytest

from modelhub.ml.configs import GenerateConfig, RefusedError
from modelhub.ml.engines import engine_choose
from modelhub.ml.generate import (
    PromptsError,
    chunks_cut,
    main,
    prompts_read,
    sample_seed,
    samples_plan,
)
from modelhub.ml.records import CandidateRecord, PromptRecord, records_read
from tests.modelhub.ml.ranks import program_finish, program_start
from tests.modelhub.ml.runs import prompts_write, run_write


def _prompts(count: int) -> list[PromptRecord]:
    return [
        PromptRecord(prompt_id=f"p{number}", messages=[{"role": "user", "content": "word"}])
        for number in range(count)
    ]


def test_the_ladder_of_temperatures_is_climbed_by_index():
    config = GenerateConfig(samples=5, temperatures=(0.2, 0.7, 1.0))
    plan = samples_plan(_prompts(2), config, [(1,), (2,)])
    assert [one.temperature for one in plan[:5]] == [0.2, 0.7, 1.0, 0.2, 0.7]
    assert [(one.prompt_id, one.index) for one in plan[4:6]] == [("p0", 4), ("p1", 0)]
    assert plan[5].prompt_tokens == (2,)


def test_a_seed_hangs_on_run_seed_prompt_and_index_alone():
    # The sha256 of [0,"p1",2] begins with 188a9693.
    assert sample_seed(0, "p1", 2) == 0x188A9693
    seeds = {sample_seed(s, p, i) for s in (0, 1) for p in ("p1", "p2") for i in range(50)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("samples", "chunk_samples", "sizes"),
    [(4, 12, [12, 12, 4]), (4, 10, [8, 8, 8, 4]), (4, 1, [4] * 7), (1, 100, [7])],
)
def test_chunks_hold_whole_prompts(samples, chunk_samples, sizes):
    config = GenerateConfig(samples=samples, chunk_samples=chunk_samples)
    chunks = chunks_cut(samples_plan(_prompts(7), config, [()] * 7), config)
    assert [len(chunk) for chunk in chunks] == sizes


def test_auto_takes_vllm_where_it_is_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert engine_choose("auto") == "vllm"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert engine_choose("auto") == "transformers"
    assert engine_choose("openai") == "openai"


def test_every_bad_prompt_is_named(tmp_path):
    good = {"prompt_id": "a", "messages": [{"role": "user", "content": "Hi"}]}
    lines = [
        json.dumps(good),
        '{"prompt_id": "b", "messages": [}',
        json.dumps({**good, "prompt_id": ""}),
        json.dumps({"prompt_id": "c", "messages": []}),
        json.dumps({"prompt_id": "d", "messages": [{"role": "wizard", "content": "Hi"}]}),
        json.dumps({"prompt_id": "e", "messages": [{"role": "user", "content": " "}]}),
        json.dumps({"prompt_id": "f", "messages": [{"role": "assistant", "content": "Hi"}]}),
        json.dumps({"prompt_id": "g", "messages": [{"role": "user"}]}),
        json.dumps({**good, "tags": []}),
        json.dumps({"prompt_id": "h"}),
        json.dumps(good),
        "",
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(PromptsError) as refused:
        prompts_read(path)
    said = str(refused.value).splitlines()
    assert [int(line.split()[2].rstrip(",:")) for line in said] == list(range(2, 12))
    for line, reason in zip(
        said,
        [
            "Expecting value",
            "field prompt_id: empty",
            "field messages: no message",
            "field messages[0].role: unknown role 'wizard'",
            "field messages[0].content: empty",
            "the last message is not a user's",
            "wanted role and content",
            "field tags: unknown field",
            "field messages: missing",
            "field prompt_id: already on line 1",
        ],
        strict=True,
    ):
        assert reason in line


def test_no_more_than_fifty_bad_prompts_are_listed(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("{}\n" * 120)
    with pytest.raises(PromptsError, match="… and 70 more"):
        prompts_read(path)


def test_a_file_without_prompts_is_refused(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n\n")
    with pytest.raises(PromptsError, match="holds no prompt"):
        prompts_read(path)


def test_a_line_ends_at_a_newline_alone(tmp_path):
    path = tmp_path / "prompts.jsonl"
    content = "a\u2028b\u0085c"
    value = {"prompt_id": "a", "messages": [{"role": "user", "content": content}]}
    path.write_text(json.dumps(value, ensure_ascii=False) + "\n", encoding="utf-8")
    assert prompts_read(path)[0].messages[0]["content"] == content


# With the program itself.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="the ml extra is not installed")
    from tests.tiny_model import tiny_model_write

    return tiny_model_write(tmp_path_factory.mktemp("tiny"))


def _main(run: Path) -> None:
    """The program's main in this process, for refusals that need no engine."""
    from modelhub.ml.rundir import RunDir

    main(RunDir(run))


@pytest.mark.ml
def test_prompts_that_are_too_long_are_named_before_the_model_is_loaded(
    tiny, tmp_path, monkeypatch
):
    from modelhub.ml import adapter

    monkeypatch.setattr(adapter, "model_load", None)
    prompts = prompts_write(tmp_path / "prompts", 9, words=40)
    config = {"engine": "transformers", "max_tokens": 60, "max_context_tokens": 300}
    run = run_write(tmp_path / "run", "generate", config, prompts=prompts, model=tiny)
    with pytest.raises(PromptsError) as refused:
        _main(run)
    # One token a byte: the frame of 19, "2 word" and 80 times " word".
    assert str(refused.value).splitlines() == [
        f"prompt p{number}: 425 tokens; with answers of 60 there is room for 240 of 300"
        for number in (2, 5, 8)
    ]


@pytest.mark.ml
def test_the_models_own_context_is_a_limit_too(tiny, tmp_path):
    prompts = prompts_write(tmp_path / "prompts", 3, words=40)
    config = {"engine": "transformers", "max_tokens": 100, "max_context_tokens": 100_000}
    run = run_write(tmp_path / "run", "generate", config, prompts=prompts, model=tiny)
    with pytest.raises(PromptsError, match="room for 412 of 512"):
        _main(run)


@pytest.mark.ml
def test_a_reward_model_writes_no_answers(tiny, tmp_path):
    from modelhub.ml.checkpoint import model_load, model_save, tokenizer_load

    model = model_load(tiny, dtype="float32", role="reward", new_head=True)
    model_save(model, tokenizer_load(tiny), tmp_path / "reward")
    prompts = prompts_write(tmp_path / "prompts", 1)
    run = run_write(
        tmp_path / "run", "generate", {"engine": "transformers"}, prompts=prompts,
        model=tmp_path / "reward",
    )  # fmt: skip
    with pytest.raises(RefusedError, match="scores answers, it writes none"):
        _main(run)


CONFIG = {
    "engine": "transformers",
    "dtype": "float32",
    "samples": 4,
    "temperatures": [0.7, 1.0],
    "max_tokens": 40,
    "chunk_samples": 32,
    "seed": 7,
}


@pytest.mark.ml
def test_a_run_writes_every_sample_of_every_prompt_in_order(tiny, tmp_path):
    prompts = prompts_write(tmp_path / "prompts", 20)
    run = run_write(tmp_path / "run", "generate", CONFIG, prompts=prompts, model=tiny)
    _main(run)
    result = json.loads((run / "result.json").read_text())["result"]
    records = list(
        records_read(run / "outputs" / "candidates" / "candidates.jsonl", CandidateRecord)
    )
    assert [(one.prompt_id, one.index) for one in records] == [
        (f"p{number}", index) for number in range(20) for index in range(4)
    ]
    assert {(one.index, one.temperature) for one in records} == {
        (0, 0.7), (1, 1.0), (2, 0.7), (3, 1.0)
    }  # fmt: skip
    assert {(one.engine, one.max_tokens, one.top_p, one.top_k) for one in records} == {
        ("transformers", 40, 1.0, 0)
    }
    assert all(one.finish_reason == "stop" or one.token_count == 40 for one in records)
    assert all(one.mean_logprob is not None and one.mean_logprob < 0 for one in records)
    assert len({one.seed for one in records}) == 80
    assert result["answers"] == 80 and result["prompts"] == 20
    assert result["tokens"] == sum(one.token_count for one in records)
    assert result["engine"] == "transformers" and result["engine_version"]
    assert result["tokens_per_s"] > 0 and result["load_s"] > 0
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [one["step"] for one in metrics] == [0, 1, 2]
    assert metrics[0]["values"].keys() == {
        "tokens_per_s", "mean_tokens", "finished_share", "mean_logprob"
    }  # fmt: skip
    progress = json.loads((run / "progress.json").read_text())
    assert progress == {"done": 80, "total": 80, "unit": "answers"}


@pytest.mark.ml
@pytest.mark.parametrize("harm", ["cut", "others", "foreign"])
def test_a_part_that_is_not_whole_is_drawn_again(tiny, tmp_path, harm, capsys):
    prompts = prompts_write(tmp_path / "prompts", 16)

    def run_new(name: str) -> Path:
        return run_write(tmp_path / name, "generate", CONFIG, prompts=prompts, model=tiny)

    straight = run_new("straight")
    _main(straight)
    expected = (straight / "outputs/candidates/candidates.jsonl").read_bytes()

    run = run_new("run")
    parts = run / "checkpoints" / "parts"
    parts.mkdir(parents=True)
    lines = expected.splitlines(keepends=True)
    part = b"".join(lines[:32])
    if harm == "cut":
        part = part[:-30]
    elif harm == "others":
        part = b"".join(lines[32:])
    else:
        part = part.replace(b'"transformers"', b'"vllm"')
    (parts / "part-00000.jsonl").write_bytes(part)
    (parts / "part-00000.json").write_text('{"seconds":1,"load_s":1,"version":"x"}')
    capsys.readouterr()
    _main(run)
    assert "drawn again" in capsys.readouterr().out
    assert (run / "outputs/candidates/candidates.jsonl").read_bytes() == expected


@pytest.mark.ml
@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_as_one_never_interrupted(tiny, tmp_path):
    """Case D32: 800 of 800, no duplicate, output equal."""
    prompts = prompts_write(tmp_path / "prompts", 200)
    straight = run_write(tmp_path / "straight", "generate", CONFIG, prompts=prompts, model=tiny)
    program_finish(main, straight)

    run = run_write(tmp_path / "run", "generate", CONFIG, prompts=prompts, model=tiny)
    parts = run / "checkpoints" / "parts"
    for kill in range(3):
        before = len(list(parts.glob("*.jsonl")))
        process = program_start(main, run)
        deadline = time.monotonic() + 400
        # Each time at another place of a chunk, some chunks later.
        while len(list(parts.glob("*.jsonl"))) < before + 3 + kill:
            assert process.is_alive(), (run / "log.txt").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(0.02 * kill)
        process.kill()
        process.join()
        assert not (run / "result.json").exists()
    program_finish(main, run)
    assert json.loads((run / "result.json").read_text())["result"]["answers"] == 800
    name = "outputs/candidates/candidates.jsonl"
    assert (run / name).read_bytes() == (straight / name).read_bytes()
    assert (run / "log.txt").read_text().count("resuming:") == 3
