import threading

import pytest
from django.db import connections

from modelhub.errors import ApplicationError
from modelhub.models import AliasMove, ModelVersion
from modelhub.services.versions import alias_move, model_get_or_create, model_version_register
from tests.builders import make_artifact, make_version

FACTS = {
    "architecture": "LlamaForCausalLM",
    "parameters": 134_515_008,
    "dtype": "bfloat16",
    "context_tokens": 2048,
    "chat_template": "{{ messages }}",
    "loss": 0.5,
}


def register(model, **changes) -> ModelVersion:
    given = {
        "model": model,
        "role": "policy",
        "artifact": make_artifact(),
        "parent": None,
        "run": None,
        "facts": FACTS,
    }
    return model_version_register(**(given | changes))


def test_versions_are_numbered_from_one(db):
    model = model_get_or_create(name="smol")
    one, two = register(model), register(model, card="better")
    assert (one.number, two.number) == (1, 2)
    assert two.parameters == 134_515_008
    assert two.facts == {"loss": 0.5}
    assert two.card == "better"


def test_the_same_result_of_the_same_run_is_one_version(counting):
    model, run, artifact = model_get_or_create(name="smol"), counting(), make_artifact()
    one = register(model, run=run, artifact=artifact)
    assert register(model, run=run, artifact=artifact) == one
    assert model.versions.count() == 1


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"parameters": "many"}, "parameters is 'many'"),
        ({"parameters": True}, "parameters is True"),
        ({"dtype": None}, "dtype is None"),
    ],
)
def test_a_fact_that_is_missing_or_of_another_type_is_named(db, facts, named):
    with pytest.raises(ApplicationError, match=named):
        register(model_get_or_create(name="smol"), facts=FACTS | facts)
    assert not ModelVersion.objects.exists()


@pytest.mark.parametrize("name", ["", "two words", "../up", "x" * 81, "ünïcode", "a\x00b"])
def test_a_models_name_is_a_slug(db, name):
    with pytest.raises(ApplicationError, match="cannot name a model"):
        model_get_or_create(name=name)


@pytest.mark.django_db(transaction=True)
def test_simultaneous_registrations_get_different_numbers():
    model = model_get_or_create(name="smol")
    barrier = threading.Barrier(6)

    def one() -> None:
        barrier.wait()
        try:
            register(model)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(model.versions.values_list("number", flat=True)) == [1, 2, 3, 4, 5, 6]


def test_the_moves_of_an_alias_are_kept(db, eve):
    one, two = make_version("smol"), make_version("smol")
    for version in (one, one, two):
        alias = alias_move(
            model=one.model, name="champion", version=version, actor=eve, reason="it won"
        )
    assert alias.version == two
    moves = AliasMove.objects.order_by("pk").values_list("before__number", "after__number")
    assert list(moves) == [(None, 1), (1, 2)]
    assert AliasMove.objects.last().actor == eve


def test_an_alias_points_at_versions_of_its_own_model(db):
    mine, other = make_version("mine"), make_version("other")
    with pytest.raises(ApplicationError, match="not a version of mine"):
        alias_move(model=mine.model, name="champion", version=other, actor=None, reason="")
    with pytest.raises(ApplicationError, match="cannot be an alias"):
        alias_move(model=mine.model, name="the best", version=mine, actor=None, reason="")
