"""Lay a conversation out in tokens: one way for sampling, reward training and fine-tuning.

An answer's tokens are its text's tokens and, only where the model ended its turn itself, the
end-of-turn token. An answer cut off by the length limit gets none: a reward model that is shown
an ending that was never written cannot see that the answer is unfinished.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from modelhub.ml.configs import RefusedError

# Added to the vocabulary of a reward model that asks for it (RewardConfig.reward_token).
REWARD_TOKEN = "<|reward|>"  # noqa: S105 - a word, not a secret
_PROBE_QUESTION = "question"
_PROBE_ANSWER = "the answer laid here"


class ChatTemplateError(RefusedError):
    """The tokenizer's chat template is missing, or cannot lay the conversation."""


def prompt_render(tokenizer: Any, messages: Sequence[dict[str, str]]) -> list[int]:
    """Token ids of a conversation up to where the model's answer begins.

    messages: [{"role", "content"}], the last one a user's. Raises ChatTemplateError when the
    tokenizer has no chat template or the template refuses the messages.
    """
    return _encode(tokenizer, prompt_text(tokenizer, messages))


def prompt_text(tokenizer: Any, messages: Sequence[dict[str, str]]) -> str:
    """The text whose tokens `prompt_render` gives."""
    return _template_apply(tokenizer, messages, add_generation_prompt=True)


def answer_encode(tokenizer: Any, text: str, finish_reason: str) -> list[int]:
    """Token ids of an answer: the text's, then the end-of-turn token if finish_reason is "stop"."""
    ids = _encode(tokenizer, text)
    if finish_reason == "stop":
        ids.append(end_of_turn_id(tokenizer))
    return ids


def scored_encode(tokenizer: Any, text: str, finish_reason: str) -> list[int]:
    """Token ids of an answer that a reward model is to score: `answer_encode`'s, and behind them
    the reward token where the tokenizer has one. The score is read at the last of them."""
    ids = answer_encode(tokenizer, text, finish_reason)
    reading = reward_token_id(tokenizer)
    return ids if reading is None else [*ids, reading]


def reward_token_id(tokenizer: Any) -> int | None:
    """The id of the token that a reward model reads scores at; None where the vocabulary has none,
    and they are read at the answer's own last token."""
    found = tokenizer.convert_tokens_to_ids(REWARD_TOKEN)
    return None if found is None or found == tokenizer.unk_token_id else int(found)


def reward_token_add(tokenizer: Any) -> int:
    """Add the reward token to the vocabulary, unless it is there; returns its id."""
    return special_token_add(tokenizer, REWARD_TOKEN)


def special_token_add(tokenizer: Any, token: str) -> int:
    """Add a special token to the vocabulary, unless it is there; returns its id."""
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [token]}, replace_extra_special_tokens=False
    )
    found = tokenizer.get_vocab().get(token)
    if found is None:
        raise ChatTemplateError(f"the tokenizer does not take {token} as a token")
    return int(found)


@dataclass(frozen=True)
class LaidConversation:
    """A conversation as token ids, and where in them the assistant speaks."""

    tokens_T: list[int]
    turns: list[tuple[int, int]]  # (first token, token after the last) of each turn asked for


def conversation_lay(
    tokenizer: Any,
    messages: Sequence[dict[str, str]],
    turns: Collection[int],
    *,
    finish_reason: str = "stop",
) -> LaidConversation:
    """Lay a conversation out and say which tokens the assistant writes in the turns asked for.

    messages: as `prompt_render` takes them, and behind them the assistant's turn that ends them.
    turns: places of assistant turns in `messages`, the last one among them. A turn's tokens are
    what the model writes when it is asked with all that is before them: its words and the token
    that ends it. finish_reason: how the last turn ended.

    Nothing is known of the template. Each turn is found by rendering: up to where it is asked for,
    and with it written. Raises ChatTemplateError, naming the turn (from 1, of all messages), where
    that does not prove its place: the template lays a turn otherwise than it asks for it, changes
    what was said before once the talk goes on (drops earlier thinking, say), or writes no token
    that ends a turn.
    """
    tokens_T: list[int] = []
    spans: list[tuple[int, int]] = []
    before = ""  # text whose tokens are laid
    for place in sorted(turns):
        asked = _template_apply(tokenizer, messages[:place], add_generation_prompt=True)
        if not asked.startswith(before):
            raise ChatTemplateError(
                f"turn {place + 1}: once the talk goes on, the chat template lays what was said "
                "before it in other words, so the tokens to learn cannot be told"
            )
        tokens_T += _encode(tokenizer, asked.removeprefix(before))
        start = len(tokens_T)
        if place == len(messages) - 1:
            tokens_T += answer_encode(tokenizer, messages[place]["content"], finish_reason)
        else:
            written = _turn_written(tokenizer, messages, place, asked)
            tokens_T += _encode(tokenizer, written)
            before = asked + written
        spans.append((start, len(tokens_T)))
    return LaidConversation(tokens_T, spans)


