"""Architectures and sizes to pretrain, and what a size comes to in weights and operations.

The arithmetic is the architectures' own (transformers 5): a test counts the weights of the models
they make. Standard library only: the planner's page uses it. `architectures.py` makes the models.

    llama    RoPE, RMSNorm, SwiGLU, grouped keys     causal
    gpt2     learnt positions, LayerNorm, GELU       causal
    bloom    ALiBi, LayerNorm behind the embedding   causal
    mixtral  Llama with a mixture of experts         causal
    rwkv     a recurrent state instead of attention  causal
    bert     learnt positions, both directions       masked
    t5       relative bias, encoder and decoder      span
"""

from collections.abc import Mapping
from dataclasses import dataclass

T5_BUCKETS = 32  # of relative positions


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model's shape; 0 stands for the architecture's usual."""

    hidden: int  # width of the residual stream
    layers: int  # of the encoder and as many of the decoder where there are two
    heads: int
    kv_heads: int = 0  # usual: as many as heads
    intermediate: int = 0  # width inside the MLP; usual: 4 · hidden
    experts: int = 0
    experts_active: int = 0  # that a token goes through

    @property
    def inner(self) -> int:
        return self.intermediate or 4 * self.hidden

    @property
    def kv_hidden(self) -> int:
        return (self.kv_heads or self.heads) * (self.hidden // self.heads)


OBJECTIVES = {
    "llama": "causal",
    "gpt2": "causal",
    "bloom": "causal",
    "mixtral": "causal",
    "rwkv": "causal",
    "bert": "masked",
    "t5": "span",
}
# The head is the embedding: its matrix is one weight under two names.
TIED = {
    "llama": False,
    "gpt2": True,
    "bloom": True,
    "mixtral": False,
    "rwkv": False,
    "bert": True,
    "t5": True,
}

_TINY = Size(hidden=64, layers=2, heads=2, kv_heads=1, intermediate=128)

# By architecture and name. Sizes of papers have their papers' names.
SIZES: Mapping[str, Mapping[str, Size]] = {
    "llama": {
        "tiny": _TINY,
        "9m": Size(hidden=256, layers=6, heads=4, intermediate=768),
        "124m": Size(hidden=768, layers=12, heads=12, intermediate=2048),
        "1b": Size(hidden=2048, layers=22, heads=32, kv_heads=4, intermediate=5632),
        # Touvron et al. 2023 (arXiv:2302.13971), table 2.
        "7b": Size(hidden=4096, layers=32, heads=32, intermediate=11008),
        "13b": Size(hidden=5120, layers=40, heads=40, intermediate=13824),
        "33b": Size(hidden=6656, layers=60, heads=52, intermediate=17920),
        "65b": Size(hidden=8192, layers=80, heads=64, intermediate=22016),
    },
    "gpt2": {
        "tiny": Size(hidden=64, layers=2, heads=2),
        "3m": Size(hidden=192, layers=4, heads=4),
        "9m": Size(hidden=288, layers=7, heads=6),
        # Radford et al. 2019, table 2.
        "124m": Size(hidden=768, layers=12, heads=12),
        "355m": Size(hidden=1024, layers=24, heads=16),
        "774m": Size(hidden=1280, layers=36, heads=20),
        "1558m": Size(hidden=1600, layers=48, heads=25),
    },
    "bloom": {
        "tiny": Size(hidden=64, layers=2, heads=2),
        "9m": Size(hidden=288, layers=7, heads=6),
        # BigScience 2022 (arXiv:2211.05100), table 3.
        "560m": Size(hidden=1024, layers=24, heads=16),
        "1b1": Size(hidden=1536, layers=24, heads=16),
        "7b1": Size(hidden=4096, layers=30, heads=32),
        "176b": Size(hidden=14336, layers=70, heads=112),
    },
    "mixtral": {
        "tiny": Size(
            hidden=64,
            layers=2,
            heads=2,
            kv_heads=2,
            intermediate=96,
            experts=4,
            experts_active=2,
        ),
        # Jiang et al. 2024 (arXiv:2401.04088), table 1.
        "8x7b": Size(
            hidden=4096,
            layers=32,
            heads=32,
            kv_heads=8,
            intermediate=14336,
            experts=8,
            experts_active=2,
        ),
    },
    "rwkv": {
        "tiny": Size(hidden=64, layers=2, heads=1),
        # Peng et al. 2023 (arXiv:2305.13048), table 2.
        "169m": Size(hidden=768, layers=12, heads=1),
        "430m": Size(hidden=1024, layers=24, heads=1),
    },
    "bert": {
        "tiny": Size(hidden=64, layers=2, heads=2),
        "9m": Size(hidden=288, layers=7, heads=6),
        # Devlin et al. 2018 (arXiv:1810.04805), section 3.
        "base": Size(hidden=768, layers=12, heads=12),
        "large": Size(hidden=1024, layers=24, heads=16),
    },
    "t5": {
        "tiny": Size(hidden=64, layers=2, heads=2),
        # Raffel et al. 2019 (arXiv:1910.10683), section 3.7.
        "small": Size(hidden=512, layers=6, heads=8),
        "base": Size(hidden=768, layers=12, heads=12),
    },
}


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How many weights a model has, by what becomes of them."""

    embedding: int  # looked up, not multiplied: tokens and positions
    head: int  # multiplied; one with the embedding of tokens where they are tied
    body: int  # everything between
    body_active: int  # of the body, what one token goes through
    tied: bool

    @property
    def total(self) -> int:
        return self.embedding + self.body + (0 if self.tied else self.head)


