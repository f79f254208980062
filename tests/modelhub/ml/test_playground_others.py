"""RWKV and T5 in the playground: each strategy against transformers' own, or worked without memory.

The references remember nothing: they read the whole text anew for every token.
"""

from pathlib import Path
from typing import Any

import pytest

from modelhub.ml.rundir import RunDir
from modelhub.ml.trials import PlaygroundConfig
from tests.modelhub.ml.runs import run_write

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.ml

from modelhub.ml.adapter import ModelInput
from modelhub.ml.checkpoint import model_load, model_save, tokenizer_load
from modelhub.ml.model_directory import ModelDirectoryError, model_directory_check
from modelhub.ml.playground import main, prompt_lay
from modelhub.ml.writer import Token, Writer
from tests.alignment.ml.programs import result_of
from tests.tiny_model import tiny_tokenizer

GREEDY = {"kind": "greedy"}
TOKENS = 10
PROMPT = "One two"


def tokenizer_with_sentinels() -> Any:
    tokenizer = tiny_tokenizer()
    names = [f"<extra_id_{number}>" for number in range(3)]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    return tokenizer


def lively_write(folder: Path, model: Any, tokenizer: Any) -> Path:
    """The model with larger weights: as transformers draws them, little depends on what is read."""
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.3)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=2.0)
    model_save(model, tokenizer, folder, dtype="float32")
    return folder


@pytest.fixture(scope="module")
def t5(tmp_path_factory) -> Path:
    tokenizer = tokenizer_with_sentinels()
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_ff=64,
        d_kv=16,
        num_layers=2,
        num_heads=2,
        n_positions=512,
        tie_word_embeddings=False,
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = transformers.T5ForConditionalGeneration(config)
    return lively_write(tmp_path_factory.mktemp("t5"), model, tokenizer)


@pytest.fixture(scope="module")
def rwkv(tmp_path_factory) -> Path:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    config = transformers.RwkvConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=64,
        context_length=512,
        rescale_every=0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=False,
    )
    model = transformers.RwkvForCausalLM(config)
    return lively_write(tmp_path_factory.mktemp("rwkv"), model, tokenizer)


def config_of(*strategies: dict, **settings) -> PlaygroundConfig:
    given = {"prompt": PROMPT, "layout": "plain", "max_tokens": TOKENS, **settings}
    return PlaygroundConfig(models=("tiny v1",), strategies=strategies, **given)


def answers_of(folder: Path, *strategies: dict, **settings) -> list[list[Token]]:
    """An answer in each strategy, all from one reading of the prompt."""
    config = config_of(*strategies, **settings)
    tokenizer = tokenizer_load(folder)
    writer = Writer(ModelInput(folder), tokenizer, config)
    writer._stop_ids = set()  # held against references of a length
    read = writer.prompt_read(prompt_lay(tokenizer, config)[1])
    return [list(writer.write(read, one))[-1] for one in config.decodings]


def ids(answer: list[Token]) -> list[int]:
    return [one.id for one in answer]


