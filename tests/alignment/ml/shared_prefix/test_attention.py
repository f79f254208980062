"""The attention of a row: its other paths, its masks, the last layer."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

import copy

from alignment.ml import shared_prefix
from alignment.ml.shared_prefix import (
    Group,
    answer_scores,
    attach,
    attention,
    pack,
)
from tests.alignment.ml.shared_prefix.models import (
    ARCHITECTURES,
    assert_close,
    config_of,
    fresh,
    gradients_of,
    random_groups,
)

pytestmark = pytest.mark.ml


def test_attention_by_answer_equals_the_fused_one(monkeypatch):
    """The path that other devices, dropout and unequal head widths take."""
    shared, _ = fresh("llama_gqa", "reward")
    (row,) = pack(random_groups(11, [(12, [7, 0, 9]), (1, [1])]), 1000)
    torch.cat(answer_scores(shared, row)).sum().backward()
    fused = gradients_of(shared).clone()
    shared.zero_grad()

    def by_answer(query, key, value, row, scale):
        return attention.attention_by_answer(query, key, value, row, 0.0, scale)

    monkeypatch.setattr(attention.SegmentAttention, "apply", by_answer)
    torch.cat(answer_scores(shared, row)).sum().backward()
    assert_close(gradients_of(shared), fused)


# BLOOM's blocks are not told which row they run: all of its last layer is computed, and some of it
# thrown away.
@pytest.mark.parametrize("name", [one for one in ARCHITECTURES if one != "bloom"])
def test_the_last_layer_runs_its_mlp_where_it_is_read_and_nowhere_else(name, monkeypatch):
    shared, _ = fresh(name, "reward")
    (row,) = pack(random_groups(9, [(20, [7, 3, 9]), (6, [4])]), 1000)
    layers = next(
        child
        for child in getattr(shared, shared.base_model_prefix).children()
        if isinstance(child, torch.nn.ModuleList)
    )
    widths = []
    handles = [
        layer.mlp.register_forward_pre_hook(lambda _m, args: widths.append(args[0].shape[1]))
        for layer in layers
    ]
    answer_scores(shared, row)
    shared_prefix.hidden_states(shared, row)
    for handle in handles:
        handle.remove()
    assert widths == [row.tokens, 4, row.tokens, row.tokens]


def test_dropout_in_attention_trains_and_is_random():
    config = config_of("llama_gqa")
    config.attention_dropout = 0.5
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    attach(model)
    model.train()
    (row,) = pack(random_groups(1, [(12, [7, 3])]), 1000)
    torch.manual_seed(1)
    first = answer_scores(model, row)[0]
    assert not torch.allclose(first, answer_scores(model, row)[0])
    torch.manual_seed(1)
    assert torch.equal(first, answer_scores(model, row)[0])


def test_an_attached_model_works_as_before_without_rows():
    shared, plain = fresh("llama_gqa", "causal")
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    assert torch.allclose(
        shared(input_ids=ids, attention_mask=mask).logits[:, 2:],
        plain(input_ids=ids, attention_mask=mask).logits[:, 2:],
        atol=1e-5,
    )
    assert torch.equal(
        shared.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False),
        plain.generate(ids, attention_mask=mask, max_new_tokens=5, do_sample=False),
    )


def test_block_mask_sees_the_prompt_and_the_answer_itself_only():
    (row,) = pack([Group([1, 2], [[3, 4], [5]]), Group([6], [[7]])], 100)
    mask = row.block_mask(torch.device("cpu"))
    seen = [
        [
            bool(mask.mask_mod(0, 0, torch.tensor(query), torch.tensor(key)))
            for key in range(row.tokens)
        ]
        for query in range(row.tokens)
    ]
    assert [[int(x) for x in line] for line in seen] == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["llama_gqa", "qwen3", "gpt2"])
def test_block_masks_on_a_gpu_equal_the_separate_computation(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    _, plain = fresh(name, "reward")
    plain = copy.deepcopy(plain).cuda()
    shared = copy.deepcopy(plain)
    attach(shared)
    groups = random_groups(6, [(33, [17, 9, 30, 4]), (64, [40, 1])])
    (row,) = pack(groups, 1000)
    found = torch.cat(answer_scores(shared, row))
    found.square().sum().backward()
    expected = []
    for group in groups:
        for answer in group.answers:
            ids = torch.tensor([group.prompt_T + answer]).cuda()
            backbone = getattr(plain, plain.base_model_prefix)
            hidden_TC = backbone(input_ids=ids, use_cache=False).last_hidden_state[0]
            expected.append(plain.score(hidden_TC[-1])[0])
    expected = torch.stack(expected)
    expected.square().sum().backward()
    assert_close(found, expected, 1e-4)
    assert_close(gradients_of(shared), gradients_of(plain), 1e-4)
