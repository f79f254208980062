"""Queries that are compiled once."""

from datetime import UTC, datetime, timedelta

import pytest

from modelhub.models import Model, Run
from modelhub.prepared import Prepared

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
