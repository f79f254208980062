"""Which parts of a result are tables, and which of their columns are curves."""

from modelhub.result_tables import MAX_ROWS, result_split


def test_list_of_like_objects_is_a_table_and_the_rest_stays():
    result = {"kept": 3, "best_of_n": [{"n": 1, "mean": 0.5}, {"n": 2, "mean": 0.7}]}
    facts, (table,) = result_split(result)
    assert facts == {"kept": 3}
    assert (table.name, table.columns) == ("best_of_n", ("n", "mean"))
    assert table.rows == ((1, 0.5), (2, 0.7))
    (curve,) = table.curves
    assert (curve.name, curve.over, curve.start, curve.end) == ("mean", "n", 1, 2)
    assert (curve.drawn.first, curve.drawn.last) == (0.5, 0.7)


def test_table_inside_a_part_of_the_result_is_named_with_it():
    degrees = [{"degree": "better", "right": 0.7}, {"degree": "slightly", "right": None}]
    facts, (table,) = result_split({"held_out": {"pairs": 9, "by_degree": degrees}})
    assert facts == {"held_out": {"pairs": 9}}
    assert table.name == "held_out.by_degree"
    assert table.curves == ()  # its first column is no number


def test_interval_of_a_column_is_no_curve_of_its_own():
    rows = [{"n": n, "score": n, "score_low": n - 1, "score_high": n + 1} for n in (1, 2, 3)]
    (table,) = result_split({"curve": rows})[1]
    assert [curve.name for curve in table.curves] == ["score"]


def test_column_with_a_gap_is_no_curve():
    (table,) = result_split({"curve": [{"n": 1, "y": None}, {"n": 2, "y": 1.0}]})[1]
    assert table.curves == ()


def test_other_lists_stay_facts():
    result = {
        "losses": [1.0, 2.0],
        "one": [{"a": 1, "b": 2}],
        "mixed": [{"a": 1, "b": 1}, {"a": 2}],
    }
    assert result_split(result) == (result, [])


def test_long_table_is_cut_and_says_how_long_it_is():
    rows = [{"n": n, "y": n} for n in range(MAX_ROWS + 5)]
    (table,) = result_split({"rows": rows})[1]
    assert (len(table.rows), table.row_count) == (MAX_ROWS, MAX_ROWS + 5)
    assert table.curves[0].end == MAX_ROWS + 4


def test_what_counts_the_rows_comes_first_then_what_the_method_is_about():
    rows = [
        {
            "accuracy": 0.5,
            "accuracy_high": 0.6,
            "accuracy_low": 0.4,
            "loss": 3.0,
            "lr": 0.1,
            "step": 1,
        },
        {
            "accuracy": 0.6,
            "accuracy_high": 0.7,
            "accuracy_low": 0.5,
            "loss": 2.0,
            "lr": 0.1,
            "step": 2,
        },
    ]
    _, (table,) = result_split({"curve": rows})
    assert table.columns == ("step", "loss", "accuracy", "accuracy_low", "accuracy_high", "lr")
    assert table.rows[0] == (1, 3.0, 0.5, 0.4, 0.6, 0.1)
    assert [curve.name for curve in table.curves] == ["loss", "accuracy", "lr"]


def test_what_names_the_rows_comes_before_their_figures_and_before_stands_before_after():
    rows = [{"loss_after": 1.0, "loss_before": 2.0, "source": name} for name in ("a", "b")]
    _, (table,) = result_split({"sources": rows})
    assert table.columns == ("source", "loss_before", "loss_after")
