"""The models of the presets, made by transformers, and how each is asked for a block's losses.

Legend: B blocks, T tokens of a block, R places of a row, N of all rows, V vocabulary.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from modelhub.ml.alibi import alibi_prepare
from modelhub.ml.configs import RefusedError
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.pretraining.objectives import (
    IGNORED,
    Ints,
    causal_targets,
    masked_example,
    pieces,
    sees,
    span_block,
)
from modelhub.ml.pretraining.presets import SIZES, TIED, Size

_SENTINELS = 100
_LOSS_ROWS = 128  # of logits at a time: 4 MB at a vocabulary of 8,192
# Whose attention takes no truth values but numbers to add.
_ADDED_MASK = ("bloom", "t5")


@dataclass(frozen=True)
class Special:
    """Ids that the objectives need. −1: not of this objective."""

    vocabulary: int  # tokens, those added for the objective included
    table: int  # rows of the embedding: as many or more
    pad_id: int
    end_id: int
    mask_id: int = -1
    sentinel_ids: tuple[int, ...] = ()
    all_ids: tuple[int, ...] = ()

    @property
    def added(self) -> int:
        """How many of the last tokens are the objective's own: what it adds stands at the end."""
        own = {self.mask_id, *self.sentinel_ids} - {-1}
        at_end = set(range(self.vocabulary - len(own), self.vocabulary))
        return len(own) if own == at_end else 0


def special_tokens(tokenizer: Any, objective: str, *, multiple: int = 1) -> Special:
    """The tokenizer's special ids; what the objective needs and it lacks is added to it.

    multiple: the embedding's rows are rounded up to a multiple of it. Raises RefusedError for a
    tokenizer without an end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise RefusedError("the tokenizer names no end-of-text token (eos_token)")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    mask_id, sentinel_ids = -1, ()
    if objective == "masked":
        if tokenizer.mask_token_id is None:
            tokenizer.add_special_tokens({"mask_token": "[MASK]"})
        mask_id = tokenizer.mask_token_id
    if objective == "span":
        names = [f"<extra_id_{number}>" for number in range(_SENTINELS)]
        missing = [name for name in names if name not in tokenizer.get_vocab()]
        if missing:
            tokenizer.add_tokens(missing, special_tokens=True)
        sentinel_ids = tuple(tokenizer.convert_tokens_to_ids(names))
    return Special(
        vocabulary=len(tokenizer),
        table=-(-len(tokenizer) // multiple) * multiple,
        pad_id=tokenizer.pad_token_id,
        end_id=tokenizer.eos_token_id,
        mask_id=mask_id,
        sentinel_ids=sentinel_ids,
        all_ids=tuple(tokenizer.all_special_ids),
    )


def model_config(
    architecture: str, size: Size, special: Special, *, context: int, dropout: float
) -> Any:
    """The transformers configuration of a size."""
    ids = {
        "bos_token_id": special.end_id,
        "eos_token_id": special.end_id,
        "pad_token_id": special.pad_id,
    }
    shared = {"vocab_size": special.table, "tie_word_embeddings": TIED[architecture], **ids}
    llama = {
        "hidden_size": size.hidden,
        "intermediate_size": size.inner,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads or size.heads,
        "max_position_embeddings": context,
        "attention_dropout": dropout,
    }
    match architecture:
        case "llama":
            return transformers.LlamaConfig(**shared, **llama)
        case "mixtral":
            return transformers.MixtralConfig(
                **shared,
                **llama,
                num_local_experts=size.experts,
                num_experts_per_tok=size.experts_active,
                sliding_window=None,
            )
        case "gpt2":
            return transformers.GPT2Config(
                **shared,
                n_embd=size.hidden,
                n_layer=size.layers,
                n_head=size.heads,
                n_inner=size.inner,
                n_positions=context,
                activation_function="gelu_pytorch_tanh",  # "gelu_new" in one operation
                resid_pdrop=dropout,
                embd_pdrop=dropout,
                attn_pdrop=dropout,
            )
        case "bloom":
            return transformers.BloomConfig(
                **shared,
                hidden_size=size.hidden,
                n_layer=size.layers,
                n_head=size.heads,
                # Le Scao et al. 2022 (arXiv:2210.15424): what kept BLOOM stable.
                initializer_range=(1 / (3 * size.hidden)) ** 0.5,
                hidden_dropout=dropout,
                attention_dropout=dropout,
                seq_length=context,  # that ALiBi was trained on: nothing else would tell
            )
        case "rwkv":
            return transformers.RwkvConfig(
                **shared,
                hidden_size=size.hidden,
                num_hidden_layers=size.layers,
                intermediate_size=size.inner,
                context_length=context,
                rescale_every=0,  # it halves weights in evaluation, which a comparison would see
                use_cache=False,
            )
        case "bert":
            return transformers.BertConfig(
                **shared,
                hidden_size=size.hidden,
                num_hidden_layers=size.layers,
                num_attention_heads=size.heads,
                intermediate_size=size.inner,
                max_position_embeddings=context,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
            )
        case "t5":
            return transformers.T5Config(
                **shared,
                d_model=size.hidden,
                d_ff=size.inner,
                d_kv=size.hidden // size.heads,
                num_layers=size.layers,
                num_heads=size.heads,
                n_positions=context,
                dropout_rate=dropout,
                decoder_start_token_id=special.pad_id,
            )
    raise KeyError(architecture)


def model_make(config: PretrainConfig, special: Special) -> Any:
    """A model with random weights, from torch's generator, in float32."""
    size = SIZES[config.architecture][config.size]
    made = model_config(
        config.architecture,
        size,
        special,
        context=config.context_tokens or config.block_tokens,
        dropout=config.dropout,
    )
    return model_ready(_auto(config.architecture).from_config(made, dtype=torch.float32))


