"""The corpus pages: who sees them, what they show, and that what they ask starts one run."""

import html
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from modelhub.models import RuleSet, Run, RunOutput
from modelhub.services.corpora import document_judge
from tests.builders import make_user
from tests.modelhub.corpora import make_cleaned, make_corpus

pytestmark = pytest.mark.django_db

PROSE = (
    "The river had been low since {0}, and the people of the valley walked along the bed of it "
    "with baskets. They gathered the smooth stones that the masons wanted for the new wall. Nobody "
    "spoke of rain. An old woman sat under the bridge and counted them as they passed, {0} in "
    "all. She wrote the number on a slate that she kept with her. When it was dark she went home."
)
SHORT = "Only a few words <script>alert(1)</script> here."
CHINESE = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。是的，这是我们的书。" * 4


@pytest.fixture
def staff(eve: User, signed_in: Any) -> Client:
    return signed_in(eve)


@pytest.fixture
def corpus(tmp_path: Path) -> RunOutput:
    return make_corpus(tmp_path, [PROSE.format("April"), SHORT, CHINESE], licence="CC0-1.0")


def shown(client: Client, name: str, corpus: RunOutput | None = None, **query: Any) -> str:
    where = reverse(name, args=[corpus.run.uid] if corpus else [])
    response = client.get(where, query)
    assert response.status_code == 200
    return response.content.decode()


def test_corpora_do_not_exist_for_members_and_outsiders(
    corpus: RunOutput, alice: User, charlie: User, signed_in: Any
) -> None:
    for user in (alice, charlie):
        client = signed_in(user)
        for name in ("corpus_detail", "corpus_rules", "corpus_removed"):
            assert client.get(reverse(name, args=[corpus.run.uid])).status_code == 404
        assert client.get(reverse("corpus_list")).status_code == 404
        assert client.post(reverse("corpus_import"), {}).status_code == 404
        assert client.post(reverse("corpus_clean", args=[corpus.run.uid])).status_code == 404


def test_the_list_says_what_there_is(staff: Client, corpus: RunOutput) -> None:
    page = shown(staff, "corpus_list")
    assert "CC0-1.0" in page and "zh" in page


def test_one_of_a_thing_is_named_as_one(staff: Client, corpus: RunOutput, tmp_path: Path) -> None:
    single = make_corpus(tmp_path, ["Rain."])
    document_judge(corpus=single.artifact, place=0, is_good=True, author=make_user("reader"))
    page = shown(staff, "corpus_detail", single)
    assert "1 document, 5 characters, 1 word." in page
    told = "1 judgement of 1 document by 1 person; 0 from tasks."
    assert told in shown(staff, "corpus_rules", single)
    assert "3 documents, " in shown(staff, "corpus_detail", corpus)
    cleaned = make_cleaned(tmp_path, corpus, families=[], languages=["zh"])
    assert "1 of 3 documents was kept." in shown(staff, "corpus_removed", cleaned)


def test_cleaned_corpora_are_told_apart_by_what_was_done(
    staff: Client, corpus: RunOutput, tmp_path: Path
) -> None:
    make_cleaned(tmp_path, corpus, families=["gopher", "c4"])
    make_cleaned(tmp_path, corpus, families=[], languages=["zh"], rule_set="strict@2")
    page = " ".join(shown(staff, "corpus_list").split())
    kept = re.findall(r"by [^<]* kept", page)
    assert kept == ["by strict@2 · zh · 1 of 3 kept", "by gopher, c4 · 1 of 3 kept"]


def test_documents_are_searched_and_escaped(staff: Client, corpus: RunOutput) -> None:
    page = shown(staff, "corpus_detail", corpus)
    assert "&lt;script&gt;alert(1)" in page and "<script>alert(1)" not in page
    found = shown(staff, "corpus_detail", corpus, text="BRIDGE")
    assert "d0" in found and "d1<" not in found
    chinese = shown(staff, "corpus_detail", corpus, language="zh")
    assert "话说" in chinese and "river" not in chinese
    few = shown(staff, "corpus_detail", corpus, signal="words", most="20")
    assert "d1" in few and "river" not in few and "话说" not in few


def test_documents_go_on_from_a_place(staff: Client, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, [f"document number {i}" for i in range(60)])
    first = shown(staff, "corpus_detail", corpus)
    assert "document number 24<" in first and "document number 25<" not in first
    assert "from=25" in first
    last = shown(staff, "corpus_detail", corpus, **{"from": "50"})
    assert "document number 59<" in last and "Further" not in last


