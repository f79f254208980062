"""The prompt is paid once: a prompt and its K answers in one row, exactly.

A row holds each prompt's tokens once, followed by its answers. The positions of every answer
continue the prompt's, and an answer sees the prompt and itself only, so every hidden state is what
it would be were the answer alone behind its prompt. Several groups are packed into a row with no
padding: the projections and the MLP run over the packed tokens once, attention by segments.

    tokens     p0 p1 p2 | a0 a1 | b0 b1 b2 | c0      one group, K = 3
    positions   0  1  2 |  3  4 |  3  4  5 |  3

The first answer simply goes on from its prompt. For the others softmax runs over two sets of keys,
the prompt and the answer itself: each part is computed by the fused kernel, and the two are joined
by their log-sum-exps. Given the joined output and the joined log-sum-exp, the kernel's backward of
one part yields that part's exact gradients (as in ring attention, Liu et al. 2023,
arXiv:2310.01889). So nothing of size T × T is ever built, the prompt's keys are never copied, and
no mask is read. That is the CPU's way; on CUDA the same pattern is a FlexAttention block mask.

Legend: T tokens of a row, K answers of a prompt, H query heads, N key heads, R query heads per key
head, D head width, V vocabulary, C width of a hidden state.
"""

from alignment.ml.shared_prefix.attachment import attach
from alignment.ml.shared_prefix.forward import (
    answer_logprobs,
    answer_scores,
    hidden_states,
    member_scores,
)
from alignment.ml.shared_prefix.rows import Group, Row, Span, pack
from alignment.ml.shared_prefix.support import UnsupportedModelError, window_least

__all__ = [
    "Group",
    "Row",
    "Span",
    "UnsupportedModelError",
    "answer_logprobs",
    "answer_scores",
    "attach",
    "hidden_states",
    "member_scores",
    "pack",
    "window_least",
]
