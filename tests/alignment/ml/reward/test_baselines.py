"""The bag of words: what it can learn, and that its fit is the minimum."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from alignment.ml.data import RankedGroup, Ranking
from alignment.ml.reward.baselines import BagOfWords, length_scores
from alignment.ml.shared_prefix import Group

pytestmark = pytest.mark.ml


def group(*texts, tiers=((0,), (1,))):
    return RankedGroup(
        prompt_id=texts[0],
        split="train",
        group=Group([1], [[number] for number in range(len(texts))]),
        texts_K=texts,
        rankings=(Ranking(tiers=tiers),),
    )


def test_it_learns_which_word_wins():
    made = BagOfWords([group(f"thanks {n}", f"sorry {n}") for n in range(8)])
    (found,) = made.scores([group("Thanks a lot", "sorry, no", "neither")])
    assert found[0] > found[2] > found[1]
    assert found[2] == 0


def test_its_weights_by_hand():
    """One word, in the better answer once: n · log σ(log 2 · w) − w² at its maximum."""
    made = BagOfWords([group("good", "") for _ in range(4)])
    (scores,) = made.scores([group("good", "good good good")])
    weight = float(scores[0]) / torch.tensor(2.0).log().item()
    count = torch.tensor(2.0).log().item()  # log(1 + 1)
    slope = 4 * count / (1 + torch.tensor(count * weight).exp().item()) - 2 * weight
    assert slope == pytest.approx(0, abs=1e-4)
    assert float(scores[1]) == pytest.approx(weight * torch.tensor(4.0).log().item(), rel=1e-5)


def test_chinese_is_counted_by_character():
    made = BagOfWords([group("很好", "不行"), group("好的", "不可")])
    (found,) = made.scores([group("好", "不")])
    assert found[0] > 0 > found[1]


def test_without_a_common_word_all_answers_score_the_same():
    made = BagOfWords([group("one", "two")])
    assert [one.tolist() for one in made.scores([group("one", "two")])] == [[0.0, 0.0]]


def test_length_is_in_characters():
    assert length_scores([group("four", "sixsix")])[0].tolist() == [4.0, 6.0]
