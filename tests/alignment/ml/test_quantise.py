"""Quantisation: the integers are the nearest ones, served as written, and refused for training."""

import itertools
import json
from dataclasses import asdict

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")
pytest.importorskip("compressed_tensors", reason="the ml extra is not installed")

from alignment.ml import choices, quantise, sft
from alignment.ml.checkers import ReferenceRecord
from alignment.ml.configs import QuantiseConfig
from alignment.ml.data import rankings_load
from alignment.ml.shared_prefix import attach
from annotation.records import RankedCandidate
from annotation.splits import SHARES, group_hash, split_of
from modelhub.ml import generate
from modelhub.ml.chat import answer_encode, prompt_render
from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.quantisation import quantisation_known, quantisation_settings
from modelhub.ml.quantised_model import (
    model_quantise,
    quantised_load,
    quantised_save,
    scales_search,
)
from modelhub.ml.records import PromptRecord, lines_read, records_write
from modelhub.ml.rundir import RunDir
from modelhub.ml.safetensors_file import ModelDirectoryError
from tests.alignment.ml.programs import (
    messages,
    prompts_write,
    result_of,
    run_make,
    tiny_reward_write,
)
from tests.alignment.ml.test_sft_watch import chat_rows
from tests.tiny_model import tiny_model_write

pytestmark = pytest.mark.ml


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_write(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def quantised(tmp_path_factory, base):
    """The tiny model in both schemes."""
    found = {}
    for scheme, group_size in (("w8a8", 0), ("w4a16", 32)):
        folder = tmp_path_factory.mktemp(scheme) / "model"
        model = model_load(base, dtype="bfloat16")
        assert model_quantise(model, scheme=scheme, group_size=group_size) == 14
        quantised_save(model, tokenizer_load(base), folder, scheme=scheme, group_size=group_size)
        found[scheme] = folder
    return found


def demonstrations_write(folder, rows):
    folder.mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "demonstrations.jsonl").write_text(text)
    return folder


# ── the integers ─────────────────────────────────────────────────────────────────────────────────


def test_a_scale_by_hand():
    """Weights that are 4-bit integers times 0.5 keep them all; the widest scale would not."""
    weight_OI = 0.5 * torch.tensor([[-8.0, -3.0, 0.0, 7.0], [0.0, 0.0, 0.0, 0.0]])
    scale_OG = scales_search(weight_OI, bits=4, group_size=0)
    # The widest scale is 4 / 7.5; of the searched ones 0.94 of it is nearest to 0.5.
    assert scale_OG[0].item() == pytest.approx(0.94 * 4 / 7.5)
    assert scale_OG[1].item() > 0


@pytest.mark.parametrize(("bits", "group_size"), [(8, 0), (4, 32)])
def test_the_searched_scale_is_never_worse_than_the_widest(bits, group_size):
    weight_OI = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))

    def error(scale_OG):
        groups = weight_OI.unflatten(-1, (-1, group_size or 64))
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        scale = scale_OG[..., None]
        return (groups - (groups / scale).round().clamp(low, high) * scale).square().sum(-1)

    groups = weight_OI.unflatten(-1, (-1, group_size or 64))
    widest = groups.abs().amax(-1) / ((2**bits - 1) / 2)
    found = error(scales_search(weight_OI, bits=bits, group_size=group_size))
    assert (found <= error(widest) + 1e-6).all()
    assert bits == 8 or found.sum() < 0.95 * error(widest).sum()


def test_the_files_hold_the_nearest_integers(base, quantised):
    """Loaded again, a weight is within half a step of what it was, or at the range's end."""
    plain = model_load(base, dtype="float32").state_dict()
    served = quantised_load(quantised["w4a16"], dtype="float32").state_dict()
    name = "model.layers.0.mlp.up_proj.weight"
    steps = served["model.layers.0.mlp.up_proj.weight_scale"].float().repeat_interleave(32, dim=1)
    distance = (served[name] - plain[name]).abs()
    inside = served[name].abs() < 6.5 * steps
    assert (distance[inside] <= 0.51 * steps[inside] + 2e-3).all()  # written in bfloat16
    assert inside.float().mean() > 0.8
    assert len((served[name] / steps).round().unique()) <= 16
    kept = "model.embed_tokens.weight"
    assert torch.equal(served[kept], plain[kept].bfloat16().float())


