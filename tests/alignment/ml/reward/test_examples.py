"""What is trained on: every set that would teach nothing is refused before a model is loaded."""

import dataclasses

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.configs import RewardConfig
from alignment.ml.data import RankedData, RankedGroup, Ranking, rankings_load
from alignment.ml.reward.examples import (
    better_of,
    examples_choose,
    margin_of,
    pairs_explode,
    template_check,
)
from alignment.ml.shared_prefix import Group
from modelhub.ml.configs import RefusedError
from modelhub.ml.records import RecordError, records_write
from tests.alignment.ml.test_data import ranking
from tests.tiny_model import CHAT_TEMPLATE, tiny_tokenizer

pytestmark = pytest.mark.ml

ORDER = ((0,), (1,))


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def group(*rankings, answers=2, prompt="p", tied=()):
    texts = tuple(f"answer {number}" for number in range(answers))
    made = [one if isinstance(one, Ranking) else Ranking(tiers=one) for one in rankings]
    return RankedGroup(
        prompt_id=prompt,
        split="train",
        group=Group([1], [[2 + number] for number in range(answers)]),
        texts_K=texts,
        rankings=tuple(made),
        tied=tuple(tied),
    )


def choose(*groups, **config):
    data = RankedData(
        groups=list(groups), rankings=9, too_long=0, without_pairs=0, longest_tokens=9
    )
    return examples_choose(data, RewardConfig(**config), max_tokens=100)


def loaded(tmp_path, tokenizer, *records, max_tokens=1000):
    path = tmp_path / "rankings.jsonl"
    records_write(path, records)
    return rankings_load(path, tokenizer, max_tokens=max_tokens)


def pair(number, texts=("yes", "no"), **values):
    record = ranking(number, prompt=f"p{number}", texts=texts, tiers="a>b")
    return dataclasses.replace(record, kind="pair", **values)


# ── sets that teach nothing ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "records, message",
    [
        ([], "0 rankings were read"),
        ([pair(1)], "nothing to learn from 1 pair"),
        ([ranking(1, tiers="a=b=c")], "1 put no answer above another"),
        ([pair(1, ("same", "same")), pair(2, ("", ""))], "2 only above one of the same words"),
        ([ranking(1, texts=("only",), tiers="a")], "1 put no answer above another"),
        ([pair(1, ("x" * 200, "y")), pair(2, ("x" * 200, "y"))], "2 have a prompt and answer of"),
    ],
)
def test_a_degenerate_set_is_refused_with_what_was_read(tmp_path, tokenizer, records, message):
    data = loaded(tmp_path, tokenizer, *records, max_tokens=100)
    with pytest.raises(RefusedError, match=message):
        examples_choose(data, RewardConfig(), max_tokens=100)


def test_what_deserves_to_be_known_is_said(tmp_path, tokenizer):
    data = loaded(
        tmp_path,
        tokenizer,
        pair(1),
        pair(2, ("", "no")),
        pair(3, ("same", "same")),
        pair(4, ("x" * 200, "y")),
        ranking(5, prompt="p5", tiers="a=b=c"),
        max_tokens=100,
    )
    groups, notes = examples_choose(data, RewardConfig(), max_tokens=100)
    assert len(groups) == 2
    assert notes == [
        "1 of 5 rankings (20.0%) are left out: a prompt and answer of more than 100 tokens",
        "1 rankings put no answer above another",
        "1 rankings only put an answer above one of the same words",
        "1 answers are empty",
        "all rankings to train on are one annotator's",
    ]


def test_a_pair_of_the_same_words_is_in_no_loss():
    one = dataclasses.replace(group(answers=3), group=Group([1], [[2], [3], [2]]))
    tiers = ((0,), (1,), (2,))
    assert one.pairs_of(Ranking(tiers=tiers)) == [(0, 1), (1, 2)]
    assert better_of(one, Ranking(tiers=tiers)).nonzero().tolist() == [[0, 1], [1, 2]]


# ── settings that nothing in the rows answers to ─────────────────────────────────────────────────


@pytest.mark.parametrize(
    "config, message",
    [
        ({"degree_margin": "small"}, "no ranking to train on tells a degree"),
        ({"annotator_weights": True}, "no ranking carries a weight"),
        ({"safety_weight": 1.0}, "says which answers are unsafe"),
        ({"soft_labels": True}, "would change nothing: no answers were judged more than once"),
    ],
)
def test_a_setting_without_rows_for_it_is_refused(config, message):
    with pytest.raises(RefusedError, match=message):
        choose(group(ORDER), group(ORDER, prompt="q"), **config)


@pytest.mark.parametrize("unsafe, kind", [((), "safe"), ((0, 1), "unsafe")])
def test_safety_labels_of_one_class_are_refused(unsafe, kind):
    one = Ranking(tiers=ORDER, unsafe=unsafe)
    with pytest.raises(RefusedError, match=f"all 4 safety labels say {kind},"):
        choose(group(one), group(one, prompt="q"), safety_weight=0.5)


