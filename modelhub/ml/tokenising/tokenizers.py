"""Making a tokenizer that every program of the hub can read: transformers' fast one.

Special tokens are named to transformers too, so that eos, pad and mask are right wherever the
folder is loaded, and a chat template lays turns as modelhub/ml/chat.py reads them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from modelhub.ml.configs import RefusedError
from modelhub.ml.tokenising.configs import (
    END,
    MASK,
    PAD,
    TURN_BEGIN,
    TURN_END,
    UNKNOWN,
    TrainTokenizerConfig,
)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    f"{{{{ '{TURN_BEGIN}' + message['role'] + '\\n' + message['content'] + '{TURN_END}\\n' }}}}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{TURN_BEGIN}assistant\\n' }}}}{{% endif %}}"
)


def tokenizer_open(folder: Path) -> Any:
    """A tokenizer's or a model's folder. Raises RefusedError if it has no fast tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    if not tokenizer.is_fast:
        raise RefusedError(f"{folder.name} has no tokenizer.json")
    return tokenizer


def tokenizer_train(texts: Iterator[str], config: TrainTokenizerConfig) -> PreTrainedTokenizerFast:
    """Train on texts, read once.

    Byte-level BPE (Radford et al. 2019), WordPiece (Schuster and Nakajima 2012, with BERT's words),
    or the unigram model (Kudo 2018, arXiv:1804.10959). Raises RefusedError where the texts hold
    more different characters than the vocabulary has room for, or too little for its size.
    """
    special = [*config.own_tokens, *config.special_tokens]
    made, trainer = _untrained(config, special)
    made.train_from_iterator(texts, trainer)
    size = made.get_vocab_size()
    if size > config.vocabulary:
        raise RefusedError(
            f"the texts' own characters and the special tokens are {size} tokens, more than the "
            f"vocabulary of {config.vocabulary}: raise it, or take bpe, whose alphabet is bytes"
        )
    if size < config.vocabulary:
        print(f"the texts gave {size} tokens, not {config.vocabulary}", flush=True)
    named = {"bos_token": END, "eos_token": END, "pad_token": PAD}
    if config.algorithm != "bpe":
        named["unk_token"] = UNKNOWN
    if config.mask:
        named["mask_token"] = MASK
    others = [one for one in special if one not in named.values()]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        additional_special_tokens=others,
        clean_up_tokenization_spaces=False,
        **named,
    )
    if config.chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _untrained(config: TrainTokenizerConfig, special: list[str]) -> tuple[Tokenizer, Any]:
    shared: dict[str, Any] = {
        "vocab_size": config.vocabulary,
        "special_tokens": special,
        "show_progress": False,
    }
    if config.algorithm == "bpe":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        return made, trainers.BpeTrainer(initial_alphabet=alphabet, **shared)
    if config.algorithm == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        made.normalizer = normalizers.BertNormalizer(lowercase=False)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        return made, trainers.WordPieceTrainer(**shared)
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made, trainers.UnigramTrainer(unk_token=UNKNOWN, **shared)