@pytest.mark.parametrize("scheme", ["w8a8", "w4a16"])
def test_what_is_written_is_what_was_computed(base, quantised, scheme):
    """The model loaded from the files has the logits of the one that was quantised in memory."""
    ids = torch.arange(5, 40)[None]
    model = model_load(base, dtype="bfloat16")
    model_quantise(model, scheme=scheme, group_size=32 if scheme == "w4a16" else 0)
    with torch.no_grad():
        expected = model(ids).logits.float()
        found = quantised_load(quantised[scheme], dtype="bfloat16")(ids).logits.float()
        plain = model_load(base, dtype="bfloat16")(ids).logits.float()
    assert torch.allclose(found, expected, atol=0.05 * expected.std().item())
    assert not torch.allclose(found, plain, atol=1e-3)


# ── what takes it, and what does not ─────────────────────────────────────────────────────────────


def test_its_directory_is_known_where_it_is_asked_for(base, quantised):
    whole = model_directory_check(base)
    for scheme, name in (("w8a8", "w8a8"), ("w4a16", "w4a16 g32")):
        facts = model_directory_check(quantised[scheme], quantised=True)
        assert (facts.quantisation, facts.parameters) == (name, whole.parameters)
        assert facts.dtype == "bfloat16"
        with pytest.raises(ModelDirectoryError, match="quantised weights are not taken here"):
            model_directory_check(quantised[scheme])
    assert whole.quantisation == ""


def test_only_settings_that_are_written_here_are_taken(tmp_path, quantised):
    assert quantisation_known(quantisation_settings("w4a16", 64)) == ("w4a16", 64)
    settings = quantisation_settings("w4a16", 64)
    settings["transform_config"] = {"module": "os"}
    assert quantisation_known(settings) is None
    for file in quantised["w4a16"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"]["ignore"] = []
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelDirectoryError, match="not one of the ways"):
        model_directory_check(tmp_path, quantised=True)


def test_a_quantised_model_is_not_trained_from(tmp_path, quantised):
    rows = demonstrations_write(tmp_path / "rows", chat_rows(5))
    inputs = {"base": quantised["w4a16"], "demonstrations": rows}
    run = run_make(tmp_path / "run", "sft", inputs, {"epochs": 1})
    with pytest.raises(RefusedError, match="quantised weights are not taken here"):
        sft.main(RunDir(run))


@pytest.mark.parametrize("scheme", ["w8a8", "w4a16"])
def test_it_is_sampled_from(tmp_path, quantised, scheme):
    inputs = {"model": quantised[scheme], "prompts": prompts_write(tmp_path / "prompts", ["a"])}
    config = {"engine": "transformers", "samples": 2, "max_tokens": 8, "max_context_tokens": 128}
    run = run_make(tmp_path / "run", "generate", inputs, config)
    generate.main(RunDir(run))
    lines = lines_read(run / "outputs" / "candidates" / "candidates.jsonl")
    assert [one["token_count"] > 0 for _, one in lines] == [True, True]


# ── the run ──────────────────────────────────────────────────────────────────────────────────────


