"""Which numbers of a version's facts are figures, with their bounds, and which way is better."""

from modelhub.version_figures import (
    Figure,
    figure_more_is_better,
    figures_read,
    parent_differences,
)

FACTS = {
    "license": "mit",
    "loss": 0.5,
    "steps": 10,
    "notes": ["none"],
    "losses": [1.0, 0.5],
    "is_done": True,
    "held_out": {"accuracy": 0.7, "accuracy_low": 0.6, "accuracy_high": 0.8, "pairs": 90},
    "reward_after": {"mean": 1.5, "low": 1.0, "high": 2.0},
    "sources": [
        {"source": "wiki.en", "perplexity_before": 90.0, "perplexity_after": 9.0},
        {"source": "code", "perplexity_before": 80.0, "perplexity_after": None},
    ],
    "beside_parent": [
        {
            "figure": "perplexity",
            "parent": 9.0,
            "own": 9.5,
            "difference": 0.5,
            "difference_low": 0.2,
            "difference_high": 0.8,
        }
    ],
}


def test_figures_take_their_bounds_in_and_the_ones_that_matter_come_first():
    found = figures_read(FACTS)
    assert found == {
        "held_out.accuracy": Figure(value=0.7, low=0.6, high=0.8),
        "beside_parent.perplexity": Figure(value=9.5),
        "sources.wiki.en": Figure(value=9.0),
        "loss": Figure(value=0.5),
        "reward_after": Figure(value=1.5, low=1.0, high=2.0),
        "held_out.pairs": Figure(value=90),
        "steps": Figure(value=10),
    }
    assert next(iter(found)) == "held_out.accuracy"
    assert parent_differences(FACTS) == {"perplexity": Figure(value=0.5, low=0.2, high=0.8)}


def test_what_was_measured_before_the_training_is_called_so():
    told = {"held_out": {"loss": 2.5, "loss_after": 2.0, "accuracy": 0.5}}
    found = figures_read(told)
    assert set(found) == {"held_out.loss_before", "held_out.loss_after", "held_out.accuracy"}
    assert figure_more_is_better("held_out.loss_before") is None


def test_better_is_said_of_what_was_unseen_alone():
    assert figure_more_is_better("held_out.accuracy") is True
    assert figure_more_is_better("validation.loss_after") is False
    assert figure_more_is_better("sources.wiki.en") is False
    assert figure_more_is_better("beside_parent.token accuracy") is True
    assert figure_more_is_better("divergence") is False
    assert figure_more_is_better("loss") is None  # of the samples that this run read last
    assert figure_more_is_better("held_out.pairs") is None
    assert figure_more_is_better("held_out.length_accuracy") is None  # of a baseline


def test_intervals_that_touch_overlap():
    one = Figure(value=0.7, low=0.6, high=0.8)
    assert one.overlaps(Figure(value=0.85, low=0.8, high=0.9))
    assert not one.overlaps(Figure(value=0.9, low=0.85, high=0.95))
    assert not one.overlaps(Figure(value=0.7))
