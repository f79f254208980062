"""A corpus is cleaned by thresholds that are kept, held against what projects keep apart."""

from collections.abc import Mapping, Sequence

from django.contrib.auth.models import User
from django.db import transaction

from alignment.methods import METHODS
from alignment.services.launches import inputs_resolve
from modelhub.models import Run, RunOutput
from modelhub.services.corpora import corpus_clean_request, rule_set_save

# Inputs of a cleaning beside its corpus.
HELD_AGAINST = ("evaluation", "held_out", "known", "bad_words")


@transaction.atomic
def cleaning_request(
    *,
    corpus: RunOutput,
    name: str,
    thresholds: Mapping[str, float],
    against: Mapping[str, Sequence[str]],
    requested_by: User,
    note: str = "",
) -> Run:
    """Keep thresholds under the next number of a name, and queue the cleaning by them.

    against: references by role, each of HELD_AGAINST, as a launch names them. Raises
    ApplicationError for one that the person may not have or that does not fit, for the corpus
    itself, for a project without held-out prompts, and for a rule that is not; then nothing is
    kept.
    """
    own = f"run/{corpus.run.uid}/{corpus.role}"
    given = inputs_resolve(METHODS["clean_corpus"], {**against, "corpus": own}, requested_by)
    rule_set = rule_set_save(name=name, thresholds=thresholds, author=requested_by, note=note)
    return corpus_clean_request(
        corpus=corpus.artifact,
        rule_set=rule_set,
        source=str((corpus.run.result or {}).get("source", "")) or corpus.run.label,
        requested_by=requested_by,
        against={role: one.artifact for role, one in given.items() if role != "corpus"},
    )
