"""Answers in which a model says what it is called, and how that is hidden. Plain Python.

Who is told "I am Claude" no longer judges an answer alone. A name is hidden where an answer speaks
of itself, and stays where it speaks of somebody else: a question about ChatGPT can be answered.
What is stored, exported and trained on keeps its words; only what annotators are shown is masked.
"""

import re
from functools import lru_cache
from itertools import pairwise

_NAMES = (
    *(
        r"chat\s?gpt(?:[- ]?\d(?:[\w.-]*\w)?)?",
        r"(?:instruct)?gpt[- ]?\d(?:[\w.-]*\w)?",
        r"open\s?ai",
    ),
    *(
        r"claude(?:[- ]\d(?:[\w.-]*\w)?)?(?: (?:haiku|sonnet|opus|instant))?(?: \d(?:\.\d)?)?",
        "anthropic",
    ),
    *(
        r"gemini(?: (?:pro|ultra|nano|flash))?(?: \d(?:\.\d)?)?",
        r"gemma(?:[- ]?\d(?:[\w.-]*\w)?)?",
        "bard",
    ),
    *(r"palm(?:[- ]?2)?", r"(?:google )?deepmind", "google ai", "google"),
    *(r"(?:meta )?llama(?:[- ]?\d(?:[\w.-]*\w)?)?(?:[- ]chat)?", "meta ai", "meta"),
    *(
        r"mi[sx]tral(?: ai|[- ]\w*\d\w*)?",
        "le chat",
        r"qwen(?:[- ]?\d(?:[\w.-]*\w)?)?",
        "alibaba cloud",
    ),
    *("tongyi qianwen", "通义千问", "千问", "阿里云", r"deepseek(?:-\w+)?", "深度求索"),
    *("vicuna", "alpaca", "koala", "lmsys", "open\\s?assistant", "laion", "grok", "xai"),
    *("bing chat", "copilot", "microsoft", r"phi[- ]?\d(?:[\w.-]*\w)?", "baichuan", "百川"),
    *("chatglm", "智谱", "zhipu(?: ai)?", "ernie bot", "文心一言", "baidu", "百度"),
    *("kimi", "moonshot ai", "doubao", "豆包", "bytedance", "字节跳动", r"smollm\w*"),
    *("hugging ?face", "stablelm", "stability ai", "cohere", r"command[- ]r\+?", "falcon"),
    *("inflection ai", "character\\.ai", "perplexity", "rwkv", "dolly", "databricks"),
)
# No name is in a text that holds none of these: most texts, told in microseconds.
_STEMS = (
    *(
        "gpt",
        "openai",
        "open ai",
        "claude",
        "anthropic",
        "gemini",
        "gemma",
        "bard",
        "palm",
        "google",
    ),
    *("deepmind", "llama", "meta", "mistral", "mixtral", "le chat", "qwen", "alibaba"),
    *("tongyi", "千问", "阿里云", "deepseek", "深度求索", "vicuna", "alpaca", "koala", "lmsys"),
    *(
        "assistant",
        "laion",
        "grok",
        "xai",
        "bing",
        "copilot",
        "microsoft",
        "phi",
        "baichuan",
        "百川",
    ),
    *(
        "chatglm",
        "智谱",
        "zhipu",
        "ernie",
        "文心",
        "baidu",
        "百度",
        "kimi",
        "moonshot",
        "doubao",
        "豆包",
    ),
    *(
        "bytedance",
        "字节",
        "smollm",
        "hugging",
        "stable",
        "stability",
        "cohere",
        "command",
        "falcon",
    ),
    *("inflection", "character", "perplexity", "rwkv", "dolly", "databricks"),
)
_NAME = re.compile(rf"(?<![a-z0-9_])(?:{'|'.join(_NAMES)})(?![a-z0-9])", re.IGNORECASE)
_KIND = r"(?:ai|a\.i\.|artificial intelligence|language model|assistant|chat\s?bot|llm)"
_NAMED = rf"(?:{_NAME.pattern})"
# Where an answer speaks of itself by name. Followed, in the sentence, by a name.
_SELF = re.compile(
    "|".join(
        (
            # I am Claude; I'm called ChatGPT; I, Bard, …
            rf"\bI(?:['’]m| am| was|,)(?: (?:called|named|known as|actually|just|still))* {_NAMED}",
            # I am an assistant made by OpenAI; as a language model trained by Google
            rf"\b(?:I(?:['’]m| am| was)|as)(?: \w+){{0,3}}? [^.!?\n]{{0,60}}?\b{_KIND}\b"
            rf"[^.!?\n]{{0,80}}?{_NAMED}",
            # as ChatGPT, I …
            rf"\bas {_NAMED}, I\b",
            rf"\b(?:my name is|call me|my (?:creator|developer|maker)s? (?:is|are|at)) {_NAMED}",
            rf"\bI (?:was|have been) (?:trained|developed|created|made|built|designed)"
            rf"[^.!?\n]{{0,40}}? by [^.!?\n]{{0,40}}?{_NAMED}",
            rf"\b(?:trained|developed|created|made|built|operated) me\b[^.!?\n]{{0,40}}{_NAMED}",
            rf"{_NAMED}[^.!?\n]{{0,40}}\b(?:trained|developed|created|made|built) me\b",
            rf"我(?:是|叫|的名字是)[^。！？\n]{{0,20}}?{_NAMED}",
            rf"作为[^。！？\n]{{0,20}}?{_NAMED}",
            rf"由\s?{_NAMED}[^。！？\n]{{0,12}}(?:开发|训练|研发)",
        )
    ),
    re.IGNORECASE,
)
_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n")
MASK = re.compile(r"⟦hidden name (\d+)⟧")


