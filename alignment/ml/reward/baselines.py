"""What an answer's length, or its words, would have told: what a reward model has to beat.

A reward model that is no better than the number of letters has learnt that people like long
answers; one that is no better than word counts has learnt which words they like. Both are judged on
the same pairs as the model.

Legend: K answers of a prompt, A answers in all, V words.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.ml.data import RankedGroup

# A run of letters and digits; where words are not set apart by spaces, a character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
_MOST_WORDS = 5000
_RIDGE = 1.0  # of the squared weights, per pair as one: the strength that suits log counts
_STEPS = 100


def length_scores(groups: Sequence[RankedGroup]) -> list[Tensor]:
    """Of each group the answers' lengths in characters, shape (K,)."""
    return [torch.tensor(group.characters, dtype=torch.float32) for group in groups]


class BagOfWords:
    """Logistic regression on the differences of log(1 + count) of words: Bradley-Terry, linear.

    Fitted on training pairs as the reward model's loss weighs them, a ranking as one, with a ridge.
    The problem is convex and the fit runs from 0 to its minimum, so nothing depends on chance.
    """

    def __init__(self, groups: Sequence[RankedGroup]) -> None:
        """groups: to learn from; words that fewer than two of their answers have are left out."""
        found = Counter(
            word for group in groups for text in group.texts_K for word in set(_words(text))
        )
        common = [word for word, answers in found.most_common(_MOST_WORDS) if answers > 1]
        self._place = {word: place for place, word in enumerate(common)}
        self._weights_V1 = torch.zeros(len(common), 1, dtype=torch.float64)
        if common:
            self._fit(groups)

    def scores(self, groups: Sequence[RankedGroup]) -> list[Tensor]:
        """Of each group the answers' scores, float32 (K,)."""
        if not self._place:
            return [torch.zeros(len(group.texts_K)) for group in groups]
        sizes = [len(group.texts_K) for group in groups]
        scores_A = self._score(self._bags(groups), self._weights_V1)
        return list(scores_A.float().split(sizes))

    def _fit(self, groups: Sequence[RankedGroup]) -> None:
        bags = self._bags(groups)
        better, worse, shares = [], [], []
        first = 0
        for group in groups:
            for one in group.rankings:
                pairs = group.pairs_of(one)
                better += [first + high for high, _ in pairs]
                worse += [first + low for _, low in pairs]
                shares += [1 / len(pairs)] * len(pairs)
            first += len(group.texts_K)
        better_P, worse_P = torch.tensor(better), torch.tensor(worse)
        shares_P = torch.tensor(shares, dtype=torch.float64)
        weights_V1 = self._weights_V1.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([weights_V1], max_iter=_STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            scores_A = self._score(bags, weights_V1)
            gaps_P = scores_A[better_P] - scores_A[worse_P]
            total = -(shares_P * F.logsigmoid(gaps_P)).sum() + _RIDGE * weights_V1.square().sum()
            total.backward()
            return total

        optimizer.step(loss)
        self._weights_V1 = weights_V1.detach()

    def _bags(self, groups: Sequence[RankedGroup]) -> tuple[Tensor, Tensor, Tensor]:
        """All answers' words: (places in the vocabulary, where each answer's begin, log counts)."""
        places: list[int] = []
        starts: list[int] = []
        counts: list[int] = []
        for group in groups:
            for text in group.texts_K:
                starts.append(len(places))
                own = Counter(word for word in _words(text) if word in self._place)
                places += [self._place[word] for word in own]
                counts += own.values()
        return (
            torch.tensor(places, dtype=torch.long),
            torch.tensor(starts, dtype=torch.long),
            torch.tensor(counts, dtype=torch.float64).log1p(),
        )

    @staticmethod
    def _score(bags: tuple[Tensor, Tensor, Tensor], weights_V1: Tensor) -> Tensor:
        places, starts, counts = bags
        return F.embedding_bag(places, weights_V1, starts, mode="sum", per_sample_weights=counts)[
            :, 0
        ]


def _words(text: str) -> Iterator[str]:
    return (found.group() for found in _WORD.finditer(text.lower()))
