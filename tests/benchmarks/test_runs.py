"""Runs that the benchmarks make by hand: taken as they are, or begun anew."""

import json
from pathlib import Path

from alignment.ml.checkers import REFERENCES_NAME
from benchmarks.runs import program_run, reference_parser


def questions_write(path, count):
    rows = [{"question": f"{one} + 1?", "answer": f"#### {one + 1}"} for one in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_that_has_ended_is_taken_as_it_is_and_one_of_other_settings_begun_anew(tmp_path):
    run = tmp_path / "run"
    few, more = questions_write(tmp_path / "few", 20), questions_write(tmp_path / "more", 30)
    found = program_run(run, "import_questions", {"location": str(few)}, {})
    assert found["train"] + found["held_out"] == 20
    few.unlink()  # it would fail if it ran
    assert program_run(run, "import_questions", {"location": str(few)}, {}) == found

    (run / "result.json").unlink()  # as if it had been killed behind a checkpoint
    (run / "of-the-first").touch()
    found = program_run(run, "import_questions", {"location": str(more)}, {})
    assert found["train"] + found["held_out"] == 30
    assert not (run / "of-the-first").exists()


def test_a_run_of_other_rows_is_begun_anew_and_what_a_run_made_keeps_its_name(tmp_path):
    questions = questions_write(tmp_path / "questions", 20)
    config = {"location": str(questions)}
    made = tmp_path / "made"
    program_run(made, "import_questions", config, {})
    references = made / "outputs" / "references"
    rows = tmp_path / "rows"
    rows.mkdir()
    shas = []
    for text in ("one", "two"):
        (rows / REFERENCES_NAME).write_text(text)
        run = tmp_path / "run"
        program_run(run, "import_questions", config, {"rows": rows, "references": references})
        described = json.loads((run / "config.json").read_text())["inputs"]
        shas.append((described["rows"]["sha256"], described["references"]["sha256"]))
        assert not (run / "of-the-first").exists()
        (run / "of-the-first").touch()
    assert shas[0][0] != shas[1][0] and shas[0][1] == shas[1][1]
    assert "origin" in json.loads((references / "manifest.json").read_text())


def test_a_comparison_finds_its_data_where_it_is_told(monkeypatch):
    monkeypatch.setenv("RONDO_SHARED_DATA", "/data")
    parser = reference_parser("Compare.\n\nMore.", "var/here")
    assert parser.description == "Compare."
    given = parser.parse_args([])
    assert (given.data, given.folder) == (Path("/data"), Path("var/here"))
    given = parser.parse_args(["--data", "else", "--folder", "there"])
    assert (given.data, given.folder) == (Path("else"), Path("there"))
