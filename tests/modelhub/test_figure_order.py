"""What a run's page begins with, and the order of what follows."""

import pytest

from alignment.methods import METHODS
from modelhub import figure_order
from modelhub.figure_order import headlines


def test_the_machines_own_figures_come_last():
    names = ["lr", "tokens_per_s", "tokens", "grad_norm", "validation_loss", "loss", "accuracy"]
    names.sort(key=figure_order.figure_order)
    assert names == [
        *("loss", "validation_loss", "accuracy"),
        "tokens",
        *("grad_norm", "lr", "tokens_per_s"),
    ]


def test_figures_named_as_trainers_name_them_have_their_place():
    names = ["logps/chosen", "rewards/margins", "rewards/accuracies", "loss"]
    names.sort(key=figure_order.figure_order)
    assert names == ["loss", "rewards/accuracies", "rewards/margins", "logps/chosen"]


@pytest.mark.parametrize(
    ("program", "names", "first"),
    [
        ("reward", ["dtype", "held_out.accuracy", "held_out.pairs"], "held_out.accuracy"),
        ("evaluate", ["kl_per_answer_nats", "win_rate.share", "win_rate.low"], "win_rate.share"),
        ("pretrain", ["tokens", "loss"], "loss"),
        ("dpo", ["validation.accuracy_after", "loss_last_steps"], "validation.accuracy_after"),
    ],
)
def test_a_method_begins_with_what_it_is_for(program, names, first):
    assert headlines(program, names)[0] == first


def test_a_program_that_is_not_known_has_no_headline_and_none_is_invented():
    assert headlines("juggle", ["loss"]) == []
    assert headlines("pretrain", ["steps"]) == []


def test_programs_with_headlines_are_programs_of_ours():
    others = {"import_corpus", "import_model"}
    assert figure_order._HEADLINES.keys() <= METHODS.keys() | others
