"""Load and save models, and the state of a training run. safetensors and JSON only.

Nothing here reads or writes a pickle, and no code that comes with a model is ever run
(`trust_remote_code` stays false). Callers pass folders whose bytes were verified: `RunDir.input`
and `RunDir.checkpoint_latest` do that, because safetensors itself has no checksum.
"""

import json
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    CompressedTensorsConfig,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from modelhub.ml.alibi import alibi_prepare
from modelhub.ml.configs import RefusedError
from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.parallel import (
    is_first,
    objects_gather,
    process_rank,
    tensor_fill,
    tensor_placed,
    tensor_shape,
    tensors_gather,
)
from modelhub.ml.records import json_canonical, json_strict

transformers_logging.disable_progress_bar()  # of no use in a log file

# safetensors creates files for their owner alone (0600), the tokenizer's JSON follows the umask.
# Every file saved here gets one mode, so that an account of the same group can read what a run
# made by hand has left; other accounts of the machine see nothing: weights remember what people
# wrote. Runs that a worker starts lie in a folder of mode 0700, and the store takes their files in
# as 0600 (modelhub/storage.py): there the site's own account alone reads.
FILE_MODE = 0o640

_WEIGHTS, _OPTIMIZER, _STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
_MOST_HEADS = 64
# Their own attention alone: ALiBi goes into no fused kernel of transformers.
_EAGER = (
    "BloomForCausalLM",
    "BloomForSequenceClassification",
    "RwkvForCausalLM",
    "T5ForConditionalGeneration",
)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class CheckpointError(RefusedError):
    """A model or a training state does not fit what it is loaded into; the message says where."""


