"""A chat model of 90,000 random weights, made in a second: real files and no download."""

from pathlib import Path

from benchmarks.byte_tokenizer import CHAT_TEMPLATE
from benchmarks.byte_tokenizer import byte_tokenizer as tiny_tokenizer

__all__ = ["CHAT_TEMPLATE", "tiny_model_write", "tiny_tokenizer"]


def tiny_model_write(folder: Path, *, seed: int = 0) -> Path:
    """Write a tiny random Llama (2 layers, 512 tokens of context, tied embedding, float32) with its
    tokenizer into `folder`, and return it. The same seed gives the same bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from modelhub.ml.checkpoint import model_save

    tokenizer = tiny_tokenizer()
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=0.2,  # unlike 0.02, gives distributions that are far from uniform
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    torch.set_rng_state(state)
    model_save(model, tokenizer, folder, dtype="float32")
    return folder
