"""Chart geometry against places worked out by hand: 320 wide, 96 high, 6 kept free at the edges."""

from modelhub.charts import (
    bars_draw,
    chart_draw,
    curve_draw,
    funnel_draw,
    histogram_draw,
    reliability_draw,
)


def test_a_curve_runs_from_edge_to_edge_with_large_values_at_the_top() -> None:
    curve = curve_draw([(0, 2.0), (5, 1.0), (10, 0.0)])
    assert curve is not None
    assert curve.points == "6.0,6.0 160.0,48.0 314.0,90.0"
    assert (curve.first, curve.last, curve.last_step) == (2.0, 0.0, 10)


def test_a_flat_curve_lies_in_the_middle_and_one_point_is_none() -> None:
    flat = curve_draw([(1, 3.0), (2, 3.0)])
    assert flat is not None and flat.points == "6.0,48.0 314.0,48.0"
    assert curve_draw([(1, 3.0)]) is None
    assert curve_draw([]) is None


def test_a_chart_keeps_zero_in_sight_and_spans_the_intervals() -> None:
    chart = chart_draw([("Round 1", 0.5, 0.0, 1.0), ("Round 2", 0.5, 0.25, 0.75)])
    assert chart is not None
    first, second = chart.marks
    assert (first.x, second.x) == (80.0, 240.0)
    assert second.label_x == 247.0
    assert (first.y, first.low_y, first.high_y) == (48.0, 90.0, 6.0)
    assert chart.zero_y == 90.0 and (chart.bottom, chart.top) == (0.0, 1.0)
    assert chart_draw([]) is None


def test_bars_stand_on_the_floor_and_the_highest_fills_the_chart() -> None:
    drawn = bars_draw([("Mon", 2), ("Tue", 4)])
    assert drawn is not None
    low, high = drawn.bars
    assert (low.x, low.y, low.width, low.height, low.middle) == (60.0, 51.0, 40.0, 45.0, 80.0)
    assert (high.y, high.height) == (6.0, 90.0)
    assert (drawn.top, drawn.total) == (4, 6)


def test_many_bars_leave_a_fifth_of_their_room_between_them() -> None:
    drawn = bars_draw([(str(day), 1) for day in range(20)])
    assert drawn is not None
    first, second, *_ = drawn.bars
    assert (first.x, first.width, second.x) == (1.6, 12.8, 17.6)


def test_many_bars_are_not_all_named_and_the_last_always_is() -> None:
    drawn = bars_draw([(str(day), 1) for day in range(14)])
    assert drawn is not None
    named = [int(bar.label) for bar in drawn.bars if bar.is_named]
    assert named == [1, 3, 5, 7, 9, 11, 13]


def test_nothing_to_count_is_no_chart() -> None:
    assert bars_draw([]) is None
    assert bars_draw([("Mon", 0)]) is None


def test_a_reliability_curve_runs_from_one_half_to_one_and_its_line_is_where_both_are_equal() -> (
    None
):
    drawn = reliability_draw([(0.5, 0.0), (0.75, 0.5), (1.0, 1.0)])
    assert drawn is not None
    assert drawn.points == [(6.0, 90.0), (160.0, 48.0), (314.0, 6.0)]
    assert drawn.line == "6.0,90.0 160.0,48.0 314.0,6.0"
    assert drawn.diagonal == "6.0,48.0 314.0,6.0"
    assert reliability_draw([]) is None


def test_labels_have_room_under_their_marks_and_stay_within_the_chart() -> None:
    names = [f"a-very-long-name-{n}" for n in range(8)]
    chart = chart_draw([(name, 0.5, 0.5, 0.5) for name in names])
    assert chart is not None
    slot = 320 / 8
    assert all(len(mark.short) * 5.4 < slot for mark in chart.marks)
    assert [mark.label for mark in chart.marks] == names
    alone = chart_draw([("a-very-long-name", 0.5, 0.5, 0.5)])
    assert alone is not None
    assert alone.marks[0].short == "a-very-long-name"
    bars = bars_draw([(f"November {n}", 1.0) for n in range(1, 31)])
    assert bars is not None
    last = bars.bars[-1]
    assert last.is_named
    assert last.middle + len(last.label) * 5.4 / 2 <= 320


def test_a_histogram_marks_what_a_rule_drops() -> None:
    """Ten parts of 0 to 10: below a minimum of 3 three parts go, above a maximum of 3 seven."""
    drawn = histogram_draw([4, 1] + [0] * 7 + [16], 0.0, 10.0, 3.0, is_minimum=True)
    assert drawn is not None
    assert [bar.is_dropped for bar in drawn.bars] == [True] * 3 + [False] * 7
    assert drawn.threshold_x == 96.0
    assert [bar.height for bar in drawn.bars[:2]] == [45.0, 22.5]  # square roots of shares of 16
    most = histogram_draw([1] * 10, 0.0, 10.0, 3.0, is_minimum=False)
    assert most is not None
    assert [bar.is_dropped for bar in most.bars] == [False] * 3 + [True] * 7
    assert histogram_draw([0, 0], 0.0, 1.0, None, is_minimum=True) is None


def test_a_funnel_narrows_step_by_step() -> None:
    first, second = funnel_draw(100, [("a", 25), ("b", 50)])
    assert (first.left, first.left_width, first.dropped_width) == (75, 240.0, 80.0)
    assert (second.left, second.left_width) == (25, 80.0)
