"""Names that answers give themselves are hidden, and put back in what is written on from them."""

import pytest

from annotation.identity import IdentityMasker, identity_hide, identity_mask, identity_restore

ONE = "⟦hidden name 1⟧"
TWO = "⟦hidden name 2⟧"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("I am Claude.", f"I am {ONE}."),
        ("Hello! I'm ChatGPT, made by OpenAI.", f"Hello! I'm {ONE}, made by {TWO}."),
        (
            "As an AI model trained by Google, I can't.",
            f"As an AI model trained by {ONE}, I can't.",
        ),
        ("My name is Qwen2.5-7B. I help.", f"My name is {ONE}. I help."),
        ("Anthropic trained me to say so.", f"{ONE} trained me to say so."),
        ("I was created by the team at Mistral AI.", f"I was created by the team at {ONE}."),
        ("我是通义千问，由阿里云开发。", f"我是{ONE}，由{TWO}开发。"),
        ("Claude, I mean: I am Claude.", f"{ONE}, I mean: I am {ONE}."),
        # Of somebody else, and of words that are no names.
        ("ChatGPT was released by OpenAI in 2022.",) * 2,
        ("I am fond of Claude Monet.",) * 2,
        ("The llama is my favourite animal; it is as calm as a sheep.",) * 2,
        ("I am sure. OpenAI is a company.",) * 2,
        ("I'm a fan of metaphors.",) * 2,
    ],
)
def test_a_name_is_hidden_where_an_answer_speaks_of_itself(text: str, masked: str) -> None:
    assert identity_mask(text) == masked
    assert identity_restore(masked, original=text) == text


def test_what_was_changed_around_a_hidden_name_keeps_the_name() -> None:
    original = "I am Claude, by Anthropic. Paris."
    written = f"By {TWO}: {ONE} says Paris. And {ONE} again, and ⟦hidden name 7⟧."
    assert identity_restore(written, original=original) == (
        "By Anthropic: Claude says Paris. And Claude again, and ⟦hidden name 7⟧."
    )


def test_what_was_written_is_hidden_again_by_the_numbers_of_the_original() -> None:
    original = "I am Claude, by Anthropic. Paris."
    written = "By Anthropic! This is Claude’s, not Claudette’s; OpenAI is another."
    hidden = identity_hide(written, original=original)
    assert hidden == f"By {TWO}! This is {ONE}’s, not Claudette’s; OpenAI is another."
    assert identity_restore(hidden, original=original) == written
    assert identity_hide(written, original="Paris.") == written


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_an_answer_is_masked_while_it_is_written_and_nothing_shown_is_taken_back(step) -> None:
    text = "Hello there. I think I am ChatGPT, by OpenAI. Paris is in France. Bye now "
    masker, shown = IdentityMasker(), ""
    for start in range(0, len(text), step):
        shown += masker.feed(text[start : start + step])
        assert identity_mask(text).startswith(shown)
        assert "ChatGPT" not in shown and "OpenAI" not in shown
    assert shown.rstrip() == identity_mask(text).rstrip()


def test_a_long_text_without_names_costs_next_to_nothing() -> None:
    identity_mask.cache_clear()
    words = "as an assistant I am here " * 4000
    assert identity_mask(words) is not None
    assert identity_mask(words + "gpt" + " as a" * 2000)