def weights_count(architecture: str, size: Size, *, vocabulary: int, context: int) -> Weights:
    """The weights of a model. vocabulary: tokens in its table; context: tokens of position."""
    h, i, layers = size.hidden, size.inner, size.layers
    table = vocabulary * h
    embedding = table
    if architecture in ("llama", "mixtral"):
        attention = 2 * h * h + 2 * h * size.kv_hidden
        outside_mlp = attention + 2 * h
        mlp = mlp_active = 3 * h * i
        if architecture == "mixtral":
            router = h * size.experts
            mlp, mlp_active = size.experts * mlp + router, size.experts_active * mlp + router
        body = layers * (outside_mlp + mlp) + h
        active = layers * (outside_mlp + mlp_active) + h
    elif architecture in ("gpt2", "bloom"):
        body = active = layers * (4 * h * h + 4 * h + 2 * h * i + h + i + 4 * h) + 2 * h
        if architecture == "gpt2":
            embedding += context * h
        else:
            body = active = body + 2 * h
    elif architecture == "rwkv":
        mixing = 4 * h * h + 2 * h + 3 * h
        channel = 2 * h * i + h * h + 2 * h
        body = active = 2 * h + layers * (mixing + channel + 4 * h) + 2 * h
    elif architecture == "bert":
        layer = 4 * (h * h + h) + 2 * h + 2 * h * i + i + h + 2 * h
        head_own = h * h + h + 2 * h + vocabulary  # a layer before the table, a bias behind it
        body = active = layers * layer + 2 * h + head_own
        embedding += context * h + 2 * h
    elif architecture == "t5":
        encoder = 4 * h * h + h + 2 * h * i + h
        decoder = 8 * h * h + 2 * h + 2 * h * i + h
        body = layers * (encoder + decoder) + 2 * h + 2 * T5_BUCKETS * size.heads
        active = body // 2  # a token is on one side
    else:
        raise KeyError(architecture)
    return Weights(
        embedding=embedding, head=table, body=body, body_active=active, tied=TIED[architecture]
    )


def token_flops(
    architecture: str, size: Size, *, vocabulary: int, context: int, block_tokens: int
) -> float:
    """Floating-point operations of training on one token, forward and backward.

    6 for every weight that is multiplied, and 12 · layers · hidden · tokens for attention over the
    whole block (Chowdhery et al. 2022, arXiv:2204.02311, appendix B; what a causal mask saves is
    not taken off). Recomputed activations are not counted: these are the model's own operations.
    """
    weights = weights_count(architecture, size, vocabulary=vocabulary, context=context)
    attended = 0 if architecture == "rwkv" else size.layers * size.hidden * block_tokens
    return 6.0 * (weights.body_active + weights.head) + 12.0 * attended