def model_continue(folder: Path, config: PretrainConfig) -> Any:
    """The model of a folder whose bytes were verified, in float32.

    Raises RefusedError if it is of another architecture than the configuration names.
    """
    family = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if family != config.architecture:
        raise RefusedError(
            f"the base is a {family!r:.40}; set the architecture to it "
            f"(the settings say {config.architecture})"
        )
    model = _auto(config.architecture).from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        attn_implementation=None if family in ("bloom", "t5", "rwkv") else "sdpa",
    )
    return model_ready(model)


def _auto(architecture: str) -> Any:
    return {
        "masked": transformers.AutoModelForMaskedLM,
        "span": transformers.AutoModelForSeq2SeqLM,
    }.get(
        {"bert": "masked", "t5": "span"}.get(architecture, "causal"),
        transformers.AutoModelForCausalLM,
    )


def model_ready(model: Any) -> Any:
    """Switch off what belongs to writing texts, and let BLOOM take a mask of documents."""
    model.config.use_cache = False
    alibi_prepare(model)  # the bias of a whole row is right for each of its pieces
    return model


@dataclass(frozen=True)
class Batch:
    """Blocks as a model takes them."""

    inputs: dict[str, Tensor]
    targets_BR: Tensor  # IGNORED where nothing is learnt
    tokens: int  # of the blocks, before anything was hidden or taken out

    @property
    def learnt(self) -> int:
        return int((self.targets_BR != IGNORED).sum())

    def to(self, device: torch.device) -> "Batch":
        moved = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return Batch(moved, self.targets_BR.to(device), self.tokens)


def batch_make(
    blocks: Sequence[tuple[Ints, Ints]],
    generators: Sequence[np.random.Generator],
    config: PretrainConfig,
    special: Special,
) -> Batch:
    """Blocks (tokens_T, positions_T) under the configuration's objective, each with its own
    generator."""
    family = config.architecture
    tokens = sum(len(tokens_T) for tokens_T, _ in blocks)
    piece = [
        pieces(positions_T.copy()) if config.document_mask else np.zeros_like(positions_T)
        for _, positions_T in blocks
    ]
    if config.objective == "span":
        spans = [
            span_block(
                tokens_T,
                piece_T,
                share=config.masked_share,
                span_tokens=config.span_tokens,
                sentinel_ids=special.sentinel_ids,
                end_id=special.end_id,
                generator=generator,
            )
            for (tokens_T, _), piece_T, generator in zip(blocks, piece, generators, strict=True)
        ]
        source_BS = _padded([one.source_S for one in spans], special.pad_id)
        target_BU = _padded([one.target_U for one in spans], IGNORED)
        source_piece = _padded([one.source_piece_S for one in spans], -1)
        target_piece = _padded([one.target_piece_U for one in spans], -1)
        # A piece is begun with the padding token, as the whole row is; then shifted by one.
        decoder_BU = np.full_like(target_BU, special.pad_id)
        same = target_piece[:, 1:] == target_piece[:, :-1]
        shifted = np.where(target_BU[:, :-1] == IGNORED, special.pad_id, target_BU[:, :-1])
        decoder_BU[:, 1:] = np.where(same, shifted, special.pad_id)
        rows = list(zip(source_piece, target_piece, strict=True))
        masks = {
            "attention_mask": [sees(own, own, causal=False) for own, _ in rows],
            "decoder_attention_mask": [sees(own, own, causal=True) for _, own in rows],
            "cross_attention_mask": [sees(target, own, causal=False) for own, target in rows],
        }
        return Batch(
            {
                "input_ids": torch.from_numpy(source_BS),
                "decoder_input_ids": torch.from_numpy(decoder_BU),
                **{name: _mask(found, family) for name, found in masks.items()},
            },
            torch.from_numpy(target_BU),
            tokens,
        )
    if config.objective == "masked":
        made = [
            masked_example(
                tokens_T,
                share=config.masked_share,
                mask_id=special.mask_id,
                vocabulary=special.vocabulary,
                kept_ids=special.all_ids,
                generator=generator,
            )
            for (tokens_T, _), generator in zip(blocks, generators, strict=True)
        ]
        input_BT = np.stack([source_T for source_T, _ in made])
        target_BT = np.stack([target_T for _, target_T in made])
    else:
        input_BT = np.stack([tokens_T for tokens_T, _ in blocks])
        target_BT = np.stack(
            [causal_targets(one[0], own) for one, own in zip(blocks, piece, strict=True)]
        )
    inputs = {"input_ids": torch.from_numpy(input_BT)}
    if config.document_mask and family not in ("bloom", "rwkv"):
        inputs["position_ids"] = torch.from_numpy(np.stack([_restart(own) for own in piece]))
    if any(own[-1] > 0 for own in piece):
        causal = config.objective == "causal"
        inputs["attention_mask"] = _mask([sees(own, own, causal=causal) for own in piece], family)
    return Batch(inputs, torch.from_numpy(target_BT), tokens)


