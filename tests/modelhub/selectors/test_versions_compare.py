"""Versions side by side: what differs, which is the best, and where they part."""

import json
from typing import Any

import pytest
from django.urls import reverse

from modelhub.models import Artifact, ModelVersion, Run
from modelhub.selectors.comparison_rows import ComparedRow
from modelhub.selectors.evaluations_compare import evaluations_of
from modelhub.selectors.versions_compare import VersionComparison, versions_compare, versions_get
from tests import builders

pytestmark = pytest.mark.django_db


def compared(*versions: ModelVersion) -> VersionComparison:
    return versions_compare(versions=versions_get(uids=[one.uid for one in versions]))


def texts(rows: Any) -> dict[str, list[str]]:
    return {row.name: [cell.said for cell in row.cells] for row in rows}


def row_of(rows: Any, name: str) -> ComparedRow:
    (found,) = [row for row in rows if row.name == name]
    return found


def made(
    name: str, *, parent: ModelVersion | None = None, data: tuple[Artifact, ...] = (), **facts: Any
) -> ModelVersion:
    """A version that a run has made, which read some data and, if there is one, its parent."""
    config = facts.pop("config", {})
    run = Run.objects.create(
        program=facts.pop("program", "reward"), config=config, status="succeeded", result={}
    )
    version = builders.make_version(name)
    if parent is not None:
        run.inputs.create(role="base", artifact=parent.artifact)
    for number, one in enumerate(data):
        run.inputs.create(role=f"data_{number}", artifact=one)
    ModelVersion.objects.filter(pk=version.pk).update(run=run, parent=parent, facts=facts)
    version.refresh_from_db()
    return version


def evaluated(before: ModelVersion, after: ModelVersion, **result: Any) -> Run:
    run = Run.objects.create(program="evaluate", config={}, status="succeeded", result=result)
    run.inputs.create(role="before", artifact=before.artifact)
    run.inputs.create(role="after", artifact=after.artifact)
    return run


def interval(mean: float, low: float, high: float) -> dict[str, float]:
    return {"mean": mean, "low": low, "high": high}


def test_facts_say_what_differs():
    one, two = builders.make_version("small"), builders.make_version("large")
    two.parameters, two.chat_template, two.facts = 2_000_000, "{{ messages }}", {"license": "mit"}
    two.save()
    files = {"tokenizer.json": {"sha256": "a" * 64, "bytes": 1}}
    for version in (one, two):
        version.artifact.manifest = {"files": files}
        version.artifact.save()
    rows = compared(one, two).facts
    assert row_of(rows, "Weights").differs
    assert not row_of(rows, "Architecture").differs
    assert [cell.said for cell in row_of(rows, "Tokenizer").cells] == ["a" * 64] * 2
    template = row_of(rows, "Chat template")
    assert template.differs
    assert template.cells[0].text == "none"
    assert [cell.text for cell in row_of(rows, "Licence").cells] == ["–", "mit"]


def test_the_vocabulary_is_the_one_of_config_json(tmp_path, settings):
    settings.ARTIFACTS_DIR = tmp_path
    one, two = builders.make_version("small"), builders.make_version("large")
    sha256 = one.artifact.sha256
    Artifact.objects.filter(pk=one.artifact_id).update(uri=f"local:{sha256}")
    (tmp_path / sha256).mkdir()
    (tmp_path / sha256 / "config.json").write_text(json.dumps({"vocab_size": 49152}))
    row = row_of(compared(one, two).facts, "Vocabulary")
    assert [cell.text for cell in row.cells] == ["49,152", "–"]


def test_settings_that_differ_and_those_of_one_program_alone():
    one = made("one", config={"lr": 1e-5, "seed": 0, "beta": 0.1}, program="dpo")
    two = made("two", config={"lr": 2e-5, "seed": 0}, program="sft")
    found = compared(one, two)
    assert texts(found.settings) == {"program": ["dpo", "sft"], "lr": ["1e-05", "2e-05"]}
    assert texts(found.settings_of_one) == {"beta": ["0.1", "–"]}


