"""The sums of `benchmarks.sums_reference`: read from a file, and drawn to be like them."""

import gzip
import json

import pytest

pytest.importorskip("torch", reason="the ml extra is not installed")

from benchmarks.rejection_reference import curve_table, difference_of, right_shares
from benchmarks.sums_reference import sums_draw, sums_read
from modelhub.ml.records import CandidateRecord, records_write

pytestmark = pytest.mark.ml

MARKED = [("48/2", "24"), ("4+3", "7"), ("20-5", "15"), ("9-2", "7"), ("6*7", "42")]


def test_the_sums_of_two_small_numbers_are_read_once_and_in_an_order_of_the_seed_s(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    texts = [f"so <<{question}={answer}>>{answer}" for question, answer in MARKED]
    texts += [texts[0], "<<100+5=105>>105 <<1+2+3=6>>6 <<3*.5=1.5>>1.5"]
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps({"answer": text}) + "\n" for text in texts)
    found = sums_read(path, seed=0)
    assert sorted(found) == sorted(MARKED)
    assert found == sums_read(path, seed=0) != sums_read(path, seed=1)


def test_drawn_sums_are_of_marked_numbers_and_have_whole_answers_and_none_is_marked():
    marked = [("90-50", "40"), ("7-1", "6"), ("60/5", "12"), ("8/2", "4"), ("99*2", "198")]
    marked += [(f"{left}+{right}", str(left + right)) for left in (1, 20) for right in (3, 40)]
    # Not 7-50, which is below 0, nor 8/5; all of + and * are marked.
    assert sorted(sums_draw(marked, 2, seed=0)) == [("60/2", "30"), ("90-1", "89")]
    with pytest.raises(SystemExit, match="only 2 sums to draw, not 3"):
        sums_draw(marked, 3, seed=0)


def test_a_marked_sum_the_other_way_round_is_not_drawn_and_a_drawn_one_neither():
    marked = [("3+4", "7"), ("4+7", "11"), ("8+3", "11")]
    # Not 4+3; of 8+4, 8+7, 3+7, 3+3 and 4+4 none is another turned round.
    drawn = sums_draw(marked, 5, seed=0)
    assert sorted(one for one, _ in drawn) == ["3+3", "3+7", "4+4", "8+4", "8+7"]
    marked = [("3*1", "3"), ("4*1", "4"), ("1*3", "3"), ("1*4", "4")]
    # 1*1, 3*3, 4*4, and one of 3*4 and 4*3
    pairs = [tuple(sorted(one.split("*"))) for one, _ in sums_draw(marked, 4, seed=0)]
    assert sorted(pairs) == [("1", "1"), ("3", "3"), ("3", "4"), ("4", "4")]


def test_the_same_seed_draws_the_same_sums_and_fewer_are_the_first_of_more():
    marked = [(f"{left}+{left % 7}", "") for left in range(1, 60)]
    many = sums_draw(marked, 40, seed=3)
    assert sums_draw(marked, 10, seed=3) == many[:10]
    assert sums_draw(marked, 40, seed=4) != many


def test_answers_are_right_by_prompt_and_a_gain_is_paired(tmp_path):
    answers = {"a": "24", "b": "7"}
    texts = [("a", "24"), ("a", "23"), ("b", "8"), ("b", "7")]
    records_write(
        tmp_path / "candidates.jsonl",
        [
            CandidateRecord(
                prompt_id=prompt_id,
                index=number,
                text=text,
                token_count=2,
                finish_reason="stop",
                mean_logprob=None,
                seed=0,
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                max_tokens=6,
                engine="transformers",
            )
            for number, (prompt_id, text) in enumerate(texts)
        ],
    )
    before = right_shares(tmp_path, answers)
    assert before == {"a": 0.5, "b": 0.5}
    told = difference_of(before, {"a": 1.0, "b": 1.0})
    assert (told["before"], told["after"]) == (0.5, 1.0)
    assert told["difference"] == {"mean": 0.5, "low": 0.5, "high": 0.5}


def test_the_best_of_n_is_a_table_with_its_kl():
    points = [{"n": 1, "mean_score": 0.5, "kl_bound": 0.0, "pass_at_n": 0.5, "best_right": 0.5}]
    assert curve_table(points).splitlines()[2] == "| 1 | 0 | 0.5 |"
