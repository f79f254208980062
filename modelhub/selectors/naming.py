"""What people call an artifact, wherever one is chosen or shown: what it is of, how much, when.

An artifact's own name is a hash; its run knows what went in and what came of it. No query, if what
NAMED names was fetched along.
"""

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.template.defaultfilters import filesizeformat
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext, ngettext

from modelhub.json_text import count_text
from modelhub.models import Artifact, Run, RunOutput

# To be prefetched of outputs: token sets are called by their tokenizer too.
NAMED = ("run__inputs__artifact__made_by__run", "run__inputs__artifact__versions__model")
# The same of artifacts.
NAMED_ARTIFACT = ("versions__model", *(f"made_by__{one}" for one in NAMED))


def output_title(output: RunOutput) -> str:
    """What an output is: "shakespeare, cleaned by gopher: 33 of 2,096 documents"."""
    made, run = output.artifact, output.run
    name = {
        Artifact.Kind.CORPUS: _corpus,
        Artifact.Kind.TOKENIZER: _tokenizer,
        Artifact.Kind.TOKENS: _tokens,
    }.get(Artifact.Kind(made.kind))
    told = name(run, run.result or {}) if name and output.role == made.kind else ""
    if told:
        return told
    what = made.get_kind_display() if output.role == made.kind else output.role.replace("_", " ")
    return gettext("%(what)s of %(label)s, %(size)s") % {
        "what": what,
        "label": run.label or run.program,
        "size": filesizeformat(made.size_bytes),
    }


def output_name(output: RunOutput) -> str:
    """The title with when it was made and by which run, so that no two are called alike."""
    return f"{output_title(output)} · {run_mark(output.run)}"


def run_mark(run: Run) -> str:
    """When a run ended, and the part of its uid that pages show: "2026-11-29 20:15 · e95e3ad1"."""
    when = timezone.localtime(run.ended_at or run.created_at)
    return f"{when:%Y-%m-%d %H:%M} · {run.uid[:8]}"


def artifact_title_for(artifact: Artifact, *, user: User | None) -> str:
    """The title in the words of the app that settings.ARTIFACT_TITLES names for the kind, if it has
    any for the user. The queries are that app's."""
    path = settings.ARTIFACT_TITLES.get(artifact.kind)
    told: str = import_string(path)(artifact=artifact, user=user) if path and user else ""
    return told or artifact_title(artifact)


def artifact_title(artifact: Artifact) -> str:
    """What an artifact is: its versions, or the title of the run's output that it is."""
    versions = ", ".join(str(one) for one in artifact.versions.all())
    made_by = next(iter(artifact.made_by.all()), None)
    if versions or made_by is None:
        return versions or str(artifact.get_kind_display())
    made_by.artifact = artifact  # as it was reached: no query
    return output_title(made_by)


def _corpus(run: Run, result: Mapping[str, Any]) -> str:
    source, documents = result.get("source"), result.get("documents")
    if not source or documents is None:
        return ""
    if "documents_before" not in result:
        return ngettext(
            "%(source)s: %(documents)s document", "%(source)s: %(documents)s documents", documents
        ) % {"source": source, "documents": f"{documents:,}"}
    rules = run.config.get("rule_set") or ", ".join(run.config.get("families", ()))
    return gettext("%(source)s, cleaned by %(rules)s: %(documents)s of %(before)s documents") % {
        "source": source,
        "rules": rules or gettext("duplicates alone"),
        "documents": f"{documents:,}",
        "before": f"{result['documents_before']:,}",
    }


def _tokenizer(run: Run, result: Mapping[str, Any]) -> str:
    if "algorithm" not in result:
        return ""
    sources = dict.fromkeys(str(one.get("source", "")) for one in result.get("fertility", ()))
    return gettext("%(algorithm)s of %(vocabulary)s on %(sources)s") % {
        "algorithm": result["algorithm"],
        "vocabulary": f"{result.get('vocabulary', 0):,}",
        "sources": _listed(sources) or run.label,
    }


def _tokens(run: Run, result: Mapping[str, Any]) -> str:
    if "tokens" not in result:
        return ""
    sources = dict.fromkeys(str(one.get("source", "")) for one in result.get("sources", ()))
    title = gettext("%(sources)s: %(count)s tokens") % {
        "sources": _listed(sources) or run.label,
        "count": count_text(result["tokens"]),
    }
    with_tokenizer = (one for one in run.inputs.all() if one.role == "tokenizer")
    tokenizer = next(with_tokenizer, None)
    if tokenizer is None:
        return title
    by = artifact_title(tokenizer.artifact)
    return gettext("%(tokens)s by %(tokenizer)s") % {"tokens": title, "tokenizer": by}


def _listed(names: Mapping[str, Any]) -> str:
    given = [name for name in names if name]
    more = "…" if len(given) > 3 else ""
    return ", ".join(given[:3]) + more
