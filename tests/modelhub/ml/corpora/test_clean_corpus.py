"""Cleaning as a whole: what each step drops, what is written, and that it is the same again."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rensa", reason="the pretrain extra is not installed")

import pyarrow.parquet as pq

from modelhub.ml.corpora.clean_corpus import main
from modelhub.ml.corpora.documents import CorpusError, documents_read, rows_read, signals_shard
from modelhub.ml.corpora.import_corpus import CHUNK_DOCUMENTS
from modelhub.ml.rundir import RunDir
from tests.modelhub.ml.corpora.corpus import corpus_write, evaluation_write, word_list_write
from tests.modelhub.ml.runs import program_finish, run_write

PROGRAM = "modelhub.ml.corpora.clean_corpus"
NO_RULES: dict[str, Any] = {"families": [], "workers": 1}

PROSE = (
    "The river had been low since {0}, and the people of the valley walked along the bed of it "
    "with baskets. They gathered the smooth stones that the {1} wanted for the new wall. Nobody "
    "spoke of rain. An old woman sat under the bridge and counted them as they passed, {2} in "
    "all, and wrote the number on a slate that she kept with her. When it was dark she went home "
    "to her house at the end of the road, lit a lamp, and told her grandson what she had seen."
)
STORY = PROSE.format("April", "masons", "forty")
TWIN = PROSE.format("March", "masons", "forty")
OTHER = (
    "Glass is made of sand that has been melted and then cooled so fast that it has no time to "
    "become a crystal. It is hard and clear. It breaks when it is struck, and the pieces are "
    "sharp. Window glass has soda and lime in it, which make it melt at a lower heat. With lead "
    "it is heavier and more brilliant, and with boron it can be put over a flame. The first "
    "glass that people made was green or brown, for the sand that they had was not pure."
)
CHINESE = (
    "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。及秦灭之后，楚、汉分争，又并入于汉。"
    "汉朝自高祖斩白蛇而起义，一统天下，后来光武中兴，传至献帝，遂分为三国。"
    "推其致乱之由，殆始于桓、灵二帝。桓帝禁锢善类，崇信宦官。及桓帝崩，灵帝即位，"
    "大将军窦武、太傅陈蕃共相辅佐。时有宦官曹节等弄权，窦武、陈蕃谋诛之，机事不密，反为所害。"
)


def clean(tmp_path: Path, texts: list[str], settings: dict[str, Any], **inputs: Path) -> Any:
    corpus = corpus_write(tmp_path / "corpus", texts)
    run = run_write(tmp_path / "run", "clean_corpus", settings, corpus=corpus, **inputs)
    main(RunDir(run))
    kept = list(documents_read(run / "outputs" / "corpus"))
    removed = pq.read_table(run / "outputs" / "report" / "removed.parquet").to_pylist()
    result = json.loads((run / "result.json").read_text())["result"]
    return [one.id for one in kept], {one["place"]: one for one in removed}, result


def test_the_funnel_stands_in_the_order_of_the_pass(tmp_path: Path) -> None:
    # As a configuration that was written with its names sorted has them.
    thresholds = {"c4.sentences": 3, "fineweb.short_lines@zh": 0.1, "gopher.words_min": 50}
    settings = NO_RULES | {"thresholds": thresholds}
    _, _, result = clean(tmp_path, [STORY, "Too short to be of use.", "word " * 60], settings)
    rows = [one for one in result["funnel"] if "." in one["step"]]
    assert [(one["step"], one["dropped"], one["left"]) for one in rows] == [
        ("gopher.words_min", 1, 2),
        ("c4.sentences", 1, 1),
        ("fineweb.short_lines", 0, 1),
    ]
    assert [one["rule"] for one in result["thresholds"]] == [one["step"] for one in rows]


def test_progress_counts_the_documents_of_the_corpus_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int, str]] = []
    monkeypatch.setattr(RunDir, "progress", lambda _self, *said: told.append(said))
    known = corpus_write(tmp_path / "known", [OTHER])
    clean(tmp_path, [STORY, OTHER, CHINESE, "Too short."], {"workers": 1}, known_1=known)
    assert told == [(2, 4, "documents"), (4, 4, "documents")]


def test_rules_drop_what_their_thresholds_say(tmp_path: Path) -> None:
    texts = [
        STORY,
        "Too short to be of use.",
        "buy now " * 60,
        CHINESE,
        OTHER.replace("It is hard", "It is {hard}"),
    ]
    kept, removed, result = clean(tmp_path, texts, {"workers": 1})
    assert kept == ["d0", "d3"]
    assert removed[1]["step"] == "gopher.words_min"
    assert removed[2]["step"] == "gopher.stop_words"
    assert removed[4]["step"] == "c4.curly_brackets"
    steps = {one["step"]: one for one in result["funnel"]}
    assert steps["gopher.words_min"] == {
        "step": "gopher.words_min",
        "dropped": 1,
        "left": 4,
        "alone": 1,
    }
    # Of two rules that would drop a document the first has it; alone each counts it.
    assert (steps["gopher.top_2_gram"]["dropped"], steps["gopher.top_2_gram"]["alone"]) == (0, 2)
    assert result["funnel"][-1]["left"] == result["documents"] == 2


def test_a_threshold_that_is_moved_keeps_more(tmp_path: Path) -> None:
    texts = [STORY, f"{OTHER[:150]}."]
    settings = {"families": ["gopher"], "thresholds": {"gopher.words_min": 20}, "workers": 1}
    kept, _, _ = clean(tmp_path, texts, settings)
    assert kept == ["d0", "d1"]


def test_other_languages_go_first(tmp_path: Path) -> None:
    kept, removed, _ = clean(tmp_path, [STORY, CHINESE], NO_RULES | {"languages": ["zh"]})
    assert kept == ["d1"]
    assert removed[0]["step"] == "language"


def test_the_first_of_what_is_alike_stays(tmp_path: Path) -> None:
    texts = [STORY, OTHER, STORY.upper().replace(" ", "  "), TWIN, CHINESE, CHINESE[:-3]]
    kept, removed, result = clean(tmp_path, texts, NO_RULES)
    assert kept == ["d0", "d1", "d4"]
    assert removed[2] == {"place": 2, "step": "exact_duplicate", "because": "place 0"}
    assert removed[3] == {"place": 3, "step": "near_duplicate", "because": "place 0"}
    assert removed[5]["step"] == "near_duplicate"
    assert result["most_repeated"][0] == {"place": 0, "copies_dropped": 2}


def test_duplicates_may_be_kept(tmp_path: Path) -> None:
    off = {"exact_duplicates": False, "near_duplicates": False}
    kept, _, _ = clean(tmp_path, [STORY, STORY, TWIN], NO_RULES | off)
    assert kept == ["d0", "d1", "d2"]


def test_what_a_known_corpus_has_goes(tmp_path: Path) -> None:
    known = corpus_write(tmp_path / "known", [TWIN, CHINESE])
    kept, removed, result = clean(tmp_path, [STORY, OTHER, CHINESE], NO_RULES, known_1=known)
    assert kept == ["d1"]
    assert removed[0]["because"] == removed[2]["because"] == "a known corpus"
    assert result["documents"] == 1


ITEM = (
    "Window glass has soda and lime in it, which make it melt at a lower heat. Why is that so? "
    "Answer in one sentence."
)


def test_contamination_names_item_document_and_words(tmp_path: Path) -> None:
    evaluation = evaluation_write(tmp_path / "set", [ITEM, "What is glass?"])
    kept, removed, result = clean(tmp_path, [STORY, OTHER], NO_RULES, evaluation_1=evaluation)
    assert kept == ["d0"]
    assert removed[1]["step"] == "contamination"
    (found,) = result["contamination"]
    words = "Window glass has soda and lime in it, which make it melt at a lower heat"
    assert found == {
        "set": "evaluation_1",
        "item": "e0",
        "document": "d1",
        "from": OTHER.index(words),
        "to": OTHER.index(words) + len(words),
        "words": words,
    }
    assert (result["evaluation_items"], result["evaluation_items_too_short"]) == (1, 1)


def test_chinese_items_are_found_too(tmp_path: Path) -> None:
    evaluation = evaluation_write(
        tmp_path / "set", ["默写：汉朝自高祖斩白蛇而起义，一统天下，后来光武中兴，传至献帝"]
    )
    kept, _, result = clean(tmp_path, [CHINESE, OTHER], NO_RULES, held_out_1=evaluation)
    assert kept == ["d1"]
    assert result["contamination"][0]["words"].startswith("汉朝自高祖斩白蛇而起义")


def test_a_set_phrase_contaminates_nothing(tmp_path: Path) -> None:
    """Words that three documents have, where two are allowed."""
    phrase = "Permission is hereby granted free of charge to any person who asks for it today."
    texts = [f"{phrase} {one}" for one in (STORY, OTHER, CHINESE)]
    evaluation = evaluation_write(tmp_path / "set", [f"Explain this: {phrase}"])
    settings = NO_RULES | {"contamination_documents_max": 2}
    kept, _, result = clean(tmp_path, texts, settings, evaluation_1=evaluation)
    assert kept == ["d0", "d1", "d2"]
    assert result["contaminated_documents"] == 0


def test_contamination_may_be_reported_alone(tmp_path: Path) -> None:
    evaluation = evaluation_write(tmp_path / "set", [ITEM])
    settings = NO_RULES | {"contamination_drop": False}
    kept, _, result = clean(tmp_path, [STORY, OTHER], settings, evaluation_1=evaluation)
    assert kept == ["d0", "d1"]
    assert result["contaminated_documents"] == 1


def test_a_document_with_a_word_of_a_list_goes_before_duplicates_are_looked_for(
    tmp_path: Path,
) -> None:
    """Or the one that goes would take those with it that are like it."""
    texts = [f"{STORY} Zounds!", STORY, CHINESE, OTHER]
    words = word_list_write(tmp_path / "words", ["zounds", "", "# of novels", "诛之"])
    more = corpus_write(tmp_path / "more", ["ill repute\nmelt\tAT a Lower\n"])
    lists = {"bad_words_1": words, "bad_words_2": more}
    kept, removed, result = clean(tmp_path, texts, NO_RULES, **lists)
    assert kept == ["d1"]
    assert [(place, one["step"], one["because"]) for place, one in removed.items()] == [
        (0, "bad_words", "zounds"),
        (2, "bad_words", "诛之"),
        (3, "bad_words", "melt\tAT a Lower"),
    ]
    row = next(one for one in result["funnel"] if one["step"] == "bad_words")
    assert row == {"step": "bad_words", "dropped": 3, "left": 1, "alone": 3}


def test_personal_data_is_replaced_and_measured_again(tmp_path: Path) -> None:
    text = f"{STORY} Write to ann@example.org or call 13812345678."
    corpus = corpus_write(tmp_path / "corpus", [text])
    run = run_write(tmp_path / "run", "clean_corpus", NO_RULES, corpus=corpus)
    main(RunDir(run))
    ((document, signals),) = rows_read(run / "outputs" / "corpus")
    assert document.text == f"{STORY} Write to <email> or call <phone>."
    assert (signals["pii_email"], signals["characters"]) == (0, len(document.text))
    result = json.loads((run / "result.json").read_text())["result"]
    assert result["scrubbed"] == {"email": 1, "chinese_mobile": 1}


def test_lines_go_as_c4_drops_them(tmp_path: Path) -> None:
    text = f"Menu\n{STORY}\nHome | About\nEnable javascript to see this page.\n{OTHER}"
    corpus = corpus_write(tmp_path / "corpus", [text])
    settings = NO_RULES | {"drop_c4_lines": True}
    run = run_write(tmp_path / "run", "clean_corpus", settings, corpus=corpus)
    main(RunDir(run))
    (document,) = documents_read(run / "outputs" / "corpus")
    assert document.text == f"{STORY}\n{OTHER}"


def test_a_document_without_a_line_left_stands_in_funnel_and_report(tmp_path: Path) -> None:
    corpus = corpus_write(tmp_path / "corpus", ["Menu\nHome | About", STORY, "Login\nNews", OTHER])
    settings = NO_RULES | {"drop_c4_lines": True}
    run = run_write(tmp_path / "run", "clean_corpus", settings, corpus=corpus)
    main(RunDir(run))
    assert [one.text for one in documents_read(run / "outputs" / "corpus")] == [STORY, OTHER]
    result = json.loads((run / "result.json").read_text())["result"]
    assert result["funnel"][-1] == {"step": "no_line_left", "dropped": 2, "left": 2, "alone": 2}
    report = pq.read_table(run / "outputs" / "report" / "removed.parquet").to_pylist()
    assert [(one["place"], one["step"]) for one in report] == [
        (0, "no_line_left"),
        (2, "no_line_left"),
    ]


def test_no_document_is_lost_between_the_parts_that_are_written_together(tmp_path: Path) -> None:
    count = 2 * CHUNK_DOCUMENTS + 10
    texts = [
        f"The {number}th thing that was said of it is written here." for number in range(count)
    ]
    emptied = CHUNK_DOCUMENTS + 5  # in the second part
    texts[emptied] = f"Menu {emptied}"
    settings = {"exact_duplicates": False, "near_duplicates": False, "drop_c4_lines": True}
    kept, removed, result = clean(tmp_path, texts, NO_RULES | settings)
    assert kept == [f"d{place}" for place in range(count) if place != emptied]
    assert list(removed) == [emptied]
    assert result["documents"] == result["funnel"][-1]["left"] == count - 1


def test_any_number_of_processes_gives_the_same_bytes(tmp_path: Path) -> None:
    texts = [f"{PROSE.format(i, i * 7, i * 13)} a{i}@b.org {'x y z ' * (i % 9)}" for i in range(40)]
    corpus = corpus_write(tmp_path / "corpus", [*texts, *texts[:5], OTHER, CHINESE])
    evaluation = evaluation_write(tmp_path / "set", [ITEM])
    outputs = []
    for workers in (1, 2):
        run = run_write(
            tmp_path / f"run{workers}",
            "clean_corpus",
            {"families": [], "workers": workers},
            corpus=corpus,
            evaluation_1=evaluation,
        )
        main(RunDir(run)) if workers == 1 else program_finish(PROGRAM, run)
        files = sorted((run / "outputs").rglob("*.*"))
        outputs.append({path.name: path.read_bytes() for path in files if path.suffix != ".json"})
    assert len(outputs[0]) == 4
    assert outputs[0] == outputs[1]


def test_a_corpus_measured_by_another_version_is_refused(tmp_path: Path) -> None:
    corpus = corpus_write(tmp_path / "corpus", [STORY])
    path = signals_shard(corpus / "documents-00000.parquet")
    table = pq.read_table(path).replace_schema_metadata({b"rondo signals": b"signals-0"})
    pq.write_table(table, path)
    run = run_write(tmp_path / "run", "clean_corpus", NO_RULES, corpus=corpus)
    with pytest.raises(CorpusError, match="measured by signals-0"):
        main(RunDir(run))


def test_nothing_left_is_refused_with_the_funnel(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="nothing is left of 1 documents"):
        clean(tmp_path, ["too short"], {"workers": 1})
