"""The playground's program: each strategy against its definition or transformers' own, and kills.

The reference for greedy and beam search is `model.generate`; sampling is held against the shaped
distribution worked out by hand, contrastive search against a loop without a cache.
"""

import json
import time
from pathlib import Path

import pytest

from modelhub.ml.configs import ConfigError
from modelhub.ml.trials import PlaygroundConfig, Strategy
from tests.modelhub.ml.ranks import program_finish, program_start
from tests.modelhub.ml.runs import run_write

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.ml

from modelhub.ml.adapter import ModelInput
from modelhub.ml.checkpoint import model_load
from modelhub.ml.playground import main, prompt_lay
from modelhub.ml.writer import Token, Writer, logits_shaper
from tests.alignment.ml.programs import result_of
from tests.tiny_model import tiny_model_write, tiny_tokenizer

GREEDY = {"kind": "greedy"}


def config_of(*strategies: dict, **settings) -> PlaygroundConfig:
    given = {"prompt": "One two", "layout": "plain", "max_tokens": 12, **settings}
    return PlaygroundConfig(models=("tiny v1",), strategies=strategies or (GREEDY,), **given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tiny_model_write(tmp_path_factory.mktemp("tiny"))


def answer_of(folder: Path, strategy: dict, **settings) -> list[Token]:
    config = config_of(strategy, **settings)
    tokenizer = tiny_tokenizer()
    writer = Writer(ModelInput(folder), tokenizer, config)
    read = writer.prompt_read(prompt_lay(tokenizer, config)[1])
    *_, last = writer.write(read, config.decodings[0])
    return last


def generated(folder: Path, **settings) -> list[int]:
    model = model_load(folder, dtype="float32")
    ids = torch.tensor([tiny_tokenizer()("One two")["input_ids"]])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=[2],
        pad_token_id=2,
        **settings,
    )
    return out[0, ids.shape[1] :].tolist()


def test_greedy_takes_what_transformers_takes(folder) -> None:
    found = answer_of(folder, GREEDY)
    assert [one.id for one in found] == generated(folder)
    assert all(one.others[0][0] == one.id and one.q >= one.p for one in found)


def test_a_repetition_penalty_is_that_of_transformers(folder) -> None:
    found = [one.id for one in answer_of(folder, {**GREEDY, "repetition_penalty": 1.5})]
    assert found == generated(folder, repetition_penalty=1.5)
    assert found != generated(folder)


@pytest.mark.parametrize(("beams", "power"), [(2, 1.0), (4, 1.0), (4, 0.0), (5, 2.0)])
def test_beam_search_finds_what_transformers_finds(folder, beams, power) -> None:
    strategy = {"kind": "beam", "beams": beams, "length_penalty": power}
    found = [one.id for one in answer_of(folder, strategy)]
    assert found == generated(folder, num_beams=beams, length_penalty=power)


def test_beams_that_end_early_end_where_transformers_ends_them(folder) -> None:
    """With an ending token that beams meet on their way: some end, others go on."""
    config = config_of({"kind": "beam", "beams": 3})
    tokenizer = tiny_tokenizer()
    writer = Writer(ModelInput(folder), tokenizer, config)
    read = writer.prompt_read(prompt_lay(tokenizer, config)[1])
    model = model_load(folder, dtype="float32")
    ids = torch.tensor([read.tokens])
    settings = {"max_new_tokens": 12, "num_beams": 3, "pad_token_id": 2, "do_sample": False}
    ended = 0
    for met in generated(folder, num_beams=3)[:8]:
        writer._stop_ids = {met}
        *_, last = writer.write(read, config.decodings[0])
        mask = torch.ones_like(ids)
        out = model.generate(ids, attention_mask=mask, eos_token_id=met, **settings)
        expected = out[0, ids.shape[1] :].tolist()
        if met in expected:
            ended += 1
            expected = expected[: expected.index(met) + 1]
        assert [one.id for one in last] == expected
    assert ended >= 2


def test_contrastive_search_is_its_equation_worked_without_a_cache(folder) -> None:
    found = [one.id for one in answer_of(folder, {"kind": "contrastive", "top_k": 3, "alpha": 0.6})]
    model = model_load(folder, dtype="float32")
    ids = tiny_tokenizer()("One two")["input_ids"]
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + len(found):
            p, candidates = model(torch.tensor([ids])).logits[0, -1].softmax(-1).topk(3)
            scores = []
            for probability, token in zip(p.tolist(), candidates.tolist(), strict=True):
                out = model(torch.tensor([[*ids, token]]), output_hidden_states=True)
                *before, own = out.hidden_states[-1][0]
                likeness = max(float(torch.cosine_similarity(own, one, dim=0)) for one in before)
                scores.append(0.4 * probability - 0.6 * likeness)
            ids.append(int(candidates[scores.index(max(scores))]))
    assert found == ids[start:]


