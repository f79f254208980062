"""What the annotator's page is given to show."""

from dataclasses import asdict
from typing import Any

from annotation.models import Assignment, TaskCandidate
from annotation.rendering import markdown_render, messages_render, words_count
from annotation.selectors.people import annotator_progress
from annotation.shown_order import order_shuffled


def rank_payload(*, assignment: Assignment) -> dict[str, Any]:
    """All that the ranking page shows of an assignment, as JSON; seven queries.

    Blind: answers come in the shown order, under letters, without the model or the sampling that
    made them. HTML is rendered and safe (annotation.rendering); lengths are in words.
    """
    task = assignment.task
    texts = dict(
        TaskCandidate.objects.filter(task=task).values_list("candidate__uid", "candidate__text")
    )
    guideline = assignment.guideline
    progress = annotator_progress(membership=assignment.annotator)
    return {
        "assignment": {
            "uid": assignment.uid,
            "state": assignment.state,
            "lease_until": assignment.lease_until.isoformat(),
            "draft": assignment.draft,
            "draft_sequence": assignment.draft_sequence,
        },
        "task": {"uid": task.uid, "kind": task.kind},
        "prompt": {"messages": messages_render(task.prompt.messages)},
        "candidates": [
            {
                "uid": uid,
                "letter": letter_of(place),
                "html": markdown_render(texts[uid]),
                "words": words_count(texts[uid]),
            }
            for place, uid in enumerate(order_shuffled(texts, seed=assignment.shuffle_seed))
        ],
        "guideline": guideline
        and {"number": guideline.number, "html": markdown_render(guideline.text)},
        "progress": asdict(progress),
    }


def letter_of(place: int) -> str:
    """A, B, …, Z, AA, AB, …: what the answer shown at a place (from 0) is called."""
    letters = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters
