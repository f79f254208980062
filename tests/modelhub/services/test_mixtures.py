"""Saved mixtures: numbered, never edited; a run that names one reads that one."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.db.models import ProtectedError

pytest.importorskip("numpy", reason="NumPy is not installed")

from modelhub.errors import ApplicationError
from modelhub.ml.configs import config_load
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.models import RuleSet
from modelhub.selectors.mixtures import (
    BlendAsk,
    MixtureAsk,
    MixturePlan,
    mixture_ask,
    mixture_get,
    mixture_plan,
    mixture_settings,
    token_sets_list,
)
from modelhub.services.corpora import rule_set_save
from modelhub.services.mixtures import mixture_check, mixture_save
from modelhub.services.numbering import numbered_create
from tests.modelhub.mixtures import make_tokens

pytestmark = pytest.mark.django_db


def plan_of(ask: MixtureAsk) -> MixturePlan:
    return mixture_plan(ask=ask, sets=token_sets_list(uids=ask.sets))


@pytest.fixture
def ask() -> MixtureAsk:
    uids = [make_tokens(name, 20_000).run.uid for name in ("novels", "poems", "plays")]
    weights = {uids[0]: 1.0, uids[1]: 1.0, uids[2]: 1.0}
    return MixtureAsk(
        sets=tuple(uids),
        caps={uids[1]: 3.0},
        blends=(BlendAsk(by="hand", weights=weights),),
        tokens=32_768,
        block_tokens=8,
        blocks_per_step=4,
    )


def test_a_change_is_the_next_number_and_the_same_again_is_the_same(ask: MixtureAsk) -> None:
    first = mixture_save(name="base", plan=plan_of(ask), author=None)
    again = mixture_save(name="base", plan=plan_of(ask), author=None)
    changed = replace(ask, blends=(*ask.blends, BlendAsk(first_step=500, by="size")))
    second = mixture_save(name="base", plan=plan_of(changed), author=None)
    assert (str(first), again.pk, str(second)) == ("base@1", first.pk, "base@2")
    assert [blend["first_step"] for blend in second.blends] == [0, 500]


def test_what_was_saved_is_planned_from_again_and_saved_again_is_the_same(ask: MixtureAsk) -> None:
    saved = mixture_save(name="base", plan=plan_of(ask), author=None)
    found = mixture_get(uid=saved.uid)
    assert found is not None
    again = mixture_ask(mixture=found)
    assert (again.sets, again.caps[ask.sets[1]], again.tokens) == (ask.sets, 3.0, ask.tokens)
    assert mixture_save(name="base", plan=plan_of(again), author=None).pk == saved.pk


def test_a_token_set_of_a_mixture_cannot_be_deleted(ask: MixtureAsk) -> None:
    saved = mixture_save(name="base", plan=plan_of(ask), author=None)
    with pytest.raises(ProtectedError):
        saved.sources.get(place=0).output.delete()


def test_a_run_that_names_a_mixture_has_its_sets_its_order_and_its_shares(ask: MixtureAsk) -> None:
    saved = mixture_save(name="base", plan=plan_of(ask), author=None)
    settings = mixture_settings(mixture=saved)
    own = [one.output.artifact for one in saved.sources.all()]
    config = config_load(PretrainConfig, settings)
    mixture_check(config=config, artifacts=own)
    with pytest.raises(ApplicationError, match="another order"):
        mixture_check(config=config, artifacts=own[::-1])
    for field, value in (
        ("shares", [0.5, 0.3, 0.2]),
        ("epoch_caps", []),
        ("later_shares", {"3": [1, 1, 1]}),
    ):
        other = config_load(PretrainConfig, {**settings, field: value})
        with pytest.raises(ApplicationError, match=f"{field} differs"):
            mixture_check(config=other, artifacts=own)
    for name in ("base@2", "base", "@", "base@²"):
        missing = config_load(PretrainConfig, {**settings, "mixture": name})
        with pytest.raises(ApplicationError, match="no mixture"):
            mixture_check(config=missing, artifacts=own)


def test_a_number_that_somebody_took_meanwhile_is_passed_over() -> None:
    """What two saves at once come to on PostgreSQL: both have read the same newest number."""

    def make(number: int) -> RuleSet:
        return RuleSet.objects.create(name="strict", number=number, thresholds={})

    make(1)
    asked: list[int] = []

    def is_same(newest: RuleSet) -> bool:
        asked.append(newest.number)
        if newest.number == 1:
            make(2)
        return False

    saved = numbered_create(
        rows=RuleSet.objects.filter(name="strict"), is_same=is_same, create=make
    )
    assert (asked, saved.number) == ([1, 2], 3)


@pytest.mark.django_db(transaction=True)
def test_simultaneous_first_saves_get_numbers_of_their_own(eve: User) -> None:
    ready = Barrier(4)

    def save(value: int) -> str:
        try:
            ready.wait(timeout=20)
            return str(
                rule_set_save(name="new", thresholds={"gopher.words_min": value}, author=eve)
            )
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        saved = list(pool.map(save, range(1, 5)))
    assert sorted(saved) == ["new@1", "new@2", "new@3", "new@4"]