def test_a_tie_of_two_unsafe_answers_has_a_say_in_safety():
    both = Ranking(tiers=((0, 1),), unsafe=(0, 1))
    one = Ranking(tiers=ORDER, unsafe=())
    _, notes = choose(group(one, tied=[both]), group(one, prompt="q"), safety_weight=0.5)
    assert "2 of 6 safety labels say unsafe" in notes


def test_rankings_without_a_degree_are_counted():
    told = Ranking(tiers=ORDER, degree=4)
    _, notes = choose(group(told, ORDER), group(told, prompt="q"), degree_margin="large")
    assert "1 of 3 rankings tell no degree: no margin of it" in notes


def test_rankings_of_weight_nought_are_left_out_and_unused_weights_said():
    none, half = Ranking(tiers=ORDER, weight=0.0), Ranking(tiers=ORDER, weight=0.5)
    groups = (group(none, half), group(half, prompt="q"), group(none, prompt="r"))
    found, _ = choose(*groups, annotator_weights=True)
    assert [one.prompt_id for one in found] == ["p", "q"]
    assert found[0].rankings == (half,)
    found, notes = choose(*groups)
    assert len(found) == 3
    assert "rows carry weights of their annotators, which are not asked for" in notes
    with pytest.raises(RefusedError, match="every ranking to train on has weight 0"):
        choose(group(none), group(none, prompt="q"), annotator_weights=True)


def test_pairs_that_an_unsafe_answer_won_are_left_out_if_asked():
    contrary = Ranking(tiers=ORDER, unsafe=(0,))
    both, safe = Ranking(tiers=ORDER, unsafe=(0, 1)), Ranking(tiers=ORDER, unsafe=(1,))
    groups = (group(contrary, both), group(safe, prompt="q"), group(contrary, prompt="r"))
    found, notes = choose(*groups, leave_out_unsafe_won=True)
    assert [one.rankings for one in found] == [(both,), (safe,)]
    assert "2 rankings are left out: an unsafe answer beat a safe one" in notes
    with pytest.raises(RefusedError, match="an unsafe answer beat a safe one"):
        choose(group(contrary), group(contrary, prompt="q"), leave_out_unsafe_won=True)


# ── margins, pairs, rows, templates ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "preset, expected",
    [
        ("none", [0, 0, 0, 0, 0, 0]),
        ("small", [0, 0, 0, 1 / 3, 2 / 3, 1]),
        ("large", [0, 0, 0, 1, 2, 3]),
    ],
)
def test_margins_by_degree_are_llama_2s(preset, expected):
    config = RewardConfig(degree_margin=preset, margin=0.25)
    degrees = (None, 0, 1, 2, 3, 4)
    found = [margin_of(Ranking(tiers=ORDER, degree=one), config) for one in degrees]
    assert found == pytest.approx([0.25 + margin for margin in expected])


def test_exploded_pairs_are_those_of_the_rankings():
    one = Ranking(tiers=((2,), (0, 1)), unsafe=(0,), degree=None, weight=0.5)
    found = pairs_explode([group(one, answers=3)])
    assert [each.texts_K for each in found] == [
        ("answer 2", "answer 0"),
        ("answer 2", "answer 1"),
    ]
    assert [each.group.answers for each in found] == [[[4], [2]], [[4], [3]]]
    assert [each.rankings[0].unsafe for each in found] == [(1,), ()]
    assert all(each.rankings[0].tiers == ORDER for each in found)
    assert all(each.rankings[0].weight == 0.5 for each in found)


def test_a_row_tells_degree_safety_and_weight(tmp_path, tokenizer):
    data = loaded(tmp_path, tokenizer, pair(1, degree=3, unsafe=["b"], weight=0.25))
    (found,) = data.groups[0].rankings
    assert (found.degree, found.unsafe, found.weight) == (3, (1,), 0.25)
    assert found.annotator == "one"


@pytest.mark.parametrize(
    "values, field",
    [
        ({"degree": 5}, "degree"),
        ({"unsafe": ["z"]}, "unsafe"),
        ({"unsafe": ["a", "a"]}, "unsafe"),
        ({"weight": -1.0}, "weight"),
    ],
)
def test_a_row_of_impossible_labels_is_named(tmp_path, tokenizer, values, field):
    with pytest.raises(RecordError, match=f"line 1, field {field}:"):
        loaded(tmp_path, tokenizer, pair(1, **values))


def test_a_policy_that_lays_chats_otherwise_is_refused(tokenizer):
    template_check(tiny_tokenizer(), tokenizer)
    other = tiny_tokenizer()
    other.chat_template = CHAT_TEMPLATE.replace("<|im_start|>assistant\n", "<|im_start|>model\n")
    with pytest.raises(RefusedError, match="another chat template or vocabulary"):
        template_check(other, tokenizer)
