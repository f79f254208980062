"""Corpora come in and are cleaned by runs; the thresholds of a cleaning are kept, numbered."""

from collections.abc import Mapping
from dataclasses import replace

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext

from modelhub.errors import ApplicationError
from modelhub.ml.configs import ConfigError
from modelhub.ml.corpora.configs import CleanCorpusConfig, ImportCorpusConfig
from modelhub.ml.corpora.documents import documents_count
from modelhub.ml.corpora.rules import thresholds_of
from modelhub.models import Artifact, DocumentJudgement, RuleSet, Run
from modelhub.services.imports import import_path
from modelhub.services.numbering import numbered_create
from modelhub.services.runs import run_create
from modelhub.storage import artifact_folder

# What the server reads of other machines; a path is below an import folder.
ADDRESSES = ("http://", "https://", "s3://", "gs://", "gcs://", "az://", "abfs://")


@transaction.atomic
def corpus_import_request(*, config: ImportCorpusConfig, requested_by: User | None) -> Run:
    """Queue the import of texts. Files and folders are taken from below settings.IMPORT_ROOTS.

    Raises ApplicationError naming the location it refuses.
    """
    locations = tuple(
        location if location.startswith(ADDRESSES) else str(_path(location))
        for location in config.locations
    )
    return run_create(
        program=config.PROGRAM,
        config=replace(config, locations=locations),
        inputs={},
        label=f"import corpus {config.source}",
        requested_by=requested_by,
    )


def _path(location: str) -> str:
    try:
        return str(import_path(location))
    except ApplicationError as error:
        raise ApplicationError(error.message, {"field": "locations"}) from error


def rule_set_save(
    *, name: str, thresholds: Mapping[str, float], author: User, note: str = ""
) -> RuleSet:
    """Keep thresholds under the next number of a name; the same as its newest is that one.

    Of simultaneous calls each gets a number of its own. Raises ApplicationError for a rule that is
    not.
    """
    try:
        checked = thresholds_of((), thresholds)
    except ConfigError as error:
        raise ApplicationError(str(error), {"field": "thresholds"}) from error
    return numbered_create(
        rows=RuleSet.objects.filter(name=name),
        is_same=lambda newest: newest.thresholds == checked,
        create=lambda number: RuleSet.objects.create(
            name=name, number=number, thresholds=checked, author=author, note=note[:300]
        ),
    )


def document_judge(*, corpus: Artifact, place: int, is_good: bool | None, author: User) -> None:
    """Say whether a document is good to learn from; None takes back what the author said.

    Raises ApplicationError for a place that the corpus has not.
    """
    if not 0 <= place < documents_count(artifact_folder(corpus)):
        raise ApplicationError(
            gettext("The corpus has no document at place %(place)s.") % {"place": place},
            {"field": "place"},
        )
    if is_good is None:
        DocumentJudgement.objects.filter(corpus=corpus, place=place, author=author).delete()
    else:
        document_judgement_keep(corpus=corpus, place=place, is_good=is_good, author=author)


def document_judgement_keep(
    *, corpus: Artifact, place: int, is_good: bool, author: User, origin: str = ""
) -> None:
    """Keep what somebody said of a document that is there; the newest word of a person stands."""
    DocumentJudgement.objects.update_or_create(
        corpus=corpus,
        place=place,
        author=author,
        origin=origin,
        defaults={"is_good": is_good},
    )


def document_judgement_withdraw(*, corpus: Artifact, place: int, author: User, origin: str) -> None:
    """Take back what was said at one origin; what its author said elsewhere stands again."""
    DocumentJudgement.objects.filter(
        corpus=corpus, place=place, author=author, origin=origin
    ).delete()


@transaction.atomic
def corpus_clean_request(
    *,
    corpus: Artifact,
    rule_set: RuleSet,
    source: str,
    requested_by: User,
    against: Mapping[str, Artifact] | None = None,
) -> Run:
    """Queue the cleaning of a corpus by saved thresholds; all else as CleanCorpusConfig has it.

    against: what it is held against, by role ("evaluation_1", "held_out_1", "known_1", …).

    Raises ApplicationError for an artifact that is no corpus.
    """
    if corpus.kind != Artifact.Kind.CORPUS:
        raise ApplicationError(
            gettext("Only a corpus can be cleaned, this is %(kind)s.")
            % {"kind": corpus.get_kind_display()}
        )
    config = CleanCorpusConfig(
        families=(), thresholds=dict(rule_set.thresholds), rule_set=str(rule_set)
    )
    return run_create(
        program=config.PROGRAM,
        config=config,
        inputs={"corpus": corpus, **(against or {})},
        label=f"clean {source} by {rule_set}",
        requested_by=requested_by,
    )