def test_shaping_by_hand() -> None:
    """Probabilities 0.5, 0.25, 0.15, 0.1: what each knob leaves of them."""
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()

    def left(**knobs) -> list[float]:
        shaped = logits_shaper(Strategy(kind="sample", **knobs))(torch.tensor([[3]]), logits)
        return [round(one, 4) for one in shaped.softmax(-1)[0].tolist()]

    assert left() == [0.5, 0.25, 0.15, 0.1]
    assert left(top_k=2) == [0.6667, 0.3333, 0, 0]
    assert left(top_p=0.7) == [0.6667, 0.3333, 0, 0]
    assert left(min_p=0.29) == [0.5556, 0.2778, 0.1667, 0]  # 0.29 × 0.5 is more than 0.1
    # p² over its sum, 0.345.
    assert left(temperature=0.5) == [0.7246, 0.1812, 0.0652, 0.029]
    # Token 3 has been seen: its logit, ln 0.1, is doubled: 0.01 beside 0.9.
    assert left(repetition_penalty=2.0) == [0.5495, 0.2747, 0.1648, 0.011]


def test_a_seed_gives_the_same_words_again_and_another_gives_others(folder) -> None:
    strategy = {"kind": "sample", "top_p": 0.95}
    words = [[one.id for one in answer_of(folder, strategy, seed=s)] for s in (1, 1, 2)]
    assert words[0] == words[1] != words[2]


def test_an_answer_ends_before_the_next_question_of_the_examples(folder) -> None:
    config = config_of(prompt="Who?", layout="few_shot", few_shot="questions")
    tokenizer = tiny_tokenizer()
    text, tokens = prompt_lay(tokenizer, config)
    assert text.endswith("Q: Who?\nA:")
    writer = Writer(ModelInput(folder), tokenizer, config)
    read = writer.prompt_read(tokens)
    ids = tokenizer(" Me\nQ")["input_ids"]
    written = [Token(one, 0.5, 0.5, []) for one in ids]
    cell = writer.cell(read, written)
    assert (cell["text"], cell["finish_reason"]) == (" Me", "stop")
    assert [row["is_over"] for row in cell["tokens"]] == [False, False, False, True, True]
    assert writer.finish_reason(written[:3]) == ""


def test_a_character_of_several_tokens_stands_with_its_last(folder) -> None:
    config = config_of()
    tokenizer = tiny_tokenizer()
    writer = Writer(ModelInput(folder), tokenizer, config)
    read = writer.prompt_read(prompt_lay(tokenizer, config)[1])
    written = [Token(one, 0.5, 0.5, []) for one in tokenizer("a春b")["input_ids"]]
    assert writer.pieces(read, written) == ["a", "", "", "春", "b"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"prompt": " "}, "playground.prompt"),
        ({"layout": "poem"}, "playground.layout"),
        ({"max_tokens": 0}, "playground.max_tokens"),
        ({"strategies": ({"kind": "magic"},)}, "strategy.kind"),
        ({"strategies": ({"kind": "sample", "top_p": 0.0},)}, "strategy.top_p"),
        ({"strategies": ({"kind": "sample", "heat": 1},)}, "unknown setting heat"),
        ({"strategies": ({"kind": "contrastive"},)}, "strategy.top_k"),
    ],
)
def test_what_cannot_be_is_refused_by_name(change, named) -> None:
    with pytest.raises(ConfigError, match=named):
        PlaygroundConfig(**{"prompt": "x", "models": ("m",), "strategies": (GREEDY,), **change})


def test_a_killed_trial_goes_on_to_the_same_words(folder, tmp_path) -> None:
    strategies = [GREEDY, {"kind": "sample"}, {"kind": "beam"}, {"kind": "sample", "top_k": 5}]
    settings = {
        "prompt": "One two",
        "layout": "chat",
        "models": ["tiny v1", "tiny again"],
        "strategies": strategies,
        "max_tokens": 100,
    }
    inputs = {"model_0": folder, "model_1": folder}
    uncut = run_write(tmp_path / "whole", "playground", settings, **inputs)
    program_finish(main, uncut)
    whole = result_of(uncut)
    run = run_write(tmp_path / "killed", "playground", settings, **inputs)
    process = program_start(main, run)
    trial = run / "trial.json"
    deadline = time.monotonic() + 120
    while not (trial.exists() and len(json.loads(trial.read_text())["cells"]) >= 2):
        assert time.monotonic() < deadline and process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    program_finish(main, run)
    again = result_of(run)
    assert "answers are there already" in (run / "log.txt").read_text()
    assert [one["tokens"] for one in again["cells"]] == [one["tokens"] for one in whole["cells"]]
    assert len(whole["cells"]) == 8
    assert whole["models"][0]["prompt_tokens"] == whole["models"][1]["prompt_tokens"]
    # The two models are one: what differs between the columns would be the program's doing.
    half = [one["tokens"] for one in whole["cells"][:4]]
    assert half == [one["tokens"] for one in whole["cells"][4:]]