def dtype_named(dtype: str | torch.dtype) -> torch.dtype:
    """The torch dtype called "float32", "bfloat16" or "float16"; a torch dtype passes through."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise CheckpointError(f"dtype: wanted {', '.join(_DTYPES)}, got {dtype!r}")
    return _DTYPES[dtype]


def model_load(
    folder: Path | str,
    *,
    dtype: str | torch.dtype,
    role: str = "causal",
    new_head: bool = False,
    heads: int = 1,
    quantised: bool = False,
    any_writer: bool = False,
) -> PreTrainedModel:
    """Load a model directory in `dtype`, in evaluation mode, on the CPU.

    role "causal": a language model. role "reward": a decoder with a `score` head of one output
    (transformers' …ForSequenceClassification, num_labels=1), or of several where its configuration
    says `reward_heads`. A reward model that lacks its head is refused, as random scores look like
    scores; `new_head=True` asks for a fresh head of `heads` outputs on a language model, drawn from
    torch's generator. quantised: whether quantised weights are taken too, which can be read from
    and not trained; they come as the numbers they stand for. any_writer: whether RWKV and T5 are
    language models too.

    Raises ModelDirectoryError for a folder that is more or less than a model, CheckpointError
    naming the first weight that is missing, left over or of another shape.
    """
    if role not in ("causal", "reward"):
        raise CheckpointError(f"role: wanted causal or reward, got {role!r}")
    facts = model_directory_check(Path(folder), quantised=quantised, any_writer=any_writer)
    settings: dict[str, Any] = {
        "dtype": dtype_named(dtype),
        "use_safetensors": True,
        "trust_remote_code": False,
        "local_files_only": True,
        # Never what config.json asks for: that can name a kernel to be fetched and run.
        "attn_implementation": "eager" if facts.architecture in _EAGER else "sdpa",
        # Reported by name below, rather than in a table on the way.
        "ignore_mismatched_sizes": True,
        "output_loading_info": True,
    }
    if facts.quantisation:
        # Else transformers 5.19 leaves these weights out and draws random ones in their place.
        settings["quantization_config"] = CompressedTensorsConfig(dequantize=True)
    if facts.role == "encoder-decoder":
        model, info = AutoModelForSeq2SeqLM.from_pretrained(folder, **settings)
    elif role == "causal":
        model, info = AutoModelForCausalLM.from_pretrained(folder, **settings)
    else:
        if facts.role == "reward":
            heads = _heads_read(Path(folder))
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=heads, **settings
        )
    _loaded_check(folder, info, new_head=new_head and role == "reward")
    alibi_prepare(model)
    model.eval()
    return model


def _heads_read(folder: Path) -> int:
    """How many outputs the score head has. Never read off the number of labels: a classifier of
    sentiments is no ensemble of reward models."""
    heads = json_strict((folder / "config.json").read_bytes()).get("reward_heads", 1)
    if not isinstance(heads, int) or isinstance(heads, bool) or not 1 <= heads <= _MOST_HEADS:
        raise CheckpointError(f"reward_heads: wanted 1 to {_MOST_HEADS}, got {heads!r:.40}")
    return heads


def _loaded_check(folder: Path | str, info: Mapping[str, Any], *, new_head: bool) -> None:
    name = Path(folder).name
    for weight in sorted(key[0] for key in info["mismatched_keys"]):
        raise CheckpointError(f"{name}: {weight} has another shape than config.json says")
    for weight in sorted(info["missing_keys"]):
        if not (new_head and weight == "score.weight"):
            raise CheckpointError(f"{name}: {weight} is missing")
    for weight in sorted(info["unexpected_keys"]):
        if not (new_head and weight == "lm_head.weight"):
            raise CheckpointError(f"{name}: {weight} is not a weight of this architecture")


def tokenizer_load(folder: Path | str) -> Any:
    """The tokenizer of a model directory (its tokenizer.json)."""
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def model_save(
    model: PreTrainedModel, tokenizer: Any, folder: Path | str, dtype: str = "bfloat16"
) -> None:
    """Write a model directory other tools load too: safetensors, config.json, tokenizer.

    Floating weights are converted to `dtype` on the way; the model in memory keeps its own. Tied
    weights (SmolLM2's embedding is its output layer) are written once.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = dtype_named(dtype)
    # Tied weights are one tensor under two names; converted once, they still are.
    converted: dict[tuple[int, torch.Size, int], Tensor] = {}
    state = {}
    for name, tensor in model.state_dict().items():
        tensor = tensor.detach()
        key = (tensor.data_ptr(), tensor.shape, tensor.storage_offset())
        if key not in converted:
            moved = tensor.to("cpu", wanted if tensor.is_floating_point() else tensor.dtype)
            converted[key] = moved.contiguous()
        state[name] = converted[key]
    model.save_pretrained(folder, state_dict=state)
    # save_pretrained notes the dtype of the model in memory, not of what it wrote.
    config_path = folder / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    config["dtype"] = str(wanted).removeprefix("torch.")
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
    files_mode_set(folder)


def rng_state() -> dict[str, Any]:
    """The random generators of Python, NumPy and torch (every CUDA device too), as JSON values."""
    python = random.getstate()
    numpy: Any = np.random.get_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": [python[0], list(python[1]), python[2]],
        "numpy": [numpy[0], numpy[1].tolist(), *numpy[2:]],
        "torch": _hex(torch.get_rng_state()),
        "cuda": [_hex(state) for state in devices],
    }


def rng_restore(state: Mapping[str, Any]) -> None:
    """Set the generators to what `rng_state` returned."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_unhex(state["torch"]))
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all([_unhex(one) for one in state["cuda"]])


def training_state_save(
    folder: Path | str,
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    values: Mapping[str, Any],
) -> None:
    """Write all that training needs to go on: what changes in the model, the optimizer, generators.

    `values`: JSON values of the caller's own (step, place in the data, losses so far). Weights are
    written in the dtype they are trained in; those that do not require a gradient are left out, as
    the run's input has them. Made for `run.checkpoint_publish(step, lambda folder: …)`.

    Of several processes every one calls this, for each holds a share of a sharded model and has
    generators of its own; the first writes, whole tensors.
    """
    folder = Path(folder)
    weights = tensors_gather(_trained_weights(model))
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, slots in state["state"].items():
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{slot}"] = value
            else:
                plain.setdefault(str(index), {})[slot] = value
    slots_whole = tensors_gather(tensors)
    generators = objects_gather(rng_state())
    if not is_first():
        return
    save_file(weights, folder / _WEIGHTS)
    save_file(slots_whole, folder / _OPTIMIZER)
    described = {
        "optimizer": {
            "class": _class_name(optimizer),
            "groups": state["param_groups"],
            "plain": plain,
        },
        "rng": generators,  # by rank
        "values": dict(values),
    }
    (folder / _STATE).write_text(json_canonical(described), encoding="utf-8")
    files_mode_set(folder)


def training_state_load(
    folder: Path | str, *, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restore what `training_state_save` wrote, generators included, and return its `values`.

    The number of processes may be another one than wrote it: a rank that is new seeds its
    generators from its number. Raises CheckpointError if the state is of another model or
    optimizer, or if the processes have found different checkpoints.
    """
    folder = Path(folder)
    if len(set(objects_gather(folder.name))) > 1:
        raise CheckpointError("the processes have found different checkpoints")
    described = json_strict((folder / _STATE).read_bytes())
    weights = _trained_weights(model)
    saved = _tensors_load(folder / _WEIGHTS)
    if saved.keys() != weights.keys():
        other = sorted(saved.keys() ^ weights.keys())
        raise CheckpointError(f"{_WEIGHTS}: {other[0]} is on one side only")
    for name, tensor in saved.items():
        if tensor.shape != tensor_shape(weights[name]) or tensor.dtype != weights[name].dtype:
            raise CheckpointError(f"{_WEIGHTS}: {name} has another shape or dtype")
        if not weights[name].is_meta:  # of another stage of a pipeline
            tensor_fill(weights[name], tensor)
    written = described["optimizer"]
    if written["class"] != _class_name(optimizer):
        raise CheckpointError(f"{_STATE}: the optimizer was a {written['class']}")
    current = optimizer.state_dict()["param_groups"]
    counts = [len(group["params"]) for group in current]
    if counts != [len(group["params"]) for group in written["groups"]]:
        raise CheckpointError(f"{_STATE}: the optimizer had other parameter groups")
    groups = [
        # JSON has lists where the optimizer had tuples (betas).
        {k: tuple(v) if isinstance(group.get(k), tuple) else v for k, v in saved_group.items()}
        for group, saved_group in zip(current, written["groups"], strict=True)
    ]
    state: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in written["plain"].items()}
    trained = [weight for group in optimizer.param_groups for weight in group["params"]]
    for name, tensor in _tensors_load(folder / _OPTIMIZER).items():
        index, slot = name.split(".", 1)
        like = trained[int(index)]
        if like.is_meta:
            continue
        if tensor.shape == like.shape:  # a moment of every weight, not a count of steps
            tensor = tensor_placed(tensor, like)
        state.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    _generators_restore(described["rng"])
    return dict(described["values"])


def _class_name(optimizer: Any) -> str:
    """Of the optimizer whose state it is: one that shares another's out has that one's."""
    return str(getattr(optimizer, "checkpoint_class", type(optimizer).__name__))


def _generators_restore(by_rank: Sequence[Mapping[str, Any]]) -> None:
    rank = process_rank()
    if rank < len(by_rank):
        rng_restore(by_rank[rank])
    else:
        torch.manual_seed(rank)


def _trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters that training changes (tied ones once), and buffers that a state dict keeps."""
    kept = model.state_dict().keys()
    weights: dict[str, Tensor] = {
        name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad
    }
    weights.update((name, buffer) for name, buffer in model.named_buffers() if name in kept)
    return weights


def _tensors_load(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


def _hex(state: Tensor) -> str:
    return bytes(state.cpu().tolist()).hex()


def _unhex(state: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(state)), dtype=torch.uint8)


def files_mode_set(folder: Path) -> None:
    """Give every file of a folder the one mode."""
    for path in folder.iterdir():
        if path.is_file():
            os.chmod(path, FILE_MODE)  # noqa: PTH101 (Path.chmod follows, and there are no links)
