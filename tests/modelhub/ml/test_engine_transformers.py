"""The transformers engine: exact, whatever is sampled beside a sample."""

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from transformers import AutoConfig, AutoModelForCausalLM

from modelhub.ml.chat import answer_decode
from modelhub.ml.checkpoint import model_load, model_save, tokenizer_load
from modelhub.ml.configs import GenerateConfig, RefusedError
from modelhub.ml.engines import Answer, Sample
from modelhub.ml.engines import transformers as engine_module
from modelhub.ml.engines.transformers import TransformersEngine, tokens_draw
from modelhub.ml.model_directory import ARCHITECTURES
from tests.tiny_model import tiny_model_write, tiny_tokenizer

pytestmark = pytest.mark.ml

STOP = (2,)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_write(tmp_path_factory.mktemp("tiny"))


def _engine(folder: Path, **settings) -> TransformersEngine:
    config = GenerateConfig(dtype="float32", **{"max_tokens": 24, **settings})
    return TransformersEngine(
        folder, config, tokenizer=tokenizer_load(folder), stop_ids=STOP, context_tokens=200
    )


def _samples(count: int, *, temperature: float = 1.0) -> list[Sample]:
    return [
        Sample(
            prompt_id=f"p{number // 2}",
            index=number % 2,
            messages=(),
            prompt_tokens=tuple(range(5 + number // 2, 12 + 3 * (number // 2))),
            seed=1000 + number,
            temperature=temperature,
        )
        for number in range(count)
    ]


def _alone(engine: TransformersEngine, samples: list[Sample]) -> list[Answer]:
    return [engine.generate([sample], lambda count: None)[0] for sample in samples]


def _same(one: Answer, other: Answer) -> bool:
    return replace(one, mean_logprob=None) == replace(other, mean_logprob=None) and (
        abs(one.mean_logprob - other.mean_logprob) < 1e-4
    )


@pytest.mark.parametrize("options", [{}, {"top_k": 5}, {"top_p": 0.6}], ids=str)
def test_a_sample_does_not_depend_on_what_is_sampled_beside_it(tiny, monkeypatch, options):
    monkeypatch.setattr(engine_module, "_MAX_ROWS", 3)  # rows end, refill, move and run dry
    engine = _engine(tiny, **options)
    samples = _samples(11)
    together = engine.generate(samples, lambda count: None)
    # Rounding differs with the batch: a draw within 1e-7 of a boundary may fall to its other side.
    assert sum(map(_same, together, _alone(engine, samples))) >= len(samples) - 1
    # Some end by themselves and some are cut, or the test shows nothing.
    assert len({len(answer.text) for answer in together}) > 3


def test_a_chunk_drawn_twice_is_equal(tiny):
    engine = _engine(tiny)
    samples = _samples(9)
    first = engine.generate(samples, lambda count: None)
    engine.generate(_samples(4, temperature=0.3), lambda count: None)
    assert engine.generate(samples, lambda count: None) == first


def test_greedy_answers_are_those_of_transformers_own_generate(tiny):
    engine = _engine(tiny)
    samples = _samples(6, temperature=0.0)
    model, tokenizer = model_load(tiny, dtype="float32"), tokenizer_load(tiny)
    for sample, answer in zip(samples, engine.generate(samples, lambda count: None), strict=True):
        prompt = torch.tensor([sample.prompt_tokens])
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=24,
            do_sample=False,
            eos_token_id=2,
        )
        written = out[0, prompt.shape[1] :].tolist()
        assert answer.token_count == len(written)
        assert answer.finish_reason == ("stop" if written[-1] == 2 else "length")
        # Its log-probability, from one forward of the whole text.
        logprobs = model(out).logits[0, :-1].log_softmax(-1)
        own = logprobs[range(prompt.shape[1] - 1, out.shape[1] - 1), written].mean().item()
        assert answer.mean_logprob == pytest.approx(own, abs=1e-4)
        assert answer.text == answer_decode(tokenizer, written)


def test_log_probability_is_the_models_own_whatever_the_temperature(tiny):
    # At temperature 5 nearly any token is drawn, but the model finds them unlikely.
    engine = _engine(tiny)
    hot, cold = (
        sum(answer.mean_logprob for answer in engine.generate(samples, lambda count: None))
        for samples in (_samples(8, temperature=5.0), _samples(8, temperature=0.0))
    )
    assert hot < 8 * -4 < cold


def test_an_answer_ends_at_the_stop_token_which_counts_but_is_not_text(tiny):
    engine = _engine(tiny, max_tokens=150)
    finished = [
        answer
        for answer in engine.generate(_samples(24), lambda count: None)
        if answer.finish_reason == "stop"
    ]
    assert finished
    assert all(answer.token_count < 150 and "<|im_end|>" not in answer.text for answer in finished)


@pytest.mark.parametrize("family", sorted(ARCHITECTURES))
def test_every_known_architecture_decodes_in_rows_as_it_does_alone(family, tmp_path, monkeypatch):
    small = {
        "vocab_size": 259,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "initializer_range": 0.2,
        "pad_token_id": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "sliding_window": None,
        "attention_dropout": 0.0,
    }
    if family == "gpt2":
        small |= {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
    if family == "bloom":
        small |= {"n_layer": 2, "n_head": 4}
    if family == "gpt_neox":
        small["num_key_value_heads"] = 4
    if family == "gemma3_text":
        small["sliding_window"] = 256
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **small)
    model_save(AutoModelForCausalLM.from_config(config), tiny_tokenizer(), tmp_path, "float32")
    model = model_load(tmp_path, dtype="float32")
    assert type(model).__name__ == ARCHITECTURES[family][0]
    monkeypatch.setattr(engine_module, "_MAX_ROWS", 3)
    samples = _samples(7)
    together = _engine(tmp_path).generate(samples, lambda count: None)
    same = 0
    for sample, answer in zip(samples, together, strict=True):
        generator = torch.Generator().manual_seed(sample.seed)
        uniforms = torch.rand(24, generator=generator)
        tokens = list(sample.prompt_tokens)
        for step in range(answer.token_count):
            logits = model(torch.tensor([tokens]), use_cache=False).logits[:, -1]
            drawn = tokens_draw(
                logits,
                temperatures_B=torch.ones(1),
                uniforms_B=uniforms[step : step + 1],
                top_k=0,
                top_p=1.0,
            )
            tokens.append(int(drawn))
        written = tokens[len(sample.prompt_tokens) :]
        same += answer.text == answer_decode(tiny_tokenizer(), written)
    assert same >= len(samples) - 1  # as above: a draw on a boundary


def test_a_model_that_looks_back_less_than_asked_is_refused(tmp_path):
    config = AutoConfig.for_model(
        "mistral",
        vocab_size=259,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        sliding_window=64,
    )
    model_save(AutoModelForCausalLM.from_config(config), tiny_tokenizer(), tmp_path)
    with pytest.raises(RefusedError, match="look back 64 tokens"):
        _engine(tmp_path)


def _draw(probabilities: list[float], u: float, *, temperature=1.0, top_k=0, top_p=1.0) -> int:
    return int(
        tokens_draw(
            torch.tensor([probabilities]).log(),
            temperatures_B=torch.tensor([temperature]),
            uniforms_B=torch.tensor([u]),
            top_k=top_k,
            top_p=top_p,
        )
    )


# Probabilities .5 .3 .2; cumulative .5 .8 1. Each row worked by hand.
@pytest.mark.parametrize(
    ("u", "options", "token"),
    [
        (0.0, {}, 0),
        (0.49, {}, 0),
        (0.51, {}, 1),
        (0.79, {}, 1),
        (0.81, {}, 2),
        (1 - 2**-24, {}, 2),
        (0.99, {"temperature": 0.0}, 0),
        # Squared and renormalised: .25 .09 .04 of .38, cumulative .658 .895 1.
        (0.65, {"temperature": 0.5}, 0),
        (0.67, {"temperature": 0.5}, 1),
        (0.90, {"temperature": 0.5}, 2),
        # The two likeliest: .625 and .375.
        (0.62, {"top_k": 2}, 0),
        (0.63, {"top_k": 2}, 1),
        (0.99, {"top_k": 2}, 1),
        (0.99, {"top_k": 1}, 0),
        (0.99, {"top_k": 7}, 2),
        # .5 does not reach .6, .5 + .3 does.
        (0.99, {"top_p": 0.6}, 1),
        (0.99, {"top_p": 0.45}, 0),
        (0.99, {"top_p": 0.9}, 2),
    ],
)
def test_a_draw_is_the_token_at_u_of_the_cumulative_distribution(u, options, token):
    assert _draw([0.5, 0.3, 0.2], u, **options) == token


def test_a_token_of_probability_zero_is_never_drawn():
    for u in (0.0, 0.5, 1 - 2**-24):
        assert _draw([0.0, 1.0, 0.0], u) == 1


def test_draws_follow_the_distribution():
    # 20,000 draws of p = .5 .3 .2: standard error of a share is at most .0036.
    uniforms = torch.rand(20_000, generator=torch.Generator().manual_seed(1))
    drawn = tokens_draw(
        torch.tensor([0.5, 0.3, 0.2]).log().expand(20_000, 3),
        temperatures_B=torch.ones(20_000),
        uniforms_B=uniforms,
        top_k=0,
        top_p=1.0,
    )
    shares = torch.bincount(drawn, minlength=3) / 20_000
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.015)
