"""What was taken out of a text and put into it, word by word. Plain Python.

Myers 1986 (An O(ND) Difference Algorithm and Its Variations, Algorithmica 1), figure 2: a shortest
script of insertions and deletions, found greedily. White space between words counts as a part of
its own, and so does each character of the scripts that are written without spaces.
"""

import re
from collections import Counter
from itertools import groupby
from operator import itemgetter

# What is longer is one replacement: the search takes time and memory that grow with its square.
MAX_CHANGES = 1500
_PARTS = re.compile(
    r"\s+"
    r"|[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
    r"|[^\s\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"
)


def words_diff(before: str, after: str) -> list[list[str]]:
    """[["=", kept], ["-", taken out], ["+", put in], …] in the order of the text.

    The "=" and "-" parts joined are `before`; the "=" and "+" parts are `after`.

    >>> words_diff("It is big.", "It is very big.")
    [['=', 'It is '], ['+', 'very '], ['=', 'big.']]
    """
    old, new = _PARTS.findall(before), _PARTS.findall(after)
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    middle = _changes(old[start : len(old) - end], new[start : len(new) - end])
    steps = [
        *(("=", part) for part in old[:start]),
        *middle,
        *(("=", part) for part in old[len(old) - end :]),
    ]
    return [
        [sign, "".join(part for _, part in run)] for sign, run in groupby(steps, key=itemgetter(0))
    ]


def changed_share(diff: list[list[str]]) -> float:
    """Words taken out and put in, of all words of both texts: 0 for the same, 1 for another."""
    words = {"=": 0, "-": 0, "+": 0}
    for sign, text in diff:
        words[sign] += sum(1 for part in _PARTS.findall(text) if not part.isspace())
    changed = words["-"] + words["+"]
    return changed / (changed + 2 * words["="]) if changed else 0.0


def words_shared(one: str, other: str) -> float | None:
    """What two texts have in common: twice the words in both, of all words of both, 0 to 1.

    Dice 1945 (Measures of the Amount of Ecologic Association Between Species, Ecology 26), over
    words as often as they occur, upper and lower case the same. None of two empty texts.
    """
    first, second = _words(one), _words(other)
    total = first.total() + second.total()
    return 2 * (first & second).total() / total if total else None


def _words(text: str) -> Counter[str]:
    return Counter(part for part in _PARTS.findall(text.casefold()) if not part.isspace())


def _changes(old: list[str], new: list[str]) -> list[tuple[str, str]]:
    """A shortest script from `old` to `new`, what is taken out before what is put in."""
    reached = {1: 0}  # on each diagonal x - y, the furthest x
    trail = []
    for changes in range(min(len(old) + len(new), MAX_CHANGES) + 1):
        trail.append(dict(reached))
        for diagonal in range(-changes, changes + 1, 2):
            if diagonal == -changes or (
                diagonal != changes and reached[diagonal - 1] < reached[diagonal + 1]
            ):
                x = reached[diagonal + 1]
            else:
                x = reached[diagonal - 1] + 1
            y = x - diagonal
            while x < len(old) and y < len(new) and old[x] == new[y]:
                x, y = x + 1, y + 1
            reached[diagonal] = x
            if x >= len(old) and y >= len(new):
                return _ordered(_walked_back(old, new, trail))
    return [*(("-", part) for part in old), *(("+", part) for part in new)]


def _walked_back(
    old: list[str], new: list[str], trail: list[dict[int, int]]
) -> list[tuple[str, str]]:
    steps: list[tuple[str, str]] = []
    x, y = len(old), len(new)
    for changes in range(len(trail) - 1, -1, -1):
        reached, diagonal = trail[changes], x - y
        down = diagonal == -changes or (
            diagonal != changes and reached[diagonal - 1] < reached[diagonal + 1]
        )
        before = diagonal + 1 if down else diagonal - 1
        x_before = reached[before]
        y_before = x_before - before
        while x > max(x_before, 0) and y > max(y_before, 0):
            x, y = x - 1, y - 1
            steps.append(("=", old[x]))
        if changes:
            if down:
                y -= 1
                steps.append(("+", new[y]))
            else:
                x -= 1
                steps.append(("-", old[x]))
    return steps[::-1]


def _ordered(steps: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same script with, between two kept parts, all that goes before all that comes."""
    found: list[tuple[str, str]] = []
    for kept, run in groupby(steps, key=lambda step: step[0] == "="):
        changes = list(run)
        found += changes if kept else sorted(changes, key=lambda step: step[0] == "+")
    return found
