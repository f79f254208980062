"""The API's schema is valid and names every component once."""

from pathlib import Path

from django.core.management import call_command


def test_the_schema_is_valid_without_a_warning(tmp_path: Path, capsys) -> None:
    out = tmp_path / "schema.yml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(out))
    schema = out.read_text()
    assert "/api/v1/assignments/{assignment_uid}/submit/:" in schema
    assert "Judgement:" in schema and "DraftSaveInput:" in schema
