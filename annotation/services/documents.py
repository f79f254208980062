"""Documents of corpora sent to annotators, and what they say of them handed down to the hub.

A document is asked about as a rating: 5 to 7 is good to learn from, 1 to 3 is bad, 4 says neither.
What counts of it, and who said it, is kept as a judgement of the document, where the rules of
cleaning are held against it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext

from annotation.models import (
    IMPORT_ENGINE,
    Candidate,
    Project,
    Prompt,
    SampledDocument,
    Submission,
    Task,
)
from annotation.services.task_forms import task_form_save
from annotation.services.tasks import tasks_create
from annotation.splits import content_hash, group_hash, split_of
from annotation.task_forms import DOCUMENT_FORM, DOCUMENT_QUESTION
from modelhub.errors import ApplicationError
from modelhub.ml.corpora.documents import Document, documents_at, has_signals
from modelhub.ml.corpora.rules import RULES
from modelhub.models import Artifact, RunOutput
from modelhub.selectors.document_samples import ANYWHERE, EVERY_RULE, documents_sample
from modelhub.services.corpora import document_judgement_keep, document_judgement_withdraw
from modelhub.storage import artifact_folder

MAX_DOCUMENTS = 500
SHOWN_CHARACTERS = 12_000  # of a document; of a longer one people judge the beginning
BAD_AT_MOST, GOOD_AT_LEAST = 3, 5


@dataclass(frozen=True, kw_only=True)
class DocumentsSent:
    """What was sent: the tasks made, and the project they are in."""

    project: Project
    made: int


@transaction.atomic
def documents_send(
    *,
    project: Project,
    corpus: RunOutput,
    thresholds: Mapping[str, float],
    near: str,
    count: int,
    overlap: int | None = None,
) -> DocumentsSent:
    """Make rating tasks of documents that nobody was asked about; see `documents_sample`.

    In a project that has no form for ratings yet, it asks for reasons that documents have.
    Raises ApplicationError for a rule that is not, a corpus of which nothing was measured, or one
    that has no such document left.
    """
    if near not in (ANYWHERE, EVERY_RULE, *RULES):
        raise ApplicationError(
            gettext("There is no rule %(near)s.") % {"near": f"{near!r:.80}"}, {"field": "near"}
        )
    if not 1 <= count <= MAX_DOCUMENTS:
        raise ApplicationError(
            gettext("Send 1 to %(most)s documents; got %(count)s.")
            % {"most": MAX_DOCUMENTS, "count": count},
            {"field": "count"},
        )
    folder = artifact_folder(corpus.artifact)
    if not has_signals(folder):
        raise ApplicationError(
            gettext("Nothing was measured of this corpus: import it again."), {"field": "corpus"}
        )
    # Two calls at once would each take the same documents.
    Artifact.objects.select_for_update(no_key=True).get(pk=corpus.artifact_id)
    known = set(
        SampledDocument.objects.filter(corpus=corpus.artifact).values_list("place", flat=True)
    ) | set(corpus.artifact.judgements.values_list("place", flat=True))
    places = documents_sample(
        corpus=corpus.artifact, thresholds=thresholds, near=near, count=count, without=known
    )
    if not places:
        raise ApplicationError(
            gettext("No document is left to ask about: each was judged or sent already."),
            {"field": "near"},
        )
    if not project.task_forms.filter(kind=Task.Kind.RATING).exists():
        task_form_save(project=project, kind=Task.Kind.RATING, settings=DOCUMENT_FORM.as_json())
    documents = documents_at(folder, places)
    prompts = Prompt.objects.bulk_create(
        _prompt(project, corpus, place, document)
        for place, document in zip(places, documents, strict=True)
    )
    candidates = Candidate.objects.bulk_create(
        Candidate(prompt=prompt, text=_shown(document), decoding={"engine": IMPORT_ENGINE})
        for prompt, document in zip(prompts, documents, strict=True)
    )
    SampledDocument.objects.bulk_create(
        SampledDocument(candidate=candidate, corpus=corpus.artifact, place=place)
        for candidate, place in zip(candidates, places, strict=True)
    )
    made = tasks_create(
        project=project,
        kind=Task.Kind.RATING,
        prompts=Prompt.objects.filter(pk__in=[one.pk for one in prompts]),
        overlap=overlap,
    )
    return DocumentsSent(project=project, made=made.made)


def document_judgement_hand_down(*, submission: Submission) -> None:
    """Let the hub have what a rating says of a document, or take back what no longer counts.

    Nothing for other tasks, for programs, and for a test. One query for a rating of anything else.
    """
    if submission.task.kind != Task.Kind.RATING or submission.is_simulated:
        return
    documents = SampledDocument.objects.filter(candidate__in_tasks__task=submission.task_id)
    document = documents.select_related("candidate", "corpus").first()
    if document is None or submission.task.is_qualification:
        return
    author = submission.annotator.user
    origin = f"submission {submission.uid}"
    overall = submission.rating.ratings[document.candidate.uid]["overall"]
    counts = submission.status == Submission.Status.ACCEPTED
    if counts and not BAD_AT_MOST < overall < GOOD_AT_LEAST:
        document_judgement_keep(
            corpus=document.corpus,
            place=document.place,
            is_good=overall >= GOOD_AT_LEAST,
            author=author,
            origin=origin,
        )
    else:
        document_judgement_withdraw(
            corpus=document.corpus, place=document.place, author=author, origin=origin
        )


def _prompt(project: Project, corpus: RunOutput, place: int, document: Document) -> Prompt:
    # Kept in one language, whoever sends it; annotators are shown the question in theirs.
    where = (
        f"Document {_storable(document.id[:200])} of {_storable(document.source[:80])}, "
        f"place {place} of corpus {corpus.artifact.sha256[:12]}."
    )
    messages = [{"role": "user", "content": f"{where}\n\n{DOCUMENT_QUESTION}"}]
    group = group_hash(messages)
    return Prompt(
        project=project,
        messages=messages,
        content_hash=content_hash(messages),
        group_hash=group,
        split=split_of(group, settings.PROMPT_SPLIT_SHARES),
        source=Prompt.OF_CORPUS,
    )


def _shown(document: Document) -> str:
    text = _storable(document.text)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} …"


def _storable(text: str) -> str:
    """PostgreSQL's text holds no NUL, and a page of the web may."""
    return text.replace("\x00", "\ufffd")