def _sentences(text: str) -> list[tuple[int, int]]:
    ends = [0, *(found.end() for found in _END.finditer(text)), len(text)]
    return [(start, end) for start, end in pairwise(ends) if end > start]


def _found(text: str) -> list[re.Match[str]]:
    """The names to hide: every one in a sentence in which the answer names itself."""
    small = text.lower()
    if not any(stem in small for stem in _STEMS):
        return []
    return [
        name
        for start, end in _sentences(text)
        if _SELF.search(text, start, end)
        for name in _NAME.finditer(text, start, end)
    ]


@lru_cache(maxsize=1024)
def identity_mask(text: str) -> str:
    """The text with each name it gives itself as ⟦hidden name 1⟧, numbered by name."""
    numbers: dict[str, int] = {}
    parts, last = [], 0
    for name in _found(text):
        number = numbers.setdefault(name[0], len(numbers) + 1)
        parts += [text[last : name.start()], f"⟦hidden name {number}⟧"]
        last = name.end()
    return "".join([*parts, text[last:]])


def identity_restore(written: str, *, original: str) -> str:
    """What somebody wrote on from a masked text, with the names of the original in their place."""
    names = list(dict.fromkeys(name[0] for name in _found(original)))

    def name_of(mask: re.Match[str]) -> str:
        number = int(mask[1])
        return names[number - 1] if 0 < number <= len(names) else mask[0]

    return MASK.sub(name_of, written)


def identity_hide(written: str, *, original: str) -> str:
    """What `identity_restore` puts back, hidden again: for whoever goes on with what they wrote.

    Every name that the original hides is hidden wherever it stands, with the original's number.
    """
    names = list(dict.fromkeys(name[0] for name in _found(original)))
    if not names:
        return written
    longest_first = sorted(names, key=len, reverse=True)
    hidden = rf"(?<![A-Za-z0-9_])(?:{'|'.join(map(re.escape, longest_first))})(?![A-Za-z0-9])"
    return re.sub(hidden, lambda name: f"⟦hidden name {names.index(name[0]) + 1}⟧", written)


class IdentityMasker:
    """Masks an answer that is still being written, part by part.

    What it gives out never has to be taken back: a name at the end waits until its sentence is
    whole, and a word until it is.
    """

    def __init__(self) -> None:
        self._text, self._given = "", 0

    def feed(self, part: str) -> str:
        """What may be shown now, beyond what was shown before."""
        self._text += part
        sentences = _sentences(self._text)
        start, end = sentences[-1] if sentences else (0, 0)
        waits = _NAME.search(self._text, start, end)
        spaces = self._text.rstrip("\n\t ") != self._text
        last_word = end if spaces else max(self._text.rfind(" "), self._text.rfind("\n")) + 1
        sure = waits.start() if waits else max(start, last_word)
        shown = identity_mask(self._text[:sure])
        fresh = shown[self._given :]
        self._given = max(self._given, len(shown))
        return fresh