def test_a_threshold_shows_what_would_go(staff: Client, corpus: RunOutput) -> None:
    page = shown(staff, "corpus_rules", corpus, rule="gopher.words_min")
    assert "1 of 2 would go" in page
    assert "Only a few words" in page
    off = shown(
        staff,
        "corpus_rules",
        corpus,
        rule="gopher.words_min",
        **{"threshold-gopher.words_min": "3"},
    )
    assert "0 of 2 would go" in off
    chinese = shown(staff, "corpus_rules", corpus, rule="gopher.words_min", language="zh")
    assert "0 of 1 would go" in chinese


def test_a_threshold_that_is_no_number_is_named(staff: Client, corpus: RunOutput) -> None:
    where = reverse("corpus_rules", args=[corpus.run.uid])
    response = staff.get(where, {"threshold-gopher.words_min": "many"})
    assert response.status_code == 422
    assert "Words, at least: many is no number." in response.content.decode()
    response = staff.get(where, {"threshold-gopher.words_min@zh": "many"})
    assert "Words, at least (Chinese): many is no number." in response.content.decode()


def test_thresholds_are_kept_by_number_and_cleaned_by(staff: Client, corpus: RunOutput) -> None:
    where = reverse("corpus_clean", args=[corpus.run.uid])
    asked = {"name": "strict", "threshold-gopher.words_min": "60"}
    first = staff.post(where, asked)
    again = staff.post(where, asked)
    other = staff.post(where, asked | {"threshold-gopher.words_min": "70"})
    assert {response.status_code for response in (first, again, other)} == {302}
    assert [str(one) for one in RuleSet.objects.order_by("number")] == ["strict@1", "strict@2"]
    run = Run.objects.filter(program="clean_corpus").first()
    assert run is not None
    assert run.config["rule_set"] == "strict@2"
    assert run.config["thresholds"]["gopher.words_min"] == 70.0
    assert run.inputs.get().artifact == corpus.artifact


def test_what_is_refused_comes_back_with_all_that_was_typed(
    staff: Client, corpus: RunOutput
) -> None:
    where = reverse("corpus_clean", args=[corpus.run.uid])
    asked = {
        "name": "no name!",
        "threshold-gopher.words_min": "61",
        "threshold-c4.sentences": "x<y",
    }
    response = staff.post(where, asked)
    page = response.content.decode()
    assert response.status_code == 422 and not RuleSet.objects.exists()
    assert "Give the thresholds a name" in page
    for field in ('words_min" value="61"', 'sentences" value="x&lt;y"', 'value="no name!"'):
        assert field in page
    named = staff.post(where, asked | {"name": "fine"})
    assert "Sentences in lines C4 keeps: x&lt;y is no number." in named.content.decode()
    assert not RuleSet.objects.exists()


def test_counts_stand_in_their_fields_as_one_types_them(staff: Client, corpus: RunOutput) -> None:
    page = shown(staff, "corpus_rules", corpus, **{"threshold-gopher.words_min": "60.0"})
    assert 'words_max" value="100000"' in page and 'hashes" value="0.1"' in page
    staff.post(
        reverse("corpus_clean", args=[corpus.run.uid]),
        {"name": "strict", "threshold-gopher.words_min": "60"},
    )
    page = shown(staff, "corpus_rules", corpus, rule_set="strict@1")
    assert 'words_min" value="60"' in page and 'name="name"' in page


def test_without_a_script_the_page_shows_what_is_typed(staff: Client, corpus: RunOutput) -> None:
    typed = {"show": "yes", "name": "x", "rule": "c4.sentences", "threshold-c4.sentences": "3"}
    response = staff.post(reverse("corpus_clean", args=[corpus.run.uid]), typed)
    shown_at = f"{reverse('corpus_rules', args=[corpus.run.uid])}?rule=c4.sentences"
    assert response["Location"] == f"{shown_at}&threshold-c4.sentences=3"
    assert not RuleSet.objects.exists()


def test_what_was_dropped_is_shown_step_by_step(
    staff: Client, corpus: RunOutput, tmp_path: Path
) -> None:
    cleaned = make_cleaned(tmp_path, corpus)
    page = shown(staff, "corpus_removed", cleaned)
    assert "Words, at least: 1 went" in page
    assert "Only a few words" in page
    run_page = staff.get(reverse("run_detail", args=[cleaned.run.uid])).content.decode()
    assert reverse("corpus_detail", args=[cleaned.run.uid]) in run_page
    assert "gopher.words_min" in run_page  # the funnel, as a table of the result


@pytest.mark.parametrize(
    ("location", "field"),
    [("/etc/passwd", "import folder"), ("file:///etc/passwd", "no path"), ("~/x", "no path")],
)
def test_what_is_elsewhere_is_not_read(staff: Client, location: str, field: str) -> None:
    response = staff.post(
        reverse("corpus_import"),
        {
            "key": "k",
            "locations": location,
            "source": "s",
            "format": "auto",
            "split": "file",
            "text_field": "text",
        },
    )
    assert response.status_code == 422
    assert field in response.content.decode()
    assert not Run.objects.exists()