def test_the_best_is_marked_on_the_same_data_with_how_far_the_others_are_behind():
    data = builders.make_artifact(Artifact.Kind.RANKINGS)
    held_out = {"accuracy": 0.7, "accuracy_low": 0.66, "accuracy_high": 0.74}
    one = made("one", data=(data,), held_out=held_out)
    better = {"accuracy": 0.8, "accuracy_low": 0.76, "accuracy_high": 0.84}
    two = made("two", data=(data,), held_out=better)
    row = row_of(compared(one, two).figures, "held out · accuracy")
    assert [(cell.text, cell.is_best, cell.behind) for cell in row.cells] == [
        ("0.7 [0.66, 0.74]", False, "−0.1"),
        ("0.8 [0.76, 0.84]", True, ""),
    ]
    assert row.note == ""
    close = made("close", data=(data,), held_out={**better, "accuracy_low": 0.72})
    row = row_of(compared(one, close).figures, "held out · accuracy")
    assert row.cells[1].is_best
    assert row.note == "their intervals overlap"


def test_figures_of_different_data_have_no_best():
    one = made("one", data=(builders.make_artifact("rankings"),), held_out={"accuracy": 0.7})
    two = made("two", data=(builders.make_artifact("rankings"),), held_out={"accuracy": 0.8})
    row = row_of(compared(one, two).figures, "held out · accuracy")
    assert not any(cell.is_best for cell in row.cells)
    assert row.note == "of different data"


def test_a_set_cut_into_other_blocks_keeps_other_data_unseen():
    data = builders.make_artifact(Artifact.Kind.TOKENS)
    one, two = (
        made(
            f"blocks of {tokens}",
            data=(data,),
            config={"block_tokens": tokens},
            sources=[{"source": "wiki", "perplexity_after": float(tokens)}],
        )
        for tokens in (256, 512)
    )
    row = row_of(compared(one, two).figures, "validation perplexity on wiki")
    assert not any(cell.is_best for cell in row.cells)
    assert row.note == "of different data"


def test_perplexities_of_hidden_tokens_are_no_others():
    data = builders.make_artifact(Artifact.Kind.TOKENS)
    one, two = (
        made(name, data=(data,), sources=[{"source": "wiki", "perplexity_after": figure}])
        for name, figure in (("reads on", 9.0), ("fills in", 7.0))
    )
    ModelVersion.objects.filter(pk=two.pk).update(architecture="BertForMaskedLM")
    row = row_of(compared(one, two).figures, "validation perplexity on wiki")
    assert not any(cell.is_best for cell in row.cells)
    assert row.note == "in different tokens"


def test_perplexities_in_different_tokens_have_no_best():
    data = builders.make_artifact(Artifact.Kind.TOKENS)
    sources = [{"source": "wiki", "perplexity_after": 9.0}]
    one, two = made("one", data=(data,), sources=sources), made("two", data=(data,), sources=[])
    ModelVersion.objects.filter(pk=two.pk).update(
        facts={"sources": [{"source": "wiki", "perplexity_after": 7.0}]}
    )
    name = "validation perplexity on wiki"
    assert [cell.is_best for cell in row_of(compared(one, two).figures, name).cells] == [
        False,
        True,
    ]
    files = {"tokenizer.json": {"sha256": "b" * 64, "bytes": 1}}
    Artifact.objects.filter(pk=two.artifact_id).update(manifest={"files": files})
    row = row_of(compared(one, two).figures, name)
    assert not any(cell.is_best for cell in row.cells)
    assert row.note == "in different tokens"


