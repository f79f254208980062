"""What a shared row cannot serve is refused, with the reason."""

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")
transformers = pytest.importorskip("transformers", reason="the ml extra is not installed")

import copy

from alignment.ml import shared_prefix
from alignment.ml.shared_prefix import (
    Group,
    UnsupportedModelError,
    answer_scores,
    attach,
    attention,
    pack,
)
from tests.alignment.ml.shared_prefix.models import (
    SMALL,
    fresh,
)

pytestmark = pytest.mark.ml


class TestRefusals:
    def test_alibi(self):
        config = transformers.MptConfig(vocab_size=61, d_model=24, n_layers=1, n_heads=4)
        model = transformers.AutoModelForCausalLM.from_config(config)
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

    @pytest.mark.parametrize("is_laid_right", [True, False])
    def test_rounded_activations_are_no_wrong_row(self, monkeypatch, is_laid_right):
        """Where a sum's last bits decide on which side of a rounding it ends, rows differ."""
        model = copy.deepcopy(fresh("llama_gqa", "causal")[1])
        model.model.layers[0].mlp.register_forward_pre_hook(
            lambda _, given: torch.where(
                (given[0] * 1e7).round() % 2 == 0, given[0], 1.02 * given[0]
            )
        )
        if is_laid_right:
            attach(model)
            return
        monkeypatch.setattr(
            shared_prefix.Row, "position_ids", lambda row: torch.arange(row.tokens)[None]
        )
        with pytest.raises(UnsupportedModelError, match="would be wrong"):
            attach(model)

    def test_weights_that_are_not_numbers(self):
        model = copy.deepcopy(fresh("llama_gqa", "causal")[1])
        with torch.no_grad():
            model.model.norm.weight[0] = float("nan")
        with pytest.raises(UnsupportedModelError, match="NaN or infinite"):
            attach(model)

    def test_an_adapter_whose_tokens_have_no_place_on_a_row(self):
        peft = pytest.importorskip("peft", reason="the ml extra is not installed")
        plain = copy.deepcopy(fresh("llama_gqa", "causal")[1])
        model = peft.get_peft_model(
            plain, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
        )
        attach(model)
        (row,) = pack([Group([1, 2], [[3]])], 100)
        with pytest.raises(UnsupportedModelError, match="PROMPT_TUNING has no place"):
            shared_prefix.hidden_states(model, row)

    def test_an_empty_prompt(self):
        with pytest.raises(ValueError, match="a prompt of one token"):
            Group([], [[1]])

    def test_a_model_that_was_not_attached(self):
        _, plain = fresh("llama_gqa", "reward")
        with pytest.raises(ValueError, match="attach"):
            answer_scores(plain, pack([Group([1], [[2]])], 10)[0])
