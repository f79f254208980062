"""Go on from a run's checkpoint with other settings: another blend, more steps, samples left out.

The run that is left stays as it was. The new one has a link to the checkpoint, and everything that
was read before it is the same: what may be changed here changes no earlier sample.
"""

import math
from collections.abc import Sequence
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext

from modelhub import storage
from modelhub.errors import ApplicationError, ConflictError
from modelhub.ml.configs import ConfigError, config_load
from modelhub.ml.manifest import IntegrityError
from modelhub.ml.pretraining.configs import PretrainConfig, run_samples, sample_number
from modelhub.models import Run
from modelhub.services.history import act_record
from modelhub.services.runs import run_create


@transaction.atomic
def run_continue(
    *,
    run: Run,
    requested_by: User,
    from_step: int | None = None,
    steps: int | None = None,
    shares: Sequence[float] = (),
    shares_step: int | None = None,
    skip_samples: Sequence[str] = (),
) -> Run:
    """Queue a run that goes on from a checkpoint of a pretraining run that has stopped.

    from_step: of the checkpoint; none: the newest. steps: of the whole, the old run's unless
    given. shares: of every source, in the inputs' order, from `shares_step` on (the checkpoint's
    step unless given). skip_samples: numbers that are not read, "80-91".

    Raises ConflictError for a run that has not stopped, ApplicationError naming the field for a
    change that does not fit, or that would change what was read before.
    """
    if run.program != PretrainConfig.PROGRAM:
        raise ApplicationError(gettext("Only pretraining goes on with other settings."))
    if run.status not in (Run.Status.FAILED, Run.Status.CANCELLED):
        raise ConflictError(
            gettext("The run is %(status)s: cancel it first.") % {"status": run.status},
            {"status": run.status},
        )
    step, place = _checkpoint(run, from_step)
    old = config_load(PretrainConfig, run.config)
    _skipped_check(skip_samples, next_sample=sample_number(place, old.skipped_ranges))
    values = {
        **run.config,
        "steps": old.steps if steps is None else steps,
        "skip_samples": list(dict.fromkeys([*old.skip_samples, *skip_samples])),
        "continues": f"{run.uid}@{step}",
    }
    if values["steps"] <= step:
        raise ApplicationError(
            gettext("The checkpoint is of step %(step)s: ask for more steps.") % {"step": step},
            {"field": "steps"},
        )
    new = _loaded(values)
    if shares or (old.epoch_caps and run_samples(new) > run_samples(old)):
        begin = max(1, step if shares_step is None else shares_step)
        if not step <= begin < new.steps:
            raise ApplicationError(
                gettext("Shares change at a step from %(first)s to %(last)s.")
                % {"first": max(1, step), "last": new.steps - 1},
                {"field": "shares_step"},
            )
        if shares:
            _shares_check(run, shares)
            values["mixture"] = ""  # it is another one now
        first = sample_number(place + (begin - step) * old.blocks_per_step, new.skipped_ranges)
        first = _behind_skipped(old, new, first=first, is_other=bool(shares))
        values |= _blends(old, begin=begin, first=first, shares=list(shares))
    elif old.epoch_caps and run_samples(new) < run_samples(old):
        values |= _plans_kept(old)
    made = run_create(
        program=run.program,
        config=_loaded(values),
        inputs={one.role: one.artifact for one in run.inputs.select_related("artifact")},
        label=run.label,
        requested_by=requested_by,
        queue=run.queue,
        launcher=run.launcher,
        processes=run.processes,
        strategy=run.strategy,
        intent=run.intent,
    )
    act_record(actor=requested_by, subject=run, text=f"continued by {made} from step {step}")
    act_record(actor=requested_by, subject=made, text=f"goes on from {run}, step {step}")
    try:
        storage.checkpoint_hand_on(run, step, to=made)
    except IntegrityError as error:
        raise ApplicationError(f"{error}.", {"field": "from_step"}) from error
    return made