class Reference:
    """A model that is asked for the distribution behind a text, which it reads anew each time."""

    def __init__(self, folder: Path) -> None:
        self.model = model_load(folder, dtype="float32", any_writer=True)
        self.tokenizer = tokenizer_load(folder)
        prompt = self.tokenizer(PROMPT)["input_ids"]
        self.is_t5 = self.model.config.is_encoder_decoder
        if self.is_t5:
            sentinel = self.tokenizer.convert_tokens_to_ids("<extra_id_0>")
            self.source = torch.tensor([[*prompt, sentinel, self.tokenizer.eos_token_id]])
            self.begin = [self.tokenizer.pad_token_id, sentinel]
        else:
            self.begin = prompt

    @torch.no_grad()
    def ask(self, written: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """(probabilities of the next token, hidden states of the last layer)."""
        row = torch.tensor([[*self.begin, *written]])
        if self.is_t5:
            out = self.model(
                input_ids=self.source,
                decoder_input_ids=row,
                use_cache=False,
                output_hidden_states=True,
            )
            return out.logits[0, -1].softmax(-1), out.decoder_hidden_states[-1][0]
        out = self.model(input_ids=row, use_cache=False, output_hidden_states=True)
        return out.logits[0, -1].softmax(-1), out.hidden_states[-1][0]

    def greedy(self) -> list[int]:
        written: list[int] = []
        for _ in range(TOKENS):
            written.append(int(self.ask(written)[0].argmax()))
        return written

    def beams(self, count: int) -> list[int]:
        """The best of `count` beams, none of which ends."""
        alive: list[tuple[float, list[int]]] = [(0.0, [])]
        for _ in range(TOKENS):
            grown = [
                (score + float(p.log()), [*written, token])
                for score, written in alive
                for token, p in enumerate(self.ask(written)[0])
            ]
            alive = sorted(grown, key=lambda one: -one[0])[:count]
        return alive[0][1]

    def contrastive(self, count: int, alpha: float) -> list[int]:
        written: list[int] = []
        while len(written) < TOKENS:
            p, candidates = self.ask(written)[0].topk(count)
            scores = []
            for probability, token in zip(p.tolist(), candidates.tolist(), strict=True):
                *before, own = self.ask([*written, token])[1]
                likeness = max(float(torch.cosine_similarity(own, one, dim=0)) for one in before)
                scores.append((1 - alpha) * probability - alpha * likeness)
            written.append(int(candidates[scores.index(max(scores))]))
        return written


@pytest.fixture(params=["t5", "rwkv"])
def folder(request) -> Path:
    return request.getfixturevalue(request.param)


def test_searches_find_what_they_find_without_memory(folder) -> None:
    """All from one reading: what one strategy remembers is nothing to the next."""
    reference = Reference(folder)
    greedy, beam, contrastive, again = answers_of(
        folder,
        GREEDY,
        {"kind": "beam", "beams": 3},
        {"kind": "contrastive", "top_k": 3, "alpha": 0.6},
        GREEDY,
    )
    assert ids(greedy) == ids(again) == reference.greedy()
    assert ids(beam) == reference.beams(3)
    assert ids(contrastive) == reference.contrastive(3, 0.6)


def test_each_token_has_the_probability_that_the_model_gave_it(folder) -> None:
    reference = Reference(folder)
    (answer,) = answers_of(folder, {"kind": "sample", "temperature": 5.0}, seed=3)
    written: list[int] = []
    for token in answer:
        p_V, _ = reference.ask(written)
        assert token.p == pytest.approx(float(p_V[token.id]), rel=2e-3)
        assert token.others[0][0] == int(p_V.argmax())
        written.append(token.id)
    assert len(set(written)) > 2  # it is no stutter that any memory would give


def test_every_knob_of_drawing_draws(folder) -> None:
    knobs = {"temperature": 0.8, "top_k": 9, "top_p": 0.95, "min_p": 0.05}
    both = answers_of(
        folder, {"kind": "sample", **knobs, "repetition_penalty": 1.3}, {"kind": "sample"}
    )
    assert all(len(answer) == TOKENS for answer in both)
    assert sum(q > 0 for _, _, q in both[0][0].others) <= 9


def test_t5_is_penalised_for_what_it_says_as_transformers_does_it(t5) -> None:
    reference = Reference(t5)
    (answer,) = answers_of(t5, {**GREEDY, "repetition_penalty": 1.5})
    out = reference.model.generate(
        reference.source,
        decoder_input_ids=torch.tensor([reference.begin]),
        max_new_tokens=TOKENS,
        do_sample=False,
        repetition_penalty=1.5,
        eos_token_id=None,
    )
    assert ids(answer) == out[0, len(reference.begin) :].tolist()


def test_t5_fills_the_place_that_a_prompt_marks_and_ends_at_the_next_sentinel(t5) -> None:
    tokenizer = tokenizer_load(t5)
    config = config_of(GREEDY, prompt="One <extra_id_1> three")
    writer = Writer(ModelInput(t5), tokenizer, config)
    tokens = prompt_lay(tokenizer, config)[1]
    read = writer.prompt_read(tokens)
    marked = tokenizer.convert_tokens_to_ids("<extra_id_1>")
    assert read.tokens == [*tokens, tokenizer.eos_token_id]  # no sentinel is put at its end
    assert read.said == [tokenizer.pad_token_id, marked]
    sentinel = tokenizer.convert_tokens_to_ids("<extra_id_2>")
    written = [Token(one, 0.5, 0.5, []) for one in (*tokenizer("two")["input_ids"], sentinel)]
    cell = writer.cell(read, written)
    assert (cell["text"], cell["finish_reason"]) == ("two", "stop")


def test_a_trial_of_both(t5, rwkv, tmp_path) -> None:
    settings = {
        "prompt": "Who?",
        "layout": "few_shot",
        "few_shot": "questions",
        "models": ["t5 v1", "rwkv v1"],
        "strategies": [GREEDY, {"kind": "sample", "min_p": 0.1}],
        "max_tokens": 5,
    }
    run = run_write(tmp_path / "run", "playground", settings, model_0=t5, model_1=rwkv)
    main(RunDir(run))
    result = result_of(run)
    assert [one["finish_reason"] in ("stop", "length") for one in result["cells"]] == [True] * 4
    laid = [one["laid"] for one in result["models"]]
    assert "Q: Who?\nA:<extra_id_0>" in laid[0]
    assert laid[1].endswith("Q: Who?\nA:")
    assert result["models"][0]["prompt_tokens"] == result["models"][1]["prompt_tokens"] + 2


def test_only_those_that_ask_for_them_are_given_them(folder) -> None:
    with pytest.raises(ModelDirectoryError, match="is not known"):
        model_directory_check(folder)
    facts = model_directory_check(folder, any_writer=True)
    assert facts.role in ("recurrent", "encoder-decoder")
    assert facts.context_tokens == 512