def test_an_evaluation_of_two_of_them_and_one_against_a_third():
    base, one, two = (builders.make_version(name) for name in ("base", "one", "two"))
    met = evaluated(
        one,
        two,
        win_rate=interval(0.6, 0.5, 0.7),
        kl_per_answer_nats=3.0,
        kl_per_answer_low=2.5,
        kl_per_answer_high=3.5,
    )
    reward, prompts = builders.make_version("judge").artifact, builders.make_artifact("prompts")
    for version, won in ((one, 0.55), (two, 0.75)):
        run = evaluated(
            base,
            version,
            win_rate=interval(won, won - 0.05, won + 0.05),
            reward_after=interval(won, won - 0.25, won + 0.25),
        )
        run.inputs.create(role="reward", artifact=reward)
        run.inputs.create(role="prompts", artifact=prompts)
    found = compared(one, two)
    (duel,) = found.duels
    assert (duel.run, duel.before, duel.after) == (met, one, two)
    assert dict(duel.figures) == {
        "win rate": "0.6 [0.5, 0.7]",
        "KL, nats an answer": "3 [2.5, 3.5]",
    }
    named = f"by judge v1, prompts {prompts.sha256[:8]}"
    won = row_of(found.figures, f"win rate over base v1 {named}")
    assert [cell.is_best for cell in won.cells] == [False, True]
    assert won.note == ""
    mean = row_of(found.figures, f"mean reward {named}")
    assert [cell.text for cell in mean.cells] == ["0.55 [0.3, 0.8]", "0.75 [0.5, 1]"]
    assert mean.note == "their intervals overlap"
    # Seen from the base, the same evaluation is lost by as much as it was won by.
    from_base = compared(base, builders.make_version("stranger"))
    row = row_of(from_base.figures, f"win rate over two v1 {named}")
    assert row.cells[0].text == "0.25 [0.2, 0.3]"


def test_a_version_evaluated_again_and_again_crowds_no_other_out(django_assert_max_num_queries):
    base, often, seldom = (builders.make_version(name) for name in ("base", "often", "seldom"))
    once = evaluated(base, seldom, win_rate=0.5)
    newest = [evaluated(base, often, win_rate=0.5) for _ in range(4)]
    versions = versions_get(uids=[often.uid, seldom.uid])
    with django_assert_max_num_queries(9):
        found = evaluations_of(versions, limit=2)
    assert [one.run for one in found] == [newest[3], newest[2], once]


def test_what_a_quantised_version_lost_stands_with_its_bounds():
    lost = {"figure": "perplexity", "own": 9.5, "parent": 9.0, "difference": 0.5}
    row = {**lost, "difference_low": 0.2, "difference_high": 0.8}
    one, two = made("whole"), made("small", beside_parent=[row], divergence=0.02)
    figures = compared(one, two).figures
    assert texts(figures) == {
        "divergence": ["–", "0.02"],
        "perplexity, unseen": ["–", "9.5"],
        "perplexity, minus its parent’s": ["–", "0.5 [0.2, 0.8]"],
    }


def test_the_nearest_common_ancestor_and_the_way_to_each():
    root = made("root")
    base = made("base", parent=root)
    tuned = made("tuned", parent=base)
    one, two = made("one", parent=tuned), made("two", parent=base)
    found = compared(one, two).ancestry
    assert found.common == base
    assert [list(way) for way in found.ways] == [[base, tuned, one], [base, two]]
    found = compared(one, tuned).ancestry  # one comes from the other
    assert found.common == tuned
    assert [list(way) for way in found.ways] == [[tuned, one], [tuned]]
    stranger = made("stranger")
    found = compared(one, stranger).ancestry
    assert found.common is None
    assert [list(way) for way in found.ways] == [[root, base, tuned, one], [stranger]]


def test_unknown_ones_and_repeats_are_left_out_and_the_order_is_kept():
    one, two = builders.make_version("one"), builders.make_version("two")
    assert versions_get(uids=[two.uid, "0" * 32, one.uid, two.uid]) == [two, one]
    many = [builders.make_version("many") for _ in range(5)]
    asked = ["0" * 32, *(version.uid for version in many)]
    assert versions_get(uids=asked) == many[:4]  # what is not there takes no place


