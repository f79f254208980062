"""A shared row gives what one answer at a time gives: scores, log-probs, gradients."""

import copy
import random

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers")

from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from alignment.ml import shared_prefix
from alignment.ml.shared_prefix import (
    Group,
    UnsupportedModelError,
    answer_logprobs,
    answer_scores,
    attach,
    attention,
    pack,
)

pytestmark = pytest.mark.ml

VOCABULARY = 61
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "num_labels": 1,
    "pad_token_id": 0,
}


def config_of(name):
    if name == "gpt2":
        return transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=24,
            n_layer=2,
            n_head=4,
            n_positions=128,
            num_labels=1,
            pad_token_id=0,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
        )
    extra, cls = {
        "llama": ({"num_key_value_heads": 4}, transformers.LlamaConfig),
        "llama_gqa": ({"num_key_value_heads": 2}, transformers.LlamaConfig),
        "llama_mqa": (
            {"num_key_value_heads": 1, "tie_word_embeddings": True},
            transformers.LlamaConfig,
        ),
        "qwen2": ({"num_key_value_heads": 2}, transformers.Qwen2Config),
        "qwen3": ({"num_key_value_heads": 2, "head_dim": 8}, transformers.Qwen3Config),
        "mixtral": (
            {"num_key_value_heads": 2, "num_local_experts": 4, "sliding_window": None},
            transformers.MixtralConfig,
        ),
        "mistral_window": (
            {"num_key_value_heads": 2, "sliding_window": 80},
            transformers.MistralConfig,
        ),
    }[name]
    return cls(**{**SMALL, **extra})


ARCHITECTURES = [
    "llama",
    "llama_gqa",
    "llama_mqa",
    "qwen2",
    "qwen3",
    "gpt2",
    "mixtral",
    "mistral_window",
]
_models = {}


def fresh(name, role):
    """(a model that runs rows, the same weights untouched)."""
    if (name, role) not in _models:
        torch.manual_seed(0)
        cls = {
            "reward": transformers.AutoModelForSequenceClassification,
            "causal": transformers.AutoModelForCausalLM,
        }[role]
        plain = cls.from_config(config_of(name)).eval()
        with torch.no_grad():
            for parameter in plain.parameters():  # large enough for attention to matter
                parameter.add_(torch.randn_like(parameter) * 0.1)
        shared = copy.deepcopy(plain)
        attach(shared)
        _models[name, role] = (shared, plain)
    shared, plain = _models[name, role]
    shared.zero_grad()
    plain.zero_grad()
    return shared, plain


def random_groups(seed, sizes):
    """Groups of random tokens; `sizes` is a list of (prompt length, answer lengths)."""
    rng = random.Random(seed)

    def tokens(count):
        return [rng.randrange(1, VOCABULARY) for _ in range(count)]

    return [Group(tokens(p), [tokens(a) for a in answers]) for p, answers in sizes]


def separate_scores(model, group):
    """One answer at a time, no batch, no padding, transformers' own attention."""
    backbone = getattr(model, model.base_model_prefix)
    scores = []
    for answer in group.answers:
        ids = torch.tensor([group.prompt_T + answer])
        hidden_TC = backbone(input_ids=ids, use_cache=False).last_hidden_state[0]
        scores.append(model.score(hidden_TC[-1])[0])
    return torch.stack(scores)


def separate_logprobs(model, group):
    found = []
    for answer in group.answers:
        ids = torch.tensor([group.prompt_T + answer])
        logits_TV = model(input_ids=ids, use_cache=False).logits[0]
        start = len(group.prompt_T) - 1
        logprobs_TV = F.log_softmax(logits_TV[start : start + len(answer)], dim=-1)
        found.append(logprobs_TV.gather(1, torch.tensor(answer).long()[:, None])[:, 0])
    return found