def rankings_write(folder, count):
    """Held-out choices of the words that every demonstration says over others."""
    folder.mkdir(parents=True)
    rows = [
        {
            "id": f"r{number}",
            "prompt_id": f"q{number}",
            "messages": [{"role": "user", "content": f"Say {number}"}],
            "split": "held_out",
            "tags": [],
            "batch": None,
            "candidates": [
                asdict(
                    RankedCandidate(
                        id=f"{number}{which}",
                        text=text,
                        model_version=None,
                        token_count=len(text) + 1,
                        finish_reason="stop",
                    )
                )
                for which, text in (("a", "the same word"), ("b", f"zq {number} !"))
            ],
            "tiers": [[f"{number}a"], [f"{number}b"]],
            "unacceptable": [],
            "annotator": "alice",
            "is_simulated": False,
            "shown_order": [],
            "active_s": 1.0,
            "rationale": "",
            "guideline": None,
        }
        for number in range(count)
    ]
    (folder / "rankings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_its_judgement_is_tested_on_choices_that_people_made(tmp_path, base):
    """Against each answer's likelihood a token, one at a time."""
    inputs = {
        "base": base,
        "demonstrations": demonstrations_write(tmp_path / "rows", chat_rows(25)),
        "rankings": rankings_write(tmp_path / "rankings", 12),
    }
    run = run_make(tmp_path / "run", "quantise", inputs, {"scheme": "w8a8"})
    quantise.main(RunDir(run))
    row = result_of(run)["beside_parent"][2]
    assert row["figure"] == "preference accuracy"
    model, tokenizer = model_load(base, dtype="float32"), tokenizer_load(base)
    right = 0
    for number in range(12):
        prompt_T = prompt_render(tokenizer, [{"role": "user", "content": f"Say {number}"}])
        means = []
        for text in ("the same word", f"zq {number} !"):
            answer_T = answer_encode(tokenizer, text, "stop")
            ids = torch.tensor([prompt_T + answer_T])
            with torch.no_grad():
                logs_TV = model(ids).logits[0, len(prompt_T) - 1 : -1].log_softmax(-1)
            means.append(logs_TV.gather(-1, torch.tensor(answer_T)[:, None]).mean())
        right += bool(means[0] > means[1])
    assert row["parent"] == pytest.approx(right / 12)


def test_several_tasks_of_one_prompt_are_one_prompt_to_the_interval(tmp_path, base):
    """What is drawn again for the interval is independent: a prompt with all its choices."""
    tokenizer, model = tokenizer_load(base), model_load(base, dtype="float32")
    attach(model)
    file = rankings_write(tmp_path / "rankings", 3) / "rankings.jsonl"
    rows = [value for _, value in lines_read(file)]
    rows[1] |= {"prompt_id": rows[0]["prompt_id"], "messages": rows[0]["messages"]}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = rankings_load(file, tokenizer, max_tokens=512).groups
    assert len(groups) == 3
    alone = [choices.preferences_right(model, [group], 4096) for group in groups]
    summed = (alone[0][0][0] + alone[1][0][0], 2.0)
    assert choices.preferences_right(model, groups, 4096) == [summed, alone[2][0]]


def questions_write(folder, count):
    """Questions of an unseen split, each with a number of its own for an answer."""
    (folder / "prompts").mkdir(parents=True)
    (folder / "references").mkdir()
    texts = (f"How many are {number}?" for number in range(1000))
    unseen = (one for one in texts if split_of(group_hash(messages(one))) != "train")
    texts = list(itertools.islice(unseen, count))
    records_write(
        folder / "prompts" / "prompts.jsonl",
        [PromptRecord(prompt_id=f"q{n}", messages=messages(one)) for n, one in enumerate(texts)],
    )
    records_write(
        folder / "references" / "references.jsonl",
        [ReferenceRecord(prompt_id=f"q{n}", answer=str(11 * n)) for n in range(count)],
    )
    return {"evaluation_prompts": folder / "prompts", "references": folder / "references"}


def test_accuracy_on_questions_stands_beside_the_parents(tmp_path, base, quantised):
    """Of the weights that were written, with an interval over questions."""
    questions = questions_write(tmp_path / "questions", 9)
    inputs = {
        "base": base,
        "demonstrations": demonstrations_write(tmp_path / "rows", chat_rows(25)),
        **questions,
    }
    run = run_make(tmp_path / "run", "quantise", inputs, {"scheme": "w4a16", "options": 3})
    quantise.main(RunDir(run))
    result = result_of(run)
    row = {one["figure"]: one for one in result["beside_parent"]}["answer accuracy"]
    assert result["questions"] == 9
    laid = choices.questions_lay(
        questions["evaluation_prompts"],
        questions["references"],
        tokenizer_load(base),
        options=3,
        max_tokens=512,
        at_most=99,
        shares=SHARES,
    )
    right = {}
    for name, model in (
        ("parent", model_load(base, dtype="float32")),
        ("own", quantised_load(quantised["w4a16"], dtype="float32")),
    ):
        attach(model)
        right[name] = choices.questions_right(model, laid.groups, 4096)
        assert row[name] == pytest.approx(sum(right[name]) / 9)
    assert row["difference"] == pytest.approx(row["own"] - row["parent"])
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]


