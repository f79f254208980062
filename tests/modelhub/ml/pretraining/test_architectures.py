"""The models of the presets: how many weights, and that packed documents do not see each other."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
pytest.importorskip("transformers", reason="the ml extra is not installed")

from modelhub.ml.configs import ConfigError, RefusedError
from modelhub.ml.pretraining.architectures import (
    Special,
    batch_make,
    block_losses,
    model_config,
    model_make,
    special_tokens,
    token_losses,
)
from modelhub.ml.pretraining.architectures import _auto as auto_class
from modelhub.ml.pretraining.configs import PretrainConfig
from modelhub.ml.pretraining.presets import SIZES, token_flops, weights_count
from tests.tiny_model import tiny_tokenizer

pytestmark = pytest.mark.ml

SIZED = [(architecture, size) for architecture, sizes in SIZES.items() for size in sizes]
LARGE = 8e9  # weights; more are not made even on the meta device, whose layers take time


def tiny(architecture, **settings):
    mask = {"document_mask": architecture != "rwkv"}
    return PretrainConfig(**{"architecture": architecture, "size": "tiny", **mask, **settings})


@pytest.mark.parametrize(("architecture", "size"), SIZED)
def test_a_size_has_as_many_weights_as_the_arithmetic_says(architecture, size):
    counted = weights_count(architecture, SIZES[architecture][size], vocabulary=500, context=64)
    if counted.total > LARGE:
        pytest.skip("too large to lay out in a test")
    special = Special(vocabulary=500, table=500, pad_id=0, end_id=0)
    shape = model_config(architecture, SIZES[architecture][size], special, context=64, dropout=0.0)
    with torch.device("meta"):
        model = auto_class(architecture).from_config(shape)
    assert counted.total == sum(weight.numel() for weight in model.parameters())


def test_papers_sizes_have_the_papers_names():
    llama = weights_count("llama", SIZES["llama"]["7b"], vocabulary=32_000, context=2048)
    mixtral = weights_count("mixtral", SIZES["mixtral"]["8x7b"], vocabulary=32_000, context=4096)
    gpt2 = weights_count("gpt2", SIZES["gpt2"]["124m"], vocabulary=50_257, context=1024)
    assert round(llama.total / 1e9, 1) == 6.7
    assert round(mixtral.total / 1e9, 1) == 46.7
    assert round((mixtral.total - mixtral.body + mixtral.body_active) / 1e9, 1) == 12.9
    assert gpt2.total == 124_439_808


def test_operations_of_a_token_are_six_a_weight_and_twelve_for_attention():
    # 2 layers, 64 wide: 6 · (weights that are multiplied) + 12 · 2 · 64 · 32 tokens.
    weights = weights_count("llama", SIZES["llama"]["tiny"], vocabulary=259, context=32)
    found = token_flops(
        "llama", SIZES["llama"]["tiny"], vocabulary=259, context=32, block_tokens=32
    )
    assert found == 6 * (weights.total - 259 * 64) + 12 * 2 * 64 * 32


def losses_of(model, blocks, config, special, seeds):
    generators = [np.random.default_rng(seed) for seed in seeds]
    batch = batch_make(blocks, generators, config, special)
    with torch.no_grad():
        loss_B, _ = block_losses(model, batch.inputs, batch.targets_BR)
    return loss_B, batch


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bloom", "mixtral"])
def test_packed_documents_have_the_losses_they_have_alone(architecture):
    config = tiny(architecture, block_tokens=48)
    special = special_tokens(tiny_tokenizer(), config.objective)
    torch.manual_seed(0)
    model = model_make(config, special).eval()
    draw = np.random.default_rng(0)
    lengths = [[20, 28], [7, 30, 11]]
    pieces = [[draw.integers(3, 250, length) for length in one] for one in lengths]
    packed = [
        (np.concatenate(one), np.concatenate([np.arange(len(piece)) for piece in one]))
        for one in pieces
    ]
    together, batch = losses_of(model, packed, config, special, [0, 1])
    assert "attention_mask" in batch.inputs
    alone = []
    for one in pieces:
        parts = [
            losses_of(model, [(piece, np.arange(len(piece)))], config, special, [0])[0]
            for piece in one
        ]
        alone.append(float(sum(parts)))
    assert together.tolist() == pytest.approx(alone, rel=1e-6)
    unmasked = tiny(architecture, block_tokens=48, document_mask=False)
    seen, _ = losses_of(model, packed, unmasked, special, [0, 1])
    assert seen.tolist() != pytest.approx(alone, rel=1e-3)


@pytest.mark.parametrize("architecture", ["bert", "t5"])
def test_a_document_is_heard_alike_whatever_stands_beside_it(architecture):
    """These draw what is hidden: the same block, its second document replaced, in evaluation."""
    config = tiny(architecture, block_tokens=40)
    special = special_tokens(tiny_tokenizer(), config.objective)
    torch.manual_seed(0)
    model = model_make(config, special).eval()
    draw = np.random.default_rng(0)
    first = draw.integers(3, 250, 25)
    positions = np.concatenate([np.arange(25), np.arange(15)])

    def logits(second, settings):
        block = (np.concatenate([first, second]), positions)
        batch = batch_make([block], [np.random.default_rng(4)], settings, special)
        targets = batch.targets_BR.clone()
        if architecture == "bert":
            targets[:, 25:] = -100
        else:  # of the first document alone: up to its end token
            end = int((targets[0] == special.end_id).nonzero()[0]) + 1
            targets[:, end:] = -100
        with torch.no_grad():
            return float(block_losses(model, batch.inputs, targets)[0][0])

    others = draw.integers(3, 250, 15), draw.integers(3, 250, 15)
    one, other = (logits(second, config) for second in others)
    assert one == pytest.approx(other, rel=1e-6)
    unmasked = tiny(architecture, block_tokens=40, document_mask=False)
    if architecture == "bert":
        one, other = (logits(second, unmasked) for second in others)
        assert one != pytest.approx(other, rel=1e-6)


def test_rows_of_different_length_are_padded_without_changing_a_loss():
    config = tiny("t5", block_tokens=40)
    special = special_tokens(tiny_tokenizer(), "span")
    torch.manual_seed(0)
    model = model_make(config, special).eval()
    draw = np.random.default_rng(0)
    whole = (draw.integers(3, 250, 40), np.arange(40))
    cut = (draw.integers(3, 250, 40), np.concatenate([np.arange(20)] * 2))
    both, _ = losses_of(model, [whole, cut], config, special, [0, 1])
    alone = [
        losses_of(model, [one], config, special, [n])[0][0] for n, one in enumerate([whole, cut])
    ]
    assert both.tolist() == pytest.approx([float(one) for one in alone], rel=1e-6)


def test_what_an_objective_needs_is_added_to_the_tokenizer():
    tokenizer = tiny_tokenizer()
    before = len(tokenizer)
    special = special_tokens(tokenizer, "span")
    assert special.vocabulary == before + 100 == len(tokenizer)
    assert tokenizer.convert_ids_to_tokens(special.sentinel_ids[99]) == "<extra_id_99>"
    masked = special_tokens(tokenizer, "masked", multiple=64)
    assert (masked.vocabulary, masked.table) == (before + 101, 384)
    assert tokenizer.mask_token_id == masked.mask_id == before + 100


def test_a_tokenizer_without_an_end_of_text_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(RefusedError, match="end-of-text"):
        special_tokens(tokenizer, "causal")


def test_a_recurrent_state_cannot_be_cut_at_documents():
    with pytest.raises(ConfigError, match="state runs on through a block"):
        PretrainConfig(architecture="rwkv", size="tiny")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"architecture": "mixtral", "expert_parallel": True}, "how many processes share"),
        ({"architecture": "llama", "expert_parallel": True}, "a model without experts"),
        ({"architecture": "rwkv", "document_mask": False, "dropout": 0.1}, "dropout"),
    ],
)
def test_what_would_change_nothing_is_refused(asked, said):
    """Otherwise the run would train something else than it was asked for."""
    with pytest.raises(ConfigError, match=said):
        PretrainConfig(size="tiny", **asked)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_of_few_rows_at_a_time_are_those_of_all_at_once(dtype):
    """300 rows: two parts of 128 and a rest. The gradients too, and an ignored row has none."""
    torch.manual_seed(0)
    logits_NV = (4 * torch.randn(300, 50)).to(dtype).requires_grad_()
    targets_N = torch.randint(0, 50, (300,))
    targets_N[[0, 130, 299]] = -100
    loss_N = token_losses(logits_NV, targets_N)
    (loss_N * torch.linspace(0.5, 1.5, 300)).sum().backward()
    found, logits_NV.grad = logits_NV.grad, None
    whole_N = torch.nn.functional.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    (whole_N * torch.linspace(0.5, 1.5, 300)).sum().backward()
    assert torch.equal(loss_N, whole_N)
    assert torch.equal(found, logits_NV.grad)
    assert not found[130].any()
