"""How figures are written on the hub's pages."""

from modelhub.templatetags.quantities import facts, measured, reliability


def test_nested_facts_keep_their_dotted_names():
    assert facts({"reward": {"lr": 1e-5, "epochs": 2}}) == [
        ("reward.lr", "1e-05"),
        ("reward.epochs", "2"),
    ]


def test_a_measured_figure_takes_its_bounds_in():
    value = {
        "held_out": {"accuracy": 0.72152, "accuracy_low": 0.64, "accuracy_high": 0.8, "pairs": 158}
    }
    assert measured(value) == [
        ("held out · accuracy", "0.72152 [0.64, 0.8]"),
        ("held out · pairs", "158"),
    ]


def test_one_bound_alone_is_a_figure_of_its_own():
    assert measured({"loss": 2.0, "loss_low": 1.0}) == [("loss", "2"), ("loss low", "1")]


def test_a_list_of_like_things_is_a_row_for_each_name():
    epochs = [{"loss": 1.75, "tokens": 10}, {"loss": 1.5, "tokens": 12}]
    assert measured({"epochs": epochs}) == [
        ("epochs · loss", "1.75, 1.5"),
        ("epochs · tokens", "10, 12"),
    ]
    assert measured({"mixed": [{"a": 1}, {"b": 2}]}) == [("mixed", '{"a": 1}, {"b": 2}')]


def test_nothing_measured_is_no_row():
    assert measured(None) == []


def test_a_result_without_a_reliability_curve_draws_none():
    assert reliability(None) is None
    assert reliability({"held_out_tables": {}}) is None
    drawn = reliability({"held_out_tables": {"reliability": [{"belief": 1.0, "accuracy": 1.0}]}})
    assert drawn is not None and drawn.points == [(314.0, 6.0)]


def test_a_large_number_is_written_out():
    thresholds = {"words_max": 100_000.0, "words_min": 50.0, "share": 0.9, "most": 1e30}
    assert facts(thresholds) == [
        ("words_max", "100,000"),
        ("words_min", "50"),
        ("share", "0.9"),
        ("most", "1e+30"),
    ]
