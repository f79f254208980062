"""A shared row gives what one answer at a time gives: scores, log-probs, gradients."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

import copy

from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.ml.shared_prefix import (
    Group,
    answer_logprobs,
    answer_scores,
    attach,
    pack,
)
from tests.alignment.ml.shared_prefix.models import (
    ARCHITECTURES,
    assert_close,
    fresh,
    gradients_of,
    random_groups,
    separate_logprobs,
    separate_scores,
)

pytestmark = pytest.mark.ml


sizes = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.integers(0, 30), min_size=1, max_size=9)),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(max_examples=8, deadline=None)
@given(sizes=sizes, seed=st.integers(0, 2**30), budget=st.integers(1, 400))
def test_scores_and_gradients_equal_the_separate_computation(name, sizes, seed, budget):
    shared, plain = fresh(name, "reward")
    # The last group is there so that the whole is never one score, near 0 by chance.
    groups = random_groups(seed, [*sizes, (3, [4, 5, 6, 7])])
    weights = [torch.randn(len(g.answers), generator=torch.manual_seed(seed)) for g in groups]

    found = [None] * len(groups)
    for row in pack(groups, budget):
        for index, scores_K in zip(row.indices, answer_scores(shared, row), strict=True):
            found[index] = scores_K
    sum((w * s).sum() for w, s in zip(weights, found, strict=True)).backward()
    expected = [separate_scores(plain, group) for group in groups]
    sum((w * s).sum() for w, s in zip(weights, expected, strict=True)).backward()

    assert_close(torch.cat(found), torch.cat(expected))
    assert_close(gradients_of(shared), gradients_of(plain))


@pytest.mark.parametrize("name", ARCHITECTURES)
@settings(max_examples=6, deadline=None)
@given(sizes=sizes, seed=st.integers(0, 2**30))
def test_logprobs_and_gradients_equal_the_separate_computation(name, sizes, seed):
    shared, plain = fresh(name, "causal")
    groups = random_groups(seed, [*sizes, (3, [4])])
    (row,) = pack(groups, 10_000)

    found = [x for group in answer_logprobs(shared, row) for x in group]
    expected = [x for group in groups for x in separate_logprobs(plain, group)]
    assert [len(x) for x in found] == [len(x) for x in expected]
    weights = torch.randn(sum(map(len, found)), generator=torch.manual_seed(seed))
    (weights * torch.cat(found)).sum().backward()
    (weights * torch.cat(expected)).sum().backward()

    assert_close(torch.cat(found), torch.cat(expected))
    assert_close(gradients_of(shared), gradients_of(plain))


def test_in_double_precision_the_difference_shrinks_with_the_rounding():
    """What differs in float32 is rounding, not arithmetic. GPT-2, because the others' norms and
    rotary positions are float32 whatever the weights are."""
    _, plain = fresh("gpt2", "reward")
    plain = copy.deepcopy(plain).double()
    shared = copy.deepcopy(plain)
    attach(shared)
    groups = random_groups(7, [(23, [11, 3, 0, 17]), (1, [1, 29])])
    (row,) = pack(groups, 1000)
    found = torch.cat(answer_scores(shared, row))
    expected = torch.cat([separate_scores(plain, group) for group in groups])
    assert found.dtype == torch.float64
    found.square().sum().backward()
    expected.square().sum().backward()
    assert_close(found, expected, relative=1e-13)
    assert_close(gradients_of(shared), gradients_of(plain), relative=1e-13)


@pytest.mark.parametrize("name", ["llama_gqa", "gpt2"])
def test_without_gradients_the_logprobs_are_the_same_numbers(name):
    shared, _ = fresh(name, "causal")
    (row,) = pack(random_groups(3, [(9, [5, 0, 12]), (2, [30])]), 1000)
    with torch.no_grad():
        plain = answer_logprobs(shared, row)
    tracked = answer_logprobs(shared, row)
    for one, other in zip(plain, tracked, strict=True):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a, b)
            assert b.requires_grad


@pytest.mark.parametrize("name", ["llama_gqa", "gpt2", "mixtral"])
def test_gradient_checkpointing_changes_no_gradient(name):
    shared, _ = fresh(name, "reward")
    (row,) = pack(random_groups(5, [(12, [7, 3, 9]), (6, [4, 11])]), 1000)
    torch.cat(answer_scores(shared, row)).square().sum().backward()
    kept = gradients_of(shared).clone()

    again = copy.deepcopy(shared)
    again.zero_grad()
    again.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    again.train()
    torch.cat(answer_scores(again, row)).square().sum().backward()
    assert_close(gradients_of(again), kept)


def test_lora_is_exact_and_its_gradients_too():
    peft = pytest.importorskip("peft", reason="the ml extra is not installed")
    _, plain = fresh("llama_gqa", "reward")
    lora = peft.get_peft_model(
        copy.deepcopy(plain),
        peft.LoraConfig(
            r=4, target_modules=["q_proj", "v_proj", "down_proj"], modules_to_save=["score"]
        ),
    )
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    separate = copy.deepcopy(lora)
    attach(lora)
    groups = random_groups(8, [(15, [6, 9, 3, 1]), (4, [8, 2])])
    (row,) = pack(groups, 1000)

    found = torch.cat(answer_scores(lora, row))
    expected = torch.cat([separate_scores(separate.get_base_model(), group) for group in groups])
    assert_close(found, expected)
    assert (
        expected - torch.cat([separate_scores(plain, group) for group in groups])
    ).norm() > 0.01 * expected.norm()
    found.square().sum().backward()
    expected.square().sum().backward()
    assert_close(gradients_of(lora), gradients_of(separate))


def test_half_precision_stays_within_its_rounding():
    _, plain = fresh("llama_gqa", "reward")
    half = copy.deepcopy(plain).bfloat16()
    attach(half)
    groups = random_groups(2, [(30, [20, 10, 5])])
    (row,) = pack(groups, 1000)
    assert_close(
        torch.cat(answer_scores(half, row)), separate_scores(plain, groups[0]), relative=0.05
    )


def test_an_answer_does_not_see_its_neighbours():
    """Were there a leak, changing one answer would change another's score."""
    shared, _ = fresh("llama_gqa", "reward")
    (group,) = random_groups(4, [(10, [6, 6, 6])])
    changed = Group(group.prompt_T, [group.answers[0], [1] * 6, group.answers[2]])
    before = answer_scores(shared, pack([group], 100)[0])[0]
    after = answer_scores(shared, pack([changed], 100)[0])[0]
    assert torch.equal(before[[0, 2]], after[[0, 2]])
    assert before[1] != after[1]


def test_a_score_is_read_at_the_last_token_even_if_it_is_the_padding_token():
    """Pooling by token id cannot tell a finished answer from one that is cut off."""
    shared, _ = fresh("llama_gqa", "reward")
    pad = shared.config.pad_token_id
    group = Group([5, 6, 7], [[8, 9], [8, 9, pad]])
    unfinished, finished = answer_scores(shared, pack([group], 100)[0])[0]
    assert unfinished != finished
