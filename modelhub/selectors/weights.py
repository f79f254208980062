"""Two versions' weights held against each other, tensor by tensor, by their hashes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.db.models import Q, QuerySet
from django.utils.translation import gettext

from modelhub.errors import ApplicationError
from modelhub.ml.manifest import manifest_tensors, tensors_are_listed
from modelhub.models import Artifact, ModelVersion
from modelhub.storage import artifact_folder

_LAYER = re.compile(r"^(.*?\.\d+)\.")
_DIGITS = re.compile(r"(\d+)")
_MAX_BYTES_AT_ONCE = 4 << 30  # of files without hashes of tensors, hashed while a person waits


@dataclass(frozen=True, kw_only=True)
class WeightsGroup:
    """The tensors of one layer, or those that are of none, by their names within it.

    Of `layers` layers in a row of which the same is to be said there is one group, called by the
    first and the last of them.
    """

    name: str
    layers: int = 1
    same: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    only_here: list[str] = field(default_factory=list)
    only_there: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class WeightsComparison:
    """What two versions share: tensors with the same name, type, shape and bytes."""

    groups: list[WeightsGroup]
    tensors: int  # of this version
    size_bytes: int
    same: int
    same_bytes: int
    changed: int
    only_here: int
    only_there: int


def weights_compare(*, here: Artifact, there: Artifact) -> WeightsComparison:
    """Compare two artifacts' tensors. No query; reads their manifests.

    Raises ApplicationError for a large artifact that was stored without hashes of its tensors.
    """
    return tensors_compare(_tensors_of(here), _tensors_of(there))


def tensors_compare(here: Mapping[str, Any], there: Mapping[str, Any]) -> WeightsComparison:
    """Compare {name: {"sha256", "dtype", "shape", "bytes"}} with another; layer 2 is before 10."""
    same = {name for name, one in here.items() if there.get(name) == one}
    groups: dict[str, WeightsGroup] = {}
    for name in {**here, **there}:
        layer = _LAYER.match(name)
        title = layer[1] if layer else ""
        group = groups.setdefault(title, WeightsGroup(name=title))
        kind = (
            group.same
            if name in same
            else group.only_here
            if name not in there
            else group.only_there
            if name not in here
            else group.changed
        )
        kind.append(name.removeprefix(f"{title}.") if title else name)
    return WeightsComparison(
        groups=_in_rows([groups[title] for title in sorted(groups, key=_by_number)]),
        tensors=len(here),
        size_bytes=sum(one["bytes"] for one in here.values()),
        same=len(same),
        same_bytes=sum(here[name]["bytes"] for name in same),
        changed=sum(len(one.changed) for one in groups.values()),
        only_here=sum(len(one.only_here) for one in groups.values()),
        only_there=sum(len(one.only_there) for one in groups.values()),
    )


def _in_rows(groups: list[WeightsGroup]) -> list[WeightsGroup]:
    """Layers in a row that differ alike as one: what is tuned is mostly tuned in all of them."""
    rows: list[list[WeightsGroup]] = []
    for group in groups:
        if rows and _goes_on(rows[-1][-1], group):
            rows[-1].append(group)
        else:
            rows.append([group])
    return [
        replace(row[0], name=f"{row[0].name}–{_last_number(row[-1].name)}", layers=len(row))
        if len(row) > 1
        else row[0]
        for row in rows
    ]


def _goes_on(before: WeightsGroup, after: WeightsGroup) -> bool:
    """Whether a group is the layer behind another and differs in the same tensors."""
    stem, _, number = before.name.rpartition(".")
    if not number.isdigit() or after.name != f"{stem}.{int(number) + 1}":
        return False
    return _differing(before) == _differing(after)


def _differing(group: WeightsGroup) -> tuple[set[str], ...]:
    kinds = (group.same, group.changed, group.only_here, group.only_there)
    return tuple(map(set, kinds))


def _last_number(name: str) -> str:
    return name.rpartition(".")[2]


def _by_number(title: str) -> list[str | int]:
    """Files list their tensors by the alphabet, model.layers.10 before model.layers.2."""
    return [int(part) if part.isdigit() else part for part in _DIGITS.split(title)]


def versions_beside(*, version: ModelVersion, asked_uid: str = "") -> QuerySet[ModelVersion]:
    """The versions offered beside it: its parent, its children, its model's, and one that is asked
    for by its uid. One query."""
    near = Q(model=version.model_id) | Q(parent=version.pk) | Q(pk=version.parent_id)
    near |= Q(uid=asked_uid)
    others = ModelVersion.objects.filter(near).exclude(pk=version.pk).select_related("model")
    return others.select_related("artifact").order_by("model__name", "-number")


def _tensors_of(artifact: Artifact) -> dict[str, dict[str, Any]]:
    folder = artifact_folder(artifact)
    if not tensors_are_listed(folder) and artifact.size_bytes > _MAX_BYTES_AT_ONCE:
        raise ApplicationError(
            gettext("%(artifact)s was stored without hashes of its tensors.")
            % {"artifact": artifact}
        )
    return manifest_tensors(folder)
