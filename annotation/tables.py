"""Small tables to take away, as CSV or JSON."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse, JsonResponse

from annotation.downloads import as_download

FORMATS = ("csv", "json")
# What a spreadsheet would take for a formula, also behind white space and full-width forms.
_FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
_UNSEEN = " \u00a0\u200b\ufeff\"'"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under named columns. `name` is the file's."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def table_response(table: Table, format: str) -> HttpResponse:
    """A table as a file. In CSV no text is ever read as a formula; numbers stay numbers."""
    if format == "json":
        rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        response: HttpResponse = JsonResponse({"table": table.name, "rows": rows})
    else:
        file = io.StringIO()
        writer = csv.writer(file)
        writer.writerow(table.columns)
        writer.writerows([[cell_csv(value) for value in row] for row in table.rows])
        response = HttpResponse(file.getvalue(), content_type="text/csv; charset=utf-8")
    as_download(response, f"{table.name}.{format}")
    return response


def cell_csv(value: Any) -> Any:
    """A value for a cell of CSV: what a spreadsheet would evaluate begins with a quote mark."""
    if not isinstance(value, str):
        return "" if value is None else value
    if value.startswith(_FORMULA_STARTS) or value.lstrip(_UNSEEN).startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value
