"""The two ways in which Rondo's models are quantised, and how a model directory says so.

    w8a8    weights of 8 bits, one scale a row; what goes into a layer is rounded to 8 bits too, one
            scale a token, as it comes
    w4a16   weights of 4 bits, one scale for `group_size` of them along a row

Every linear layer but the output layer; embeddings and norms stay as they are. The files are those
of the library compressed-tensors, which vLLM and transformers read: safetensors, and settings in
config.json that hold nothing to run. Only settings equal to the ones written here are taken.
Standard library only.
"""

from typing import Any

SCHEMES = ("w8a8", "w4a16")
GROUP_SIZES = (32, 64, 128)
NOT_QUANTISED = ("lm_head",)

# What the library's tensors are called, behind the layer's name.
PACKED, SCALE, SHAPE = "weight_packed", "weight_scale", "weight_shape"
PACKED_NUMBERS = 8  # of 4 bits, in one int32

_LIBRARY_VERSION = "0.17.0"  # whose format this is
_NOTHING: dict[str, Any] = {
    "actorder": None,
    "block_structure": None,
    "group_size": None,
    "scale_dtype": None,
    "symmetric": True,
    "type": "int",
    "zp_dtype": None,
    "observer_kwargs": {},
}


def quantisation_settings(scheme: str, group_size: int) -> dict[str, Any]:
    """`quantization_config` of config.json. group_size: of w4a16, 0 for w8a8."""
    minmax = {"observer": "memoryless_minmax", "dynamic": False}
    if scheme == "w8a8":
        layout = "int-quantized"
        weights = {**_NOTHING, **minmax, "num_bits": 8, "strategy": "channel"}
        told: dict[str, Any] | None = {
            **_NOTHING,
            "num_bits": 8,
            "strategy": "token",
            "dynamic": True,
            "observer": None,
        }
    else:
        layout, told = "pack-quantized", None
        weights = {**_NOTHING, **minmax, "num_bits": 4, "strategy": "group"}
        weights["group_size"] = group_size
    group = {
        "format": layout,
        "input_activations": told,
        "output_activations": None,
        "targets": ["Linear"],
        "weights": weights,
    }
    return {
        "config_groups": {"group_0": group},
        "format": layout,
        "global_compression_ratio": None,
        "ignore": list(NOT_QUANTISED),
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
        "version": _LIBRARY_VERSION,
    }


def quantisation_known(settings: Any) -> tuple[str, int] | None:
    """(scheme, group size) that the settings in a config.json are those of; None for any other."""
    for scheme in SCHEMES:
        for group_size in GROUP_SIZES if scheme == "w4a16" else (0,):
            if settings == quantisation_settings(scheme, group_size):
                return scheme, group_size
    return None


def quantisation_name(scheme: str, group_size: int) -> str:
    """As versions are called: "w8a8", "w4a16 g32"."""
    return f"{scheme} g{group_size}" if group_size else scheme