def test_the_page_shows_all_or_only_what_differs(eve, signed_in):
    one, two = builders.make_version("one"), builders.make_version("two")
    ModelVersion.objects.filter(pk=two.pk).update(dtype="float32")
    client, address = signed_in(eve), reverse("version_compare")
    page = client.get(address, {"version": [one.uid, two.uid]}).content.decode()
    assert "Compare 2 versions" in page
    assert "Architecture" in page
    assert f"{reverse('version_weights', args=[one.uid])}?beside={two.uid}" in page
    assert f"{reverse('playground')}?version={one.uid}&amp;version={two.uid}" in page
    fewer = client.get(address, {"version": [one.uid, two.uid], "only": "differences"})
    assert "Architecture" not in fewer.content.decode()
    assert "float32" in fewer.content.decode()


def test_the_page_of_one_version_asks_for_another_and_says_what_is_gone(eve, signed_in):
    one = builders.make_version("one")
    page = signed_in(eve).get(reverse("version_compare"), {"version": [one.uid, "0" * 32]})
    assert page.status_code == 200
    assert "Choose two versions or more" in page.content.decode()
    shown = page.content.decode()
    assert "There is no version of this uid" in shown and f"<code>{'0' * 32}</code>" in shown
    assert "more was asked for" not in shown


def test_the_page_counts_what_is_one_too_many(eve, signed_in):
    uids = [builders.make_version("many").uid for _ in range(5)]
    shown = signed_in(eve).get(reverse("version_compare"), {"version": [uids[0], *uids]})
    assert "Compare 4 versions" in shown.content.decode()
    assert "1 more was asked for. At most 4 stand side by side." in shown.content.decode()
    assert "There is no version" not in shown.content.decode()


def test_versions_are_marked_in_the_lists(eve, signed_in):
    one = builders.make_version("one")
    for address in (reverse("model_list"), reverse("model_detail", args=[one.model.uid])):
        page = signed_in(eve).get(address).content.decode()
        assert f'name="version" value="{one.uid}" form="compare"' in page
        assert f'action="{reverse("version_compare")}"' in page


def test_the_api_says_the_same(eve, signed_in):
    base = made("base")
    data = builders.make_artifact("rankings")
    one = made("one", parent=base, data=(data,), held_out={"accuracy": 0.7})
    two = made("two", parent=base, data=(data,), held_out={"accuracy": 0.8})
    client, address = signed_in(eve), reverse("api_version_compare")
    reply = client.get(address, {"version": [one.uid, two.uid], "only": "differences"}).json()
    assert [version["uid"] for version in reply["versions"]] == [one.uid, two.uid]
    assert reply["common_ancestor"] == base.uid
    assert reply["ways"] == [[base.uid, one.uid], [base.uid, two.uid]]
    (row,) = reply["figures"]
    assert [cell["is_best"] for cell in row["cells"]] == [False, True]
    assert [cell["value"] for cell in row["cells"]] == [0.7, 0.8]
    assert all(row["differs"] for row in reply["facts"])


@pytest.mark.parametrize("count", [0, 1, 5])
def test_the_api_takes_two_to_four(eve, signed_in, count):
    uids = [builders.make_version("some").uid for _ in range(count)]
    reply = signed_in(eve).get(reverse("api_version_compare"), {"version": uids})
    assert reply.status_code == 400


def test_the_api_knows_no_stranger(eve, signed_in):
    one = builders.make_version("one")
    uids = [one.uid, "0" * 32]
    reply = signed_in(eve).get(reverse("api_version_compare"), {"version": uids})
    assert reply.status_code == 404
    assert reply.json()["message"] == f"There is no version {'0' * 32}."


def test_it_costs_the_same_queries_however_many_there_are(django_assert_max_num_queries):
    base = made("base")
    data = builders.make_artifact("rankings")
    versions = [made("many", parent=base, data=(data,)) for _ in range(4)]
    uids = [version.uid for version in versions]
    with django_assert_max_num_queries(12):
        versions_compare(versions=versions_get(uids=uids))
