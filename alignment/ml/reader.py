"""Whether a model can read what a policy writes: a reward model, or a reference."""

from pathlib import Path
from typing import Any

from modelhub.ml.checkpoint import tokenizer_load
from modelhub.ml.configs import RefusedError


def reader_check(policy_tokenizer: Any, folder: Path, role: str) -> None:
    """Raise RefusedError unless a model reads the policy's tokens as the policy does.

    It is shown the very tokens that were drawn, never their text tokenized again.
    """
    tokenizer = tokenizer_load(folder)
    if tokenizer.chat_template != policy_tokenizer.chat_template:
        raise RefusedError(
            f"{role}: its chat template is not the policy's, so it was trained on other prompts: "
            "train it from this policy's own checkpoint"
        )
    known = tokenizer.get_vocab()
    for token, number in policy_tokenizer.get_vocab().items():
        if known.get(token) != number:
            raise RefusedError(
                f"{role}: its tokenizer has {known.get(token)} for {token!r}, the policy's {number}"
            )
