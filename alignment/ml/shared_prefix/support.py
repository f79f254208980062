"""Which models a shared row can serve, as far as their configuration tells."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from modelhub.ml.alibi import has_alibi
from modelhub.ml.configs import RefusedError


class UnsupportedModelError(RefusedError):
    """This model's numbers on a shared row would not be the separate ones; the message says why."""


def base_model(model: Any) -> PreTrainedModel:
    """The transformers model inside; LoRA layers have taken their places in it."""
    if isinstance(model, PreTrainedModel):
        return model
    if hasattr(model, "peft_config"):
        return model.get_base_model()
    raise UnsupportedModelError(f"{type(model).__name__} is not a transformers model")


def configuration_check(base: PreTrainedModel) -> None:
    """Raise UnsupportedModelError for what the configuration already tells."""
    config = base.config
    name = type(base).__name__
    if config.is_encoder_decoder:
        raise UnsupportedModelError(f"{name} is an encoder and a decoder: a row has one sequence")
    if has_alibi(base):
        return
    if getattr(config, "alibi", False) or config.model_type == "mpt":
        raise UnsupportedModelError(
            f"{name} has ALiBi: it measures distances in the row, not behind the prompt"
        )
    if not base._supports_attention_backend:
        raise UnsupportedModelError(
            f"{name} takes no attention function from outside (transformers' AttentionInterface)"
        )
    text = config.get_text_config()
    kinds = {"full_attention", "sliding_attention", "chunked_attention"}
    others = set(getattr(text, "layer_types", None) or ()) - kinds
    if others:
        raise UnsupportedModelError(
            f"{name} has {', '.join(sorted(others))} layers, whose state runs through the whole row"
        )


def windows_of(config: PretrainedConfig) -> dict[str, int]:
    """The windows that some layer's attention is kept to, in tokens, by the field that says so.

    Prompt and answer of a shared row fit into the shortest.
    """
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    found = {}
    for kind, field in (
        ("sliding_attention", "sliding_window"),
        ("chunked_attention", "attention_chunk_size"),
    ):
        window = getattr(text, field, None)
        if window is not None and (kinds is None or kind in kinds):
            found[field] = int(window)
    return found


def window_least(folder: Path) -> int | None:
    """The shortest window of a model directory's attention, in tokens; None: there is none."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return min(windows_of(config).values(), default=None)


def length_check(base: PreTrainedModel, longest: int) -> None:
    """Raise UnsupportedModelError if a window or a scaling of positions would act on the row."""
    text = base.config.get_text_config()
    context = getattr(text, "max_position_embeddings", None)
    if context is not None and longest > context:
        raise UnsupportedModelError(
            f"prompt and answer have {longest} tokens, the model's context {context}"
        )
    for field, window in windows_of(base.config).items():
        if window < longest:
            raise UnsupportedModelError(
                f"{field} of {window} tokens is shorter than prompt and answer ({longest})"
            )
    rope = getattr(text, "rope_parameters", None) or {}
    for one in rope.values() if all(isinstance(v, dict) for v in rope.values()) else (rope,):
        if one.get("rope_type") in ("dynamic", "longrope"):
            limit = one.get("original_max_position_embeddings") or context
            if limit is not None and longest > limit:
                raise UnsupportedModelError(
                    f"{one['rope_type']} rotary positions change with the longest answer of a row"
                )