@pytest.mark.parametrize("role", ["evaluation_prompts", "references"])
def test_questions_without_answers_or_answers_without_questions_are_refused(tmp_path, base, role):
    inputs = {
        "base": base,
        "demonstrations": demonstrations_write(tmp_path / "rows", chat_rows(25)),
        role: questions_write(tmp_path / "questions", 9)[role],
    }
    run = run_make(tmp_path / "run", "quantise", inputs, {})
    with pytest.raises(RefusedError, match="evaluation_prompts and references together"):
        quantise.main(RunDir(run))
    assert list((run / "outputs").iterdir()) == []


@pytest.mark.parametrize("config", [{"scheme": "w8a8"}, {"scheme": "w4a16", "group_size": 64}])
def test_a_run_says_what_was_lost_beside_the_parent(tmp_path, base, config):
    rows = demonstrations_write(tmp_path / "rows", chat_rows(25))
    inputs = {"base": base, "demonstrations": rows}
    run = run_make(tmp_path / "run", "quantise", inputs, {**config, "bootstrap_samples": 100})
    quantise.main(RunDir(run))
    result = result_of(run)
    table = {row["figure"]: row for row in result["beside_parent"]}
    assert set(table) == {"perplexity", "token accuracy"}
    perplexity = table["perplexity"]
    assert perplexity["own"] != perplexity["parent"]
    assert perplexity["difference"] == pytest.approx(perplexity["own"] - perplexity["parent"])
    assert perplexity["difference_low"] <= perplexity["difference_high"]
    assert result["divergence"] > 0
    assert result["conversations"] == 10  # the held-out and validation ones; train is not heard
    assert result["weights_bytes"] < result["parent_weights_bytes"]
    assert result["quantisation"] == ("w8a8" if config["scheme"] == "w8a8" else "w4a16 g64")


def test_four_bits_lose_more_than_eight(tmp_path, base):
    found = {}
    for scheme in ("w8a8", "w4a16"):
        rows = demonstrations_write(tmp_path / scheme / "rows", chat_rows(25))
        inputs = {"base": base, "demonstrations": rows}
        run = run_make(tmp_path / scheme / "run", "quantise", inputs, {"scheme": scheme})
        quantise.main(RunDir(run))
        found[scheme] = result_of(run)["divergence"]
    assert 0 < 4 * found["w8a8"] < found["w4a16"]


def test_text_that_was_learnt_from_or_a_reward_model_is_refused(tmp_path, base):
    train = [row for row in chat_rows(25) if row["split"] == "train"]
    rows = demonstrations_write(tmp_path / "rows", train)
    run = run_make(tmp_path / "run", "quantise", {"base": base, "demonstrations": rows}, {})
    with pytest.raises(RefusedError, match="none of 15 demonstrations is of the held-out"):
        quantise.main(RunDir(run))
    reward = tiny_reward_write(tmp_path / "reward", base)
    run = run_make(tmp_path / "other", "quantise", {"base": reward, "demonstrations": rows}, {})
    with pytest.raises(RefusedError, match="only policies are quantised"):
        quantise.main(RunDir(run))


def test_a_group_that_does_not_fit_is_refused_and_the_layer_named(base):
    with pytest.raises(RefusedError, match=r"q_proj has 64 inputs.*group size 128.*or w8a8"):
        model_quantise(model_load(base, dtype="bfloat16"), scheme="w4a16", group_size=128)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"scheme": "int4"}, "scheme: wanted w8a8 or w4a16"),
        ({"options": 1}, "options: wanted 2 to 16"),
        ({"group_size": 48}, "group_size: wanted 32, 64 or 128"),
        ({"scheme": "w8a8", "group_size": 64}, "w8a8 has a scale a row"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values, reason):
    with pytest.raises(ConfigError, match=reason):
        QuantiseConfig(**values)
