"""Prefix tuning and P-tuning on packed rows: what PEFT computes of one prompt alone."""

import copy

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
peft = pytest.importorskip("peft", reason="the ml extra is not installed")

import torch.nn.functional as F

from alignment.ml.adapters import adapter_attach
from alignment.ml.configs import SftConfig
from alignment.ml.shared_prefix import answer_logprobs, attach, hidden_states, pack
from tests.alignment.ml.shared_prefix.models import (
    assert_close,
    fresh,
    gradients_of,
    random_groups,
)

pytestmark = pytest.mark.ml

SIZES = [(7, [5, 3, 8]), (2, [4]), (12, [1, 6]), (3, [9, 2])]


def adapted(name, kind):
    """(a model with an adapter that runs rows, the same that PEFT runs)."""
    plain = copy.deepcopy(fresh(name, "causal")[1])
    torch.manual_seed(1)
    config = SftConfig(adapter=kind, virtual_tokens=4, encoder_width=12, publish="adapter")
    model = adapter_attach(plain, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.eval()
    separate = copy.deepcopy(model)
    attach(model)
    return model, separate


def separate_logprobs(model, group):
    """One answer at a time through PEFT's own forward."""
    found = []
    for answer in group.answers:
        ids = torch.tensor([group.prompt_T + answer])
        logits_TV = model(input_ids=ids, use_cache=False).logits[0][-ids.shape[1] :]
        start = len(group.prompt_T) - 1
        logprobs_TV = F.log_softmax(logits_TV[start : start + len(answer)], dim=-1)
        found.append(logprobs_TV.gather(1, torch.tensor(answer)[:, None])[:, 0])
    return found


@pytest.mark.parametrize("kind", ["prefix", "p_tuning"])
@pytest.mark.parametrize("name", ["llama_gqa", "qwen3", "gpt2"])
def test_log_probabilities_and_gradients_of_packed_rows_are_those_of_each_answer_alone(name, kind):
    model, separate = adapted(name, kind)
    groups = random_groups(3, SIZES)
    (row,) = pack(groups, 1000)
    found = torch.cat([torch.cat(one) for one in answer_logprobs(model, row)])
    expected = torch.cat([torch.cat(separate_logprobs(separate, group)) for group in groups])
    assert_close(found, expected)
    found.square().mean().backward()
    expected.square().mean().backward()
    assert_close(gradients_of(model), gradients_of(separate), relative=2e-5)
    assert gradients_of(model).norm() > 0


@pytest.mark.parametrize("kind", ["prefix", "p_tuning"])
def test_the_adapters_tokens_matter_to_every_prompt_of_a_row(kind):
    """Were they in front of the row alone, as in libraries, later prompts would not see them."""
    model, _ = adapted("llama_gqa", kind)
    groups = random_groups(3, SIZES)
    (row,) = pack(groups, 1000)
    found = answer_logprobs(model, row)
    without = answer_logprobs(model.get_base_model(), row)
    for own, bare in zip(found, without, strict=True):
        assert (torch.cat(own) - torch.cat(bare)).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["prefix", "p_tuning"])
def test_places_that_are_read_are_those_of_the_row_as_it_was_given(kind):
    model, _ = adapted("llama_gqa", kind)
    (row,) = pack(random_groups(4, SIZES), 1000)
    every_TC = hidden_states(model, row)
    read = row.score_indices()
    assert every_TC.shape[0] == row.tokens
    assert_close(hidden_states(model, row, read), every_TC[torch.cat(read)])


def test_a_disabled_adapter_is_the_base():
    model, _ = adapted("llama_gqa", "prefix")
    (row,) = pack(random_groups(4, SIZES), 1000)
    with model.disable_adapter():
        found = hidden_states(model, row)
    assert torch.equal(found, hidden_states(model.get_base_model(), row))


def test_gradient_checkpointing_gives_the_same_gradients():
    model, _ = adapted("llama_gqa", "prefix")
    (row,) = pack(random_groups(4, SIZES), 1000)
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
        torch.cat([torch.cat(one) for one in answer_logprobs(model, row)]).sum().backward()
        gradients.append(gradients_of(model))
    assert_close(*gradients)