def _checkpoint(run: Run, asked: int | None) -> tuple[int, int]:
    """(the checkpoint's step, the place of the first sample behind it among those read)."""
    steps = storage.checkpoint_steps(run)
    if not steps:
        raise ApplicationError(gettext("The run has left no checkpoint."), {"field": "from_step"})
    step = steps[0] if asked is None else asked
    if step not in steps:
        raise ApplicationError(
            gettext("There are checkpoints of the steps %(steps)s.")
            % {"steps": ", ".join(map(str, steps))},
            {"field": "from_step"},
        )
    try:
        skips = storage.checkpoint_values(run, step)["progress"]["skips"]
        skipped = sum(int(samples) for _, samples in skips)
    except (IntegrityError, KeyError, TypeError, ValueError) as error:
        raise ApplicationError(
            gettext("The checkpoint of step %(step)s cannot be read.") % {"step": step},
            {"field": "from_step"},
        ) from error
    return step, step * config_load(PretrainConfig, run.config).blocks_per_step + skipped


def _blends(old: PretrainConfig, *, begin: int, first: int, shares: list[float]) -> dict[str, Any]:
    """Settings in which a blend takes over at sample `first`, and those before it are as they were.

    What was planned to come behind it still comes. No shares: the same as before it, with caps that
    are kept over the new length.
    """
    planned = {"planned_samples": old.planned_samples or run_samples(old)} if old.epoch_caps else {}
    before: dict[int, dict[str, Any]] = {}
    behind: dict[int, dict[str, Any]] = {}
    for step, asked in old.later_shares.items():
        at = int(step)
        given = dict(asked) if isinstance(asked, dict) else {"shares": asked}
        given.setdefault("first_sample", at * old.blocks_per_step)
        if given["first_sample"] < first:
            own = {"planned_samples": run_samples(old)} if old.epoch_caps else {}
            before[at] = own | given
        elif given["first_sample"] > first:
            given.pop("planned_samples", None)  # it is planned anew
            behind[at] = given
    latest = max(before.values(), key=lambda one: one["first_sample"], default=None)
    taken = shares or list(latest["shares"] if latest else old.shares)
    # The key is a step; one whose shares came earlier, for samples were skipped, may have it.
    label = next(at for at in range(begin, old.steps + begin + 1) if at not in before)
    found = {**behind, **before, label: {"shares": taken, "first_sample": first}}
    return {**planned, "later_shares": {str(at): found[at] for at in sorted(found)}}


def _plans_kept(old: PretrainConfig) -> dict[str, Any]:
    """Settings in which caps hold over the old length: a shorter run reads the same samples."""
    planned = run_samples(old)
    later = {
        step: {"planned_samples": planned}
        | (asked if isinstance(asked, dict) else {"shares": asked})
        for step, asked in old.later_shares.items()
    }
    return {"planned_samples": old.planned_samples or planned, "later_shares": later}


def _behind_skipped(old: PretrainConfig, new: PretrainConfig, *, first: int, is_other: bool) -> int:
    """The first sample of a blend, behind all that is left out: those numbers are of the old one.

    Raises ApplicationError where other shares were asked for before them.
    """
    ranges = [one for one in new.skipped_ranges if one[1] >= first and one[0] < run_samples(old)]
    if not ranges:
        return first
    if is_other:
        raise ApplicationError(
            gettext(
                "%(first)s-%(last)s: these numbers are of the shares so far; let the other shares "
                "begin behind them."
            )
            % {"first": ranges[-1][0], "last": ranges[-1][1]},
            {"field": "shares_step"},
        )
    return ranges[-1][1] + 1


def _shares_check(run: Run, shares: Sequence[float]) -> None:
    roles = run.inputs.values_list("role", flat=True)
    sources = [role for role in roles if role.partition("_")[0] in ("tokens", "replay")]
    fits = len(shares) == len(sources) and all(0 <= share < math.inf for share in shares)
    if not fits or sum(shares) <= 0:
        raise ApplicationError(
            gettext("%(number)s shares are wanted, one for each source, none below 0.")
            % {"number": len(sources)},
            {"field": "shares"},
        )


def _skipped_check(skip_samples: Sequence[str], *, next_sample: int) -> None:
    """What was read before the checkpoint is in its weights, and cannot be left out any more."""
    for text in skip_samples:
        first = text.partition("-")[0]
        if first.isdecimal() and int(first) < next_sample:
            raise ApplicationError(
                gettext(
                    "%(text)s: the checkpoint has read all samples before %(next)s; go on from an "
                    "earlier one."
                )
                % {"text": text, "next": next_sample},
                {"field": "skip_samples"},
            )


def _loaded(values: dict[str, Any]) -> PretrainConfig:
    try:
        return config_load(PretrainConfig, values)
    except ConfigError as error:
        raise ApplicationError(f"{error}.") from error
