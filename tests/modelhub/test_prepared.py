"""Queries that are compiled once."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction
from django.db.models import F

from modelhub.models import Artifact, Model, ModelVersion, Run
from modelhub.prepared import Prepared, PreparedObjects, PreparedUpdate, row_insert

pytestmark = pytest.mark.django_db


def test_the_rows_are_those_of_the_queryset_for_each_value(django_assert_num_queries) -> None:
    made = [Model.objects.create(name=name) for name in ("a", "b", "c")]
    builds = []

    def build(above: int):
        builds.append(above)
        return Model.objects.filter(pk__gt=above, name__gt="").order_by("-pk").values_list("name")

    prepared = Prepared(build, numbers=("above",))
    with django_assert_num_queries(2):
        assert prepared.rows(above=made[0].pk) == [("c",), ("b",)]
        assert prepared.rows(above=made[1].pk) == [("c",)]
    assert len(builds) == 2  # for the one SQL


def test_a_value_that_does_not_reach_the_query_is_refused() -> None:
    prepared = Prepared(
        lambda pk: Model.objects.values_list("pk"),
        numbers=("pk",),
    )
    with pytest.raises(ValueError, match="pk"):
        prepared.rows(pk=1)


def test_both_kinds_of_values_reach_the_database() -> None:
    old, new = (Run.objects.create(program="generate", config={}) for _ in range(2))
    now = datetime.now(UTC)
    Run.objects.filter(pk=old.pk).update(started_at=now - timedelta(days=3))
    Run.objects.filter(pk=new.pk).update(started_at=now)
    prepared = Prepared(
        lambda least, most, since: Run.objects.filter(
            pk__gte=least, pk__lte=most, started_at__gte=since
        ).values_list("pk"),
        numbers=("least", "most"),
        times=("since",),
    )
    since = now - timedelta(days=1)
    assert prepared.rows(least=old.pk, most=new.pk, since=since) == [(new.pk,)]
    assert prepared.rows(least=old.pk, most=old.pk, since=since) == []


def test_objects_are_whole_and_bring_what_was_selected_with_them(
    django_assert_num_queries,
) -> None:
    model = Model.objects.create(name="a")
    version = ModelVersion.objects.create(
        model=model,
        number=1,
        role="policy",
        artifact=Artifact.objects.create(sha256="a" * 64, kind="model", manifest={}, size_bytes=0),
        parameters=1,
        context_tokens=1,
        card="it's 100 % ours",
        facts={"loss": 1.5},
    )
    prepared = PreparedObjects(
        lambda uid: ModelVersion.objects.filter(uid=uid).select_related("model", "parent"),
        texts=("uid",),
    )
    with django_assert_num_queries(1):
        (found,) = prepared.objects(uid=version.uid)
        assert found.model.name == "a"
        assert found.parent is None
    version.refresh_from_db()
    for field in ModelVersion._meta.concrete_fields:
        assert getattr(found, field.attname) == getattr(version, field.attname), field
    assert not found._state.adding
    assert prepared.first(uid="another") is None


def test_an_update_changes_the_rows_it_was_built_for_and_counts_them() -> None:
    one, other = (Run.objects.create(program="generate", config={}) for _ in range(2))
    prepared = PreparedUpdate(
        lambda run, now, program: (
            Run.objects.filter(pk=run, started_at=None),
            {"started_at": now, "fence": F("fence") + 1, "program": program},
        ),
        numbers=("run",),
        texts=("program",),
        times=("now",),
    )
    now = datetime.now(UTC)
    assert prepared.run(run=one.pk, now=now, program="sft") == 1
    assert prepared.run(run=one.pk, now=now, program="reward") == 0  # it has begun
    one.refresh_from_db()
    assert (one.started_at, one.fence, one.program) == (now, 1, "sft")
    other.refresh_from_db()
    assert (other.started_at, other.fence) == (None, 0)


def test_an_inserted_row_is_the_one_that_save_would_make(django_assert_num_queries) -> None:
    with django_assert_num_queries(1):
        made = row_insert(Run(program="generate", config={"texts": ["it's 100 %s", None, 1.5]}))
    assert not made._state.adding
    stored = Run.objects.get(pk=made.pk)
    saved = Run.objects.create(program="generate", config=made.config)
    assert saved.pk == made.pk + 1
    for field in Run._meta.concrete_fields:
        assert getattr(stored, field.attname) == getattr(made, field.attname), field
    with pytest.raises(IntegrityError), transaction.atomic():
        row_insert(Run(program="generate", config={}, uid=made.uid))


def test_a_text_that_is_always_the_same_reaches_the_database_as_it_is() -> None:
    for name in ("it's", "100 %s", "back\\slash", "plain"):
        Model.objects.create(name=name)
        prepared = Prepared(
            lambda pk, name=name: Model.objects.filter(pk__gt=pk, name=name).values_list("name"),
            numbers=("pk",),
        )
        assert prepared.rows(pk=0) == [(name,)]
