"""Tokens that are new to a model: added to its vocabulary, and their rows in its embeddings."""

from typing import Any

import torch

from alignment.ml.configs import RewardConfig, SftConfig
from modelhub.ml.chat import special_token_add
from modelhub.ml.configs import RefusedError


def session_end_add(tokenizer: Any, config: SftConfig | RewardConfig) -> None:
    """Add the token that ends a session to the vocabulary, unless it is there or none is asked for.

    Raises RefusedError for a word that is no token of its own; in fine-tuning with an adapter,
    which would not learn the new token's row; and where an adapter is published by itself, which
    has no row for it.
    """
    token = config.end_of_session
    if not token or token in tokenizer.get_vocab():
        return
    if not (token.startswith("<") and token.endswith(">")):
        raise RefusedError(
            f"end_of_session {token!r} is not a token of the model's vocabulary, and one that is "
            "added looks like <|end_of_session|>"
        )
    if config.adapter and isinstance(config, SftConfig):
        raise RefusedError(
            f"end_of_session {token!r} is new to the vocabulary, and an adapter does not learn its "
            "row: train every weight, name a token that the model has, or leave it empty"
        )
    if config.publish == "adapter":
        raise RefusedError(
            f"end_of_session {token!r} is new to the vocabulary, and an adapter that is published "
            "by itself has no row for it: publish the merged model"
        )
    special_token_add(tokenizer, token)
    print(f"{token} is added to the vocabulary", flush=True)


@torch.no_grad()
def token_rows_start(model: Any, tokenizer: Any, *, known: int) -> None:
    """Give the tokens behind the first `known` their rows, each the mean of the known ones."""
    wanted = len(tokenizer)
    if wanted == known:
        return
    if wanted > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(wanted, mean_resizing=False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        if layer is not None:  # a reward model has no output layer
            layer.weight[known:wanted] = layer.weight[:known].mean(0)
