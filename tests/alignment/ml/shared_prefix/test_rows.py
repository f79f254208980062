"""Groups in rows: positions and packing."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

from hypothesis import given
from hypothesis import strategies as st

from alignment.ml.shared_prefix import (
    Group,
    pack,
)
from tests.alignment.ml.shared_prefix.models import (
    random_groups,
)

pytestmark = pytest.mark.ml


def test_positions_of_each_answer_continue_the_prompt():
    (row,) = pack([Group([1, 2, 3], [[4, 5], [6], []]), Group([7], [[8, 9]])], 100)
    assert row.input_ids().tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert row.position_ids().tolist() == [[0, 1, 2, 3, 4, 3, 0, 1, 2]]
    assert [i.tolist() for i in row.score_indices()] == [[4, 5, 2], [8]]
    group_T, segment_T = row.segment_ids()
    assert group_T.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1]
    assert segment_T.tolist() == [0, 0, 0, 1, 1, 2, 0, 1, 1]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 30), st.lists(st.integers(0, 30), min_size=1))),
    budget=st.integers(1, 120),
)
def test_packing_keeps_every_group_once_and_the_budget_where_a_group_allows(sizes, budget):
    groups = random_groups(0, sizes)
    rows = pack(groups, budget)
    assert sorted(i for row in rows for i in row.indices) == list(range(len(groups)))
    for row in rows:
        assert [groups[i] for i in row.indices] == list(row.groups)
        assert row.tokens <= budget or len(row.groups) == 1
        assert row.tokens == row.input_ids().shape[1]
    assert rows == pack(groups, budget)


def test_a_group_goes_where_it_leaves_the_least_room():
    # 7 and 6 open rows of 10; the 3 fits both and best behind the 7; the 4 fills the other.
    sizes = [(7, []), (6, []), (3, []), (4, [])]
    groups = [Group([1] * size, [[]]) for size, _ in sizes]
    assert [row.indices for row in pack(groups, 10)] == [(0, 2), (1, 3)]
    # First fit would put the 2 behind the 6, where the 4 then has no room.
    groups = [Group([1] * size, [[]]) for size in (8, 6, 4, 2)]
    assert [row.indices for row in pack(groups, 10)] == [(0, 3), (1, 2)]
    groups = [Group([1] * size, [[]]) for size in (5, 7, 3, 2, 3)]
    assert [row.indices for row in pack(groups, 10)] == [(0, 3, 4), (1, 2)]