def _restart(piece_T: Ints) -> Ints:
    """Positions counted from the beginning of each piece, a document's or the block's."""
    place_T = np.arange(len(piece_T))
    starts = np.flatnonzero(np.diff(piece_T, prepend=-1))
    return place_T - starts[piece_T]


def _padded(rows: Sequence[Ints], filler: int) -> Ints:
    longest = max(len(row) for row in rows)
    return np.stack(
        [np.pad(row, (0, longest - len(row)), constant_values=filler) for row in rows]
    ).astype(np.int64)


def _mask(seen: Sequence[Any], family: str) -> Tensor:
    """(B, 1, asking, seen): truth values, or for some models numbers to add."""
    seen_BRR = torch.from_numpy(np.stack(seen))[:, None]
    if family not in _ADDED_MASK:
        return seen_BRR
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(seen_BRR.shape).masked_fill_(~seen_BRR, lowest)


def block_losses(
    model: Any, inputs: dict[str, Tensor], targets_BR: Tensor
) -> tuple[Tensor, Tensor]:
    """(−Σ log p of each block's learnt tokens in nats, (B,); the experts' own loss, a scalar).

    The second is 0 for a model without experts; it keeps their load even (Fedus et al. 2021,
    arXiv:2101.03961, equation 4, with the model's own coefficient).
    """
    inputs = dict(inputs)
    balance = torch.zeros((), device=targets_BR.device)
    if "decoder_input_ids" in inputs:
        cross = inputs.pop("cross_attention_mask")
        encoded = model.get_encoder()(
            input_ids=inputs.pop("input_ids"), attention_mask=inputs.pop("attention_mask")
        )
        logits_BRV = model(**inputs, encoder_outputs=encoded, attention_mask=cross).logits
    elif model.config.model_type == "mixtral":
        # The model's own forward takes a mask of documents for one of padding in this loss.
        found = model.model(**inputs, output_router_logits=True)
        logits_BRV = model.lm_head(found.last_hidden_state)
        balance = model.router_aux_loss_coef * load_balancing_loss_func(
            found.router_logits, model.num_experts, model.num_experts_per_tok, None
        )
    else:
        logits_BRV = model(**inputs).logits
    return logits_losses(logits_BRV, targets_BR), balance


def logits_losses(logits_BRV: Tensor, targets_BR: Tensor) -> Tensor:
    """−Σ log p of each block's learnt tokens in nats, (B,)."""
    loss_N = token_losses(logits_BRV.flatten(0, 1), targets_BR.flatten())
    return loss_N.view_as(targets_BR).sum(-1)


def token_losses(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """−log p of each target in nats, float32, shape (N,); 0 where it is IGNORED.

    On the CPU a few rows at a time, forward and backward, which stay in its cache: 2.5 times as
    fast as all at once, to the same bits. A compiler makes one loop of it by itself.
    """
    rows = len(targets_N)
    if logits_NV.device.type == "cpu" and not torch.compiler.is_compiling():
        rows = _LOSS_ROWS
    return torch.cat(
        [
            F.cross_entropy(logits.float(), targets, ignore_index=IGNORED, reduction="none")
            for logits, targets in zip(logits_NV.split(rows), targets_N.split(rows), strict=True)
        ]
    )
