"""Self-Instruct: a model writes new prompts after people's, and filters keep what is new and fit.

Wang et al. 2022 (arXiv:2212.10560), section 2.2 and appendix A. A question shows examples, six of
people's and two of those written before, in an order of its own, and asks for more. Every prompt
that is written goes through the filters in the order of `REASONS` and is counted under the first
that drops it. Against the paper's: a first character is refused for being punctuation, not for
being no ASCII, so that Chinese is kept; an instruction is a prompt as it is, without an input
beside it. What is kept is proposed: a person accepts or rejects each one before it is a prompt.

A round's questions depend on the seed and on what the earlier rounds kept. Replies are kept round
by round, so that a killed run goes on to the same proposals.

By hand: `python -m alignment.ml.self_instruct RUN_DIR`.
"""

import random
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from alignment.ml.configs import SelfInstructConfig
from alignment.ml.replies import Asker, Question
from alignment.ml.rouge import Pool, words_of
from alignment.records import PROPOSALS_NAME, ProposalRecord
from modelhub.ml.configs import RefusedError
from modelhub.ml.generate import prompts_read
from modelhub.ml.records import PromptRecord, records_write
from modelhub.ml.rundir import RunDir, program_run

_MARK = re.compile(
    r"^[ \t]*\**(?:task[ \t]+)?\d{1,3}[ \t]*[.:)：、]\**", re.IGNORECASE | re.MULTILINE
)

# Why a written prompt was not kept, in the order in which the reasons are looked for.
REASONS = ("cut_off", "too_short", "too_long", "refused_word", "bad_start", "alike")


def examples_draw(
    seeds: Sequence[str], written: Sequence[str], config: SelfInstructConfig, draw: random.Random
) -> list[str]:
    """The examples of one question, in the order they are shown."""
    few = min(config.machine_examples, len(written))
    many = min(config.seed_examples + config.machine_examples - few, len(seeds))
    chosen = [*draw.sample(list(seeds), many), *draw.sample(list(written), few)]
    draw.shuffle(chosen)
    return chosen


def question_lay(examples: Sequence[str]) -> tuple[dict[str, str], ...]:
    """What the model is asked, as one message."""
    shown = "\n".join(f"Task {n}: {' '.join(one.split())}" for n, one in enumerate(examples, 1))
    first = len(examples) + 1
    text = (
        "Here are tasks that people gave to an assistant. Continue the list with new tasks of many"
        f" kinds, numbered from {first}, one on a line. Write tasks alone, no answers.\n\n{shown}\n"
    )
    return ({"role": "user", "content": text},)


def reply_read(reply: str, *, is_whole: bool) -> list[tuple[str, bool]]:
    """The prompts of a reply, and whether each was written to its end.

    What stands before the first number belongs to nothing; an unnumbered reply has no prompt.
    """
    parts = [" ".join(part.split()) for part in _MARK.split(reply)[1:]]
    last = len(parts) - 1
    return [(part, is_whole or place < last) for place, part in enumerate(parts) if part]


def reason_against(text: str, *, is_whole: bool, pool: Pool, config: SelfInstructConfig) -> str:
    """The first of REASONS that speaks against a prompt; "" if none does."""
    words = words_of(text)
    spaced = f" {' '.join(words)} "
    refused = (
        f" {' '.join(words_of(one))} " if one.isascii() else " ".join(words_of(one))
        for one in config.refused_words
    )
    if not is_whole:
        return "cut_off"
    if len(words) < config.words_min:
        return "too_short"
    if len(words) > config.words_max:
        return "too_long"
    if any(one in spaced for one in refused):
        return "refused_word"
    if unicodedata.category(text[0])[0] not in "LN":
        return "bad_start"
    return "alike" if pool.holds_like(text, config.alike) else ""


def seeds_of(prompts: Sequence[PromptRecord]) -> list[str]:
    """The texts of prompts of one question alone: a conversation is no example of a task."""
    return [
        one.messages[0]["content"]
        for one in prompts
        if [message["role"] for message in one.messages] == ["user"]
    ]


def main(run: RunDir) -> None:
    config = run.config(SelfInstructConfig)
    seeds = seeds_of(prompts_read(run.input("seeds") / "prompts.jsonl"))
    if not seeds:
        raise RefusedError("there is no seed: no prompt is one question alone")
    asker, pool = Asker(run, config.sampling()), Pool(seeds)
    proposals: list[ProposalRecord] = []
    counts = Counter[str]()
    rounds = 0
    while rounds < config.rounds and len(proposals) < config.wanted:
        draw = random.Random(f"{config.seed}:{rounds}")  # noqa: S311
        written = [one.text for one in proposals]
        questions = [
            Question(
                name=f"{rounds}:{n}",
                messages=question_lay(examples_draw(seeds, written, config, draw)),
                temperature=config.temperature,
            )
            for n in range(config.questions)
        ]
        for reply in asker.ask(f"round-{rounds}", questions):
            counts["too_long_question"] += reply.finish_reason == "too_long"
            for text, is_whole in reply_read(reply.text, is_whole=reply.finish_reason == "stop"):
                counts["written"] += 1
                reason = reason_against(text, is_whole=is_whole, pool=pool, config=config)
                if reason:
                    counts[reason] += 1
                elif len(proposals) < config.wanted:
                    pool.add(text)
                    proposals.append(ProposalRecord(text=text, round=rounds))
        rounds += 1
        run.progress(len(proposals), config.wanted, "prompts")
        run.metric(rounds, {"kept": len(proposals), "written": counts["written"]})
    if counts["too_long_question"] == rounds * config.questions:
        raise RefusedError("no question had room in the context: fewer or shorter examples, please")
    records_write(run.output("proposals") / PROPOSALS_NAME, proposals)
    run.succeed(
        outputs={"proposals": "evaluation"},
        result={
            "seeds": len(seeds),
            "rounds": rounds,
            "written": counts["written"],
            "kept": len(proposals),
            "dropped": {reason: counts[reason] for reason in REASONS},
            "questions_too_long": counts["too_long_question"],
        },
    )


if __name__ == "__main__":
    program_run(main)
