"""Simulated annotators: a preference that anybody can read, and its noisy telling. Plain Python.

For demonstrations and tests: with people's labels one never knows what the true preference was, so
one cannot measure whether a policy has come nearer to it. With these one can. Every label made
this way is marked `is_simulated`, for ever.

`true_preference` is a weighted sum of seven terms between 0 and 1, each a rule of the sample
project's guidelines that can be counted. No term grows with length as such: an answer is not better
for being longer or shorter, only worse for breaking off, for rambling, or for saying nothing.

| term     | weight | 1 when                                       | 0 when                       |
| -------- | ------ | -------------------------------------------- | ---------------------------- |
| finished | 0.20   | the model ended its turn                     | it was cut off               |
| on_topic | 0.25   | half of the prompt's content words come back | none does                    |
| size     | 0.10   | 20 to 80 words                               | no words, or 160 and more    |
| varied   | 0.15   | no three words in a row come twice           | half of them came before     |
| direct   | 0.15   | no filler ("Certainly!", "As an AI", …)      | two fillers                  |
| plain    | 0.10   | no word has more than ten letters            | a fifth of the words have    |
| form     | 0.05   | prose, or a list that was asked for          | headings, bold, another list |
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from statistics import NormalDist

WEIGHTS = {
    "finished": 0.20,
    "on_topic": 0.25,
    "size": 0.10,
    "varied": 0.15,
    "direct": 0.15,
    "plain": 0.10,
    "form": 0.05,
}
TIE_SHARE = 0.15  # of the spread: answers that a simulated annotator cannot tell apart
UNACCEPTABLE_BELOW = 0.25  # what it thinks of an answer that nobody should be given

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_FILLER = re.compile(
    r"\b(as an ai|language model|i'?m sorry|i apologi[sz]e|i cannot|i can'?t (?:help|assist)"
    r"|certainly|of course|great question|i hope this helps|feel free to|i'?d be happy to"
    r"|it is important to|it's important to|in conclusion|as a helpful)\b"
)
_LIST = re.compile(r"^\s*(?:[-*•]|\d+[.):])\s", re.MULTILINE)
_HEADING = re.compile(r"^\s*#{1,6}\s|\*\*", re.MULTILINE)
_ASKS_FOR_LIST = re.compile(
    r"\b(list|steps?|names?|ideas?|suggest|tips?|ways|how (?:do|can|should)|what could|recipe"
    r"|poem)\b"
)
_COMMON_WORDS = """
about after again also although always another answer because been before being both cannot could
does doing down each even ever every explain find first from give given good have having here into
just keep kind like made make many more most much must name need never note often once only other
over please really same should some sort such suggest take tell than that their them then there
these they thing things this those though through under until used using very want well were what
when where whether which while whose will with within without word words would write your yourself
"""
_COMMON = frozenset(_COMMON_WORDS.split())


def true_preference(messages: Sequence[Mapping[str, str]], text: str, finish_reason: str) -> float:
    """What the simulated annotators really think of an answer: 0 (worthless) to 1 (faultless).

    messages: the conversation, its last turn the user's. Deterministic; needs nothing but its
    arguments.
    """
    terms = preference_terms(messages, text, finish_reason)
    return sum(WEIGHTS[name] * value for name, value in terms.items())


def preference_terms(
    messages: Sequence[Mapping[str, str]], text: str, finish_reason: str
) -> dict[str, float]:
    """The seven terms of `true_preference`, each between 0 and 1, as the table above has them.

    An answer without a word has none of them.
    """
    asked, told = messages[-1]["content"].lower(), text.lower().replace("’", "'")
    words = _WORD.findall(told)
    if not words:
        return dict.fromkeys(WEIGHTS, 0.0)
    wanted = _content_stems(_WORD.findall(asked))
    found = len(wanted & _content_stems(words)) / len(wanted) if wanted else 1.0
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    repeated = 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0
    long_share = sum(len(word) > 10 for word in words) / len(words)
    listed = bool(_LIST.search(text)) and not _ASKS_FOR_LIST.search(asked)
    return {
        "finished": float(finish_reason == "stop"),
        "on_topic": min(1.0, 2 * found),
        "size": max(0.0, min(1.0, len(words) / 20, (160 - len(words)) / 80)),
        "varied": max(0.0, 1 - 2 * repeated),
        "direct": max(0.0, 1 - len(_FILLER.findall(told)) / 2),
        "plain": max(0.0, 1 - 5 * long_share),
        "form": float(not listed and not _HEADING.search(text)),
    }


def _content_stems(words: Sequence[str]) -> set[str]:
    """The first five letters of words that carry meaning: crude, and one for "baker", "bakery"."""
    return {word[:5] for word in words if len(word) >= 4 and word not in _COMMON}


def ranking_noisy(
    preferences: Mapping[str, float], *, spread: float, noise: float, seed: str
) -> tuple[list[list[str]], list[str]]:
    """How one simulated annotator ranks answers: (tiers, best first; unacceptable).

    preferences: true preference by candidate. To each is added Gaussian noise with a standard
    deviation of `noise` × `spread`; answers closer than TIE_SHARE × `spread` to the best of their
    tier are tied with it. The noise is a function of `seed` and the candidate: asked again, an
    annotator says the same.
    """
    seen = {
        uid: value + noise * spread * _gauss(f"{seed}:{uid}") for uid, value in preferences.items()
    }
    tiers: list[list[str]] = []
    for uid in sorted(seen, key=lambda one: (-seen[one], one)):
        if tiers and seen[tiers[-1][0]] - seen[uid] < TIE_SHARE * spread:
            tiers[-1].append(uid)
        else:
            tiers.append([uid])
    return tiers, [uid for uid, value in seen.items() if value < UNACCEPTABLE_BELOW]


def _gauss(name: str) -> float:
    """A draw from the standard normal distribution that belongs to a name."""
    draw = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) + 0.5
    return NormalDist().inv_cdf(draw / 2**64)


def spread_within(groups: Sequence[Sequence[float]]) -> float:
    """The standard deviation of preferences among answers to one prompt, pooled over prompts."""
    squares, freedom = 0.0, 0
    for group in groups:
        mean = math.fsum(group) / len(group)
        squares += math.fsum((value - mean) ** 2 for value in group)
        freedom += len(group) - 1
    return math.sqrt(squares / freedom) if freedom else 0.0