def gradients_of(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def assert_close(found, expected, relative=1e-5):
    """Within `relative` of the size of the whole, and no empty comparison."""
    assert found.shape == expected.shape
    error = (found - expected).norm().detach()
    assert error <= relative * expected.norm() + 1e-12, float(error / expected.norm())


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
    peft = pytest.importorskip("peft")
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


@pytest.mark.parametrize("name", ARCHITECTURES)
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


def test_half_precision_stays_within_its_rounding():
    _, plain = fresh("llama_gqa", "reward")
    half = copy.deepcopy(plain).bfloat16()
    attach(half)
    groups = random_groups(2, [(30, [20, 10, 5])])
    (row,) = pack(groups, 1000)
    assert_close(
        torch.cat(answer_scores(half, row)), separate_scores(plain, groups[0]), relative=0.05
    )


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


class TestRefusals:
    def test_alibi(self):
        config = transformers.BloomConfig(
            vocab_size=61, hidden_size=24, n_layer=1, n_head=4, num_labels=1
        )
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        with pytest.raises(UnsupportedModelError, match="ALiBi"):
            attach(model)

    def test_encoder_and_decoder(self):
        config = transformers.T5Config(
            vocab_size=61, d_model=24, d_ff=32, num_layers=1, num_heads=4, d_kv=6
        )
        with pytest.raises(UnsupportedModelError, match="encoder and a decoder"):
            attach(transformers.T5ForConditionalGeneration(config))

    def test_encoder(self):
        config = transformers.BertConfig(
            vocab_size=61,
            hidden_size=24,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=32,
            num_labels=1,
        )
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        with pytest.raises(UnsupportedModelError, match="not causal"):
            attach(model)
        assert model.config._attn_implementation != attention.IMPLEMENTATION

    def test_state_space_layers(self):
        config = transformers.MambaConfig(
            vocab_size=61, hidden_size=24, num_hidden_layers=1, state_size=4
        )
        with pytest.raises(UnsupportedModelError):
            attach(transformers.MambaForCausalLM(config))

    def test_softcapped_attention(self):
        config = transformers.Gemma2Config(
            **{**SMALL, "num_key_value_heads": 2, "head_dim": 6, "sliding_window": 64}
        )
        with pytest.raises(UnsupportedModelError, match="softcap"):
            attach(transformers.Gemma2ForCausalLM(config))

    def test_a_window_shorter_than_an_answer(self):
        shared, _ = fresh("mistral_window", "reward")
        (row,) = pack([Group([5] * 80, [[6] * 5])], 100)
        with pytest.raises(UnsupportedModelError, match="sliding_window of 80 tokens"):
            answer_scores(shared, row)

    def test_a_row_longer_than_the_context(self):
        shared, _ = fresh("gpt2", "reward")
        (row,) = pack([Group([5] * 120, [[6] * 9])], 1000)
        with pytest.raises(UnsupportedModelError, match="129 tokens, the model's context 128"):
            answer_scores(shared, row)

    def test_positions_that_scale_with_the_length(self):
        config = transformers.LlamaConfig(
            **{**SMALL, "max_position_embeddings": 64},
            rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
        )
        config.max_position_embeddings = 256
        config.rope_parameters["original_max_position_embeddings"] = 64
        model = transformers.AutoModelForSequenceClassification.from_config(config)
        attach(model)
        (row,) = pack([Group([5] * 70, [[6] * 5])], 100)
        with pytest.raises(UnsupportedModelError, match="rotary positions"):
            answer_scores(model, row)

    def test_logits_scaled_behind_the_head(self):
        config = transformers.CohereConfig(
            **{**SMALL, "num_key_value_heads": 2, "logit_scale": 0.25}
        )
        with pytest.raises(UnsupportedModelError, match="LM head"):
            attach(transformers.CohereForCausalLM(config))

    def test_a_model_that_ignores_the_row_is_found_out(self, monkeypatch):
        """Whatever the reason: the comparison at attach is the last guard."""
        model = copy.deepcopy(fresh("llama_gqa", "causal")[1])
        monkeypatch.setattr(
            shared_prefix.Row, "position_ids", lambda row: torch.arange(row.tokens)[None]
        )
        with pytest.raises(UnsupportedModelError, match="would be wrong"):
            attach(model)
        assert model.config._attn_implementation != attention.IMPLEMENTATION

    def test_weights_that_are_not_numbers(self):
        model = copy.deepcopy(fresh("llama_gqa", "causal")[1])
        with torch.no_grad():
            model.model.norm.weight[0] = float("nan")
        with pytest.raises(UnsupportedModelError, match="NaN or infinite"):
            attach(model)

    def test_prefix_tuning(self):
        peft = pytest.importorskip("peft")
        plain = copy.deepcopy(fresh("llama_gqa", "causal")[1])
        model = peft.get_peft_model(
            plain, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        )
        with pytest.raises(UnsupportedModelError, match="tokens of its own"):
            attach(model)

    def test_an_empty_prompt(self):
        with pytest.raises(ValueError, match="a prompt of one token"):
            Group([], [[1]])

    def test_a_model_that_was_not_attached(self):
        _, plain = fresh("llama_gqa", "reward")
        with pytest.raises(ValueError, match="attach"):
            answer_scores(plain, pack([Group([1], [[2]])], 10)[0])
