"""Who may see and drive rounds: the managers of the campaign's project, and nobody else.

To everyone else a campaign, a round or a candidate's lineage does not exist (404).
"""

from django.http import Http404

from alignment.models import Campaign, Round, RoundRun
from annotation.models import Candidate
from annotation.policy import Person, projects_managed


def campaign_for(user: Person, uid: str) -> Campaign:
    """The campaign, for a manager of its project. Raises Http404 otherwise."""
    campaign = (
        Campaign.objects.select_related(
            "project", "base_version__model", "policy_model", "reward_model"
        )
        .filter(uid=uid, project__in=projects_managed(user))
        .first()
    )
    if campaign is None:
        raise Http404("Not found.")
    return campaign


def round_for(user: Person, uid: str) -> Round:
    """The round, for a manager of its project. Raises Http404 otherwise."""
    round = (
        Round.objects.select_related(
            "campaign__project",
            "campaign__policy_model",
            "policy_in__model",
            "policy_out__model",
            "reward_version__model",
            "dataset__project",
            "batch",
            "started_by",
        )
        .filter(uid=uid, campaign__project__in=projects_managed(user))
        .first()
    )
    if round is None:
        raise Http404("Not found.")
    return round


def round_run_for(user: Person, round_uid: str, run_uid: str) -> RoundRun:
    """A run of a round, for a manager of its project. Raises Http404 otherwise."""
    round = round_for(user, round_uid)
    link = round.round_runs.select_related("run", "round").filter(run__uid=run_uid).first()
    if link is None:
        raise Http404("Not found.")
    return link


def candidate_for(user: Person, uid: str) -> Candidate:
    """A candidate, for a manager of its project. Raises Http404 otherwise."""
    candidate = (
        Candidate.objects.select_related("prompt__project", "batch", "version__model")
        .filter(uid=uid, prompt__project__in=projects_managed(user))
        .first()
    )
    if candidate is None:
        raise Http404("Not found.")
    return candidate