def _turn_written(
    tokenizer: Any, messages: Sequence[dict[str, str]], place: int, asked: str
) -> str:
    """The text that the template lays for a turn behind `asked`, through the turn's ending."""
    laid = _template_apply(tokenizer, messages[: place + 1], add_generation_prompt=False)
    if not laid.startswith(asked):
        raise ChatTemplateError(
            f"turn {place + 1}: the chat template lays it otherwise than it asks for it"
        )
    own = laid.removeprefix(asked)
    words = messages[place]["content"].strip()
    start = len(own) - len(own.lstrip())
    if not words or not own.startswith(words, start):
        raise ChatTemplateError(
            f"turn {place + 1}: the chat template does not lay its words as they are"
        )
    ending = str(tokenizer.decode([end_of_turn_id(tokenizer)]))
    stop = own.find(ending, start + len(words))
    if stop < 0 or own[start + len(words) : stop].strip():
        raise ChatTemplateError(
            f"turn {place + 1}: the chat template writes no {ending!r} behind its words, so the "
            "model would not learn to end it"
        )
    return own[: stop + len(ending)]


def answer_decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    """The text of an answer's tokens, special ones left out.

    A NUL becomes U+FFFD, as bytes that are no UTF-8 do: databases keep no NUL in text.
    """
    text = tokenizer.decode(
        list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return str(text).replace("\0", "\ufffd")


def end_of_turn_id(tokenizer: Any) -> int:
    """The id of the token with which the chat template ends an assistant's turn.

    Read off the template: the first special token after an answer. Some tokenizers name another
    token, one that ends a document, as their eos. Where the template writes no special token
    there, the tokenizer's eos; raises ChatTemplateError if there is none either.
    """
    cached = getattr(tokenizer, "_rondo_end_of_turn_id", None)
    if cached is not None:
        return int(cached)
    laid = _template_apply(
        tokenizer,
        [
            {"role": "user", "content": _PROBE_QUESTION},
            {"role": "assistant", "content": _PROBE_ANSWER},
        ],
        add_generation_prompt=False,
    )
    _, found, tail = laid.rpartition(_PROBE_ANSWER)
    if not found:
        raise ChatTemplateError("the chat template leaves out the assistant's words")
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    ending = next((one for one in _encode(tokenizer, tail) if one in special), None)
    if ending is None:
        ending = tokenizer.eos_token_id
    if ending is None:
        raise ChatTemplateError("neither the chat template nor the tokenizer names an ending token")
    tokenizer._rondo_end_of_turn_id = int(ending)
    return int(ending)


def stop_ids(tokenizer: Any, model_eos: int | Sequence[int] | None = None) -> tuple[int, ...]:
    """Every token that ends an answer: end of turn, eos, and those the model's settings name."""
    more = [model_eos] if isinstance(model_eos, int) else list(model_eos or [])
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return tuple(sorted({end_of_turn_id(tokenizer), *eos, *more}))


def _template_apply(
    tokenizer: Any, messages: Sequence[dict[str, str]], *, add_generation_prompt: bool
) -> str:
    if not getattr(tokenizer, "chat_template", None):
        raise ChatTemplateError("the model has no chat template: it cannot be asked in turns")
    try:
        laid = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=add_generation_prompt, tokenize=False
        )
    except MemoryError:
        raise
    except Exception as error:  # jinja2's errors and whatever the template raises itself
        raise ChatTemplateError(f"the chat template refuses the messages: {error}") from error
    return str(laid)


def _encode(tokenizer: Any, text: str) -> list[int]:
    # The template writes the beginning-of-text token itself where the model wants one.
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
