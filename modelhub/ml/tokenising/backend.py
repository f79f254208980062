"""A tokenizer as the library `tokenizers` has it: all that turning a text into ids needs.

transformers says how a folder is to be read, and its import takes seconds (torch among them). A
folder as tokenizer_train writes it says all of it in two files, so those are read here; any other
is opened by transformers.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

_PLAIN_CLASSES = ("TokenizersBackend", "PreTrainedTokenizerFast")  # tokenizer.json as it is
_PATCHED_ABOVE = 100_000  # tokens: transformers may mend the pattern of a larger one
_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")
_NAMED_MORE = ("mask_token", "extra_special_tokens", "additional_special_tokens")


@dataclass(frozen=True)
class Backend:
    tokenizer: Tokenizer
    eos: int | None
    size: int  # tokens, special ones among them


def backend_open(folder: Path) -> Backend:
    """A tokenizer's or a model's folder. Raises RefusedError if it has no fast tokenizer."""
    if (plain := _plain(folder)) is not None:
        return plain
    from modelhub.ml.tokenising.tokenizers import tokenizer_open

    loaded = tokenizer_open(folder)
    return Backend(loaded.backend_tokenizer, loaded.eos_token_id, len(loaded))


def _plain(folder: Path) -> Backend | None:
    """None for a folder that transformers does not take as its files are."""
    file, config_file = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if not file.exists() or not config_file.exists() or (folder / "config.json").exists():
        return None
    config = json.loads(config_file.read_text(encoding="utf-8"))
    is_plain = config.get("tokenizer_class") in _PLAIN_CLASSES
    if not is_plain or "auto_map" in config or "added_tokens_decoder" in config:
        return None
    tokenizer = Tokenizer.from_file(str(file))
    size = tokenizer.get_vocab_size()
    named = [word for name in (*_NAMED, *_NAMED_MORE) for word in _words(config.get(name))]
    if size > _PATCHED_ABOVE or any(tokenizer.token_to_id(word) is None for word in named):
        return None
    eos = _words(config.get("eos_token"))
    return Backend(tokenizer, tokenizer.token_to_id(eos[0]) if eos else None, size)


def _words(given: Any) -> list[str]:
    """The tokens of an entry: a word, one with how it is matched, or several."""
    if given is None:
        return []
    if isinstance(given, str):
        return [given]
    if isinstance(given, dict):
        return [given["content"]] if "content" in given else [*map(str, given.values())]
    return [word for one in given for word in _words(one)]
