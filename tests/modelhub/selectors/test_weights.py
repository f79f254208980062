"""Versions held against each other tensor by tensor."""

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from modelhub.models import Artifact, ModelVersion
from modelhub.selectors.weights import tensors_compare, weights_compare
from modelhub.services.artifacts import artifact_store
from modelhub.services.versions import model_get_or_create, model_version_register
from tests.modelhub.ml.test_manifest import folder_of

pytestmark = pytest.mark.django_db
FACTS = {"architecture": "Llama", "parameters": 1, "dtype": "float32", "context_tokens": 8}
BASE = {"embed.weight": [1.0, 2.0], "layers.0.q": [1.0], "layers.0.k": [2.0], "layers.1.q": [3.0]}
# The first layer's q has moved, the second layer's is of another shape, a head is new.
TUNED = {**BASE, "layers.0.q": [1.5], "layers.1.q": [3.0, 0.0], "head.weight": [9.0]}


def version_of(
    tmp_path: Path, name: str, tensors: dict[str, list[float]], parent: ModelVersion | None = None
) -> ModelVersion:
    folder = folder_of(tmp_path / name, tensors)
    return model_version_register(
        model=model_get_or_create(name=name),
        role="base",
        artifact=artifact_store(folder=folder, kind=Artifact.Kind.MODEL),
        parent=parent,
        run=None,
        facts=FACTS,
    )


def test_what_is_the_same_changed_and_in_one_alone(tmp_path: Path) -> None:
    base = version_of(tmp_path, "base", BASE)
    tuned = version_of(tmp_path, "tuned", TUNED, base)
    found = weights_compare(here=tuned.artifact, there=base.artifact)
    assert (found.tensors, found.size_bytes) == (5, 4 * 7)
    assert (found.same, found.same_bytes, found.changed) == (2, 4 * 3, 2)
    assert (found.only_here, found.only_there) == (1, 0)
    assert [(one.name, one.same, one.changed, one.only_here) for one in found.groups] == [
        ("", ["embed.weight"], [], ["head.weight"]),
        ("layers.0", ["k"], ["q"], []),
        ("layers.1", [], ["q"], []),
    ]
    # The row holds no hash of a tensor: a large model has thousands.
    assert set(tuned.artifact.manifest) == {"files"}


def test_layers_come_by_number_and_not_by_the_alphabet() -> None:
    one = {"sha256": "a", "dtype": "F32", "shape": [1], "bytes": 4}
    names = ("layers.0.q", "layers.10.q", "layers.2.q", "norm")
    found = tensors_compare(dict.fromkeys(names, one), {})
    assert [group.name for group in found.groups] == ["", "layers.0", "layers.2", "layers.10"]


def test_layers_in_a_row_that_differ_alike_are_one_row(
    tmp_path: Path, eve: User, signed_in
) -> None:
    names = [f"layers.{layer}.{name}" for layer in range(30) for name in ("q", "k", "norm")]
    one = {name: [float(place)] for place, name in enumerate(names)}
    # Tuned: q and k of every layer, but k of layer 12 alone is left.
    other = {
        name: [-1.0] if not name.endswith("norm") and name != "layers.12.k" else value
        for name, value in one.items()
    }
    base = version_of(tmp_path, "base", {**one, "embed": [0.5]})
    tuned = version_of(tmp_path, "tuned", {**other, "embed": [0.5]}, base)
    found = weights_compare(here=tuned.artifact, there=base.artifact)
    rows = [(row.name, row.layers, row.same, sorted(row.changed)) for row in found.groups]
    assert [(name, layers) for name, layers, _, _ in rows] == [
        ("", 1),
        ("layers.0–11", 12),
        ("layers.12", 1),
        ("layers.13–29", 17),
    ]
    assert rows[1][2:] == (["norm"], ["k", "q"]) and sorted(rows[2][2]) == ["k", "norm"]
    assert found.changed == 59  # what is counted is counted in every layer
    page = signed_in(eve).get(reverse("version_weights", args=[tuned.uid])).content.decode()
    assert "17 layers alike" in page and page.count("k, ") + page.count("q, ") <= 4


def test_nothing_beside_nothing() -> None:
    found = tensors_compare({}, {})
    assert (found.groups, found.tensors, found.same) == ([], 0, 0)


def test_the_page_holds_a_version_against_its_parent(tmp_path: Path, eve: User, signed_in) -> None:
    base = version_of(tmp_path, "base", BASE)
    tuned = version_of(tmp_path, "tuned", TUNED, base)
    client = signed_in(eve)
    page = client.get(reverse("version_weights", args=[tuned.uid])).content.decode()
    assert "base v1 (its parent)" in page and "layers.0" in page
    assert '<span class="value">2 <small>/ 5</small>' in page
    back = client.get(reverse("version_weights", args=[base.uid])).content.decode()
    assert "in tuned v1 alone" in back
    alone = version_of(tmp_path, "alone", {"w": [1.0]})
    page = client.get(reverse("version_weights", args=[alone.uid])).content.decode()
    assert "Nothing to hold it against" in page


def test_a_version_of_another_line_is_beside_it_where_it_is_asked_for(
    tmp_path: Path, eve: User, signed_in
) -> None:
    base, other = version_of(tmp_path, "base", BASE), version_of(tmp_path, "other", TUNED)
    address = reverse("version_weights", args=[base.uid])
    assert "Nothing to hold it against" in signed_in(eve).get(address).content.decode()
    page = signed_in(eve).get(address, {"beside": other.uid})
    assert page.context["beside"] == other
    assert page.context["comparison"].changed == 2
