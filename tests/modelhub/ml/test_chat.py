"""Laying prompts and answers in tokens."""

import pytest

pytest.importorskip("transformers", reason="the ml extra is not installed")

from modelhub.ml.chat import (
    ChatTemplateError,
    answer_encode,
    end_of_turn_id,
    prompt_render,
    prompt_text,
    stop_ids,
)
from tests.tiny_model import tiny_tokenizer

pytestmark = pytest.mark.ml

HELLO = [{"role": "user", "content": "Hi ☃"}]


def test_a_prompt_ends_where_the_answer_begins():
    assert prompt_text(tiny_tokenizer(), HELLO) == (
        "<|im_start|>user\nHi ☃<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_prompts_tokens_are_its_texts():
    tokenizer = tiny_tokenizer()
    ids = prompt_render(tokenizer, HELLO)
    assert ids[0] == 1 and ids.count(1) == 2 and ids.count(2) == 1
    assert tokenizer.decode(ids) == prompt_text(tokenizer, HELLO)


def test_only_an_answer_that_ended_itself_gets_the_end_of_turn_token():
    tokenizer = tiny_tokenizer()
    finished, cut = (answer_encode(tokenizer, "Yes", reason) for reason in ("stop", "length"))
    assert finished == [*cut, 2]
    assert len(cut) == 3


def test_an_empty_answer_that_ended_itself_is_the_end_of_turn_token():
    assert answer_encode(tiny_tokenizer(), "", "stop") == [2]


def test_the_end_of_turn_is_read_off_the_template_not_the_eos():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    assert end_of_turn_id(tokenizer) == 2
    assert stop_ids(tokenizer, [1]) == (0, 1, 2)


def test_a_template_without_an_ending_falls_back_on_eos():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    assert end_of_turn_id(tokenizer) == 2


def test_a_tokenizer_without_a_template_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ChatTemplateError, match="no chat template"):
        prompt_render(tokenizer, HELLO)


def test_a_template_that_refuses_says_so():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(ChatTemplateError, match="no system role"):
        prompt_render(tokenizer, HELLO)