def test_an_import_sent_twice_starts_one_run(staff: Client, tmp_path: Path, settings: Any) -> None:
    (tmp_path / "import").mkdir()
    (tmp_path / "import" / "book.txt").write_text("text")
    asked = {
        "key": "k",
        "locations": "book.txt\nhttps://example.org/rows.jsonl",
        "source": "book",
        "format": "auto",
        "split": "pattern",
        "pattern": "^CHAPTER",
        "text_field": "text",
    }
    for _ in range(2):
        assert staff.post(reverse("corpus_import"), asked).status_code == 302
    run = Run.objects.get()
    assert run.config["locations"] == [
        str(tmp_path / "import" / "book.txt"),
        "https://example.org/rows.jsonl",
    ]
    again = staff.get(reverse("corpus_import"), {"run": run.uid}).context["form"]
    assert again["locations"].value().splitlines() == run.config["locations"]
    assert (again["pattern"].value(), again["split"].value()) == ("^CHAPTER", "pattern")
    assert staff.get(reverse("run_detail", args=[run.uid])).status_code == 200


# ── what people say of documents ─────────────────────────────────────────────────────────────────


def judge(client: Client, corpus: RunOutput, judgement: str, **more: str) -> HttpResponse:
    return client.post(
        reverse("corpus_judge", args=[corpus.run.uid]), {"judgement": judgement, **more}
    )


def test_judgements_stand_beside_every_rule_and_name_a_threshold(
    staff: Client, tmp_path: Path
) -> None:
    texts = [PROSE.format(month) for month in ("April", "May", "June")] + [SHORT, SHORT + " Yes."]
    corpus = make_corpus(tmp_path, texts)
    assert "Say of some documents" in shown(staff, "corpus_rules", corpus)
    for judgement in ("0:good", "1:good", "3:bad", "4:bad"):
        assert judge(staff, corpus, judgement, page="rules").status_code == 302
    page = shown(staff, "corpus_rules", corpus, rule="gopher.words_min")
    assert "takes 2 of 2 bad ones and 0 of 2 good ones" in page
    assert "They are told apart best at" in page
    off = {"rule": "gopher.words_min", "threshold-gopher.words_min": ""}
    page = shown(staff, "corpus_rules", corpus, **off)
    assert "takes 0 of 2 bad ones" in page
    (link,) = re.findall(r'href="\?([^"]*)">Take it', page)
    taken = staff.get(f"{reverse('corpus_rules', args=[corpus.run.uid])}?{html.unescape(link)}")
    assert "takes 2 of 2 bad ones and 0 of 2 good ones" in taken.content.decode()


def test_a_judgement_is_changed_and_taken_back_and_goes_back_where_it_was_said(
    staff: Client, corpus: RunOutput
) -> None:
    query = "rule=gopher.words_min&threshold-gopher.words_min=60"
    answer = judge(staff, corpus, "1:bad", page="rules", query=query)
    assert answer["Location"].endswith(f"/rules/?{query}#place-1")
    assert corpus.artifact.judgements.get().is_good is False
    judge(staff, corpus, "1:good")
    assert corpus.artifact.judgements.get().is_good is True
    assert 'aria-pressed="true">Good text' in shown(staff, "corpus_detail", corpus)
    judge(staff, corpus, "1:")
    assert not corpus.artifact.judgements.exists()


@pytest.mark.parametrize("judgement", ["", "x:good", "1:great", "9:good", "-1:bad", "1", "²:good"])
def test_a_judgement_of_nothing_changes_nothing(
    staff: Client, corpus: RunOutput, judgement: str
) -> None:
    answer = staff.post(
        reverse("corpus_judge", args=[corpus.run.uid]), {"judgement": judgement}, follow=True
    )
    (said,) = answer.context["messages"]
    assert said.level_tag == "error"
    assert not corpus.artifact.judgements.exists()


def test_of_two_who_disagree_nothing_is_counted_and_most_decide(
    staff: Client, corpus: RunOutput, signed_in: Any
) -> None:
    people = [make_user(name, is_staff=True) for name in ("finn", "gina")]
    judge(staff, corpus, "0:bad")
    judge(signed_in(people[0]), corpus, "0:good")
    assert "data-answer hidden>Bad caught" in shown(staff, "corpus_rules", corpus)
    judge(signed_in(people[1]), corpus, "0:good")
    page = shown(staff, "corpus_rules", corpus, rule="gopher.words_min")
    assert "0 of 0 bad ones and 0 of 1 good ones" in page


def test_outsiders_judge_nothing(corpus: RunOutput, alice: User, signed_in: Any) -> None:
    assert judge(signed_in(alice), corpus, "0:good").status_code == 404
    assert not corpus.artifact.judgements.exists()
