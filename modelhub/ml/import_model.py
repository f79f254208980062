"""Bring a model into the hub: a Hugging Face directory, a GGUF file, or a hub id.

    python -m modelhub.ml.import_model RUN_DIR

Whatever the source, the output passes `model_directory_check`, its weights fit the architecture in
config.json and are finite, and its chat template renders in a limited child process.
"""

import os
import re
import shutil
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from modelhub.ml.configs import ImportModelConfig, RefusedError
from modelhub.ml.model_directory import (
    ModelFacts,
    model_directory_check,
)
from modelhub.ml.pinned import pinned, place_given
from modelhub.ml.rundir import RunDir, program_run
from modelhub.ml.safetensors_file import ModelDirectoryError
from modelhub.ml.template_check import template_check

# All that is ever asked of a hub. No pickle and no code is even downloaded.
HUB_PATTERNS = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
_WHOLE_TYPES = ("F64", "F32", "F16", "BF16")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")


def main(run: RunDir) -> None:
    config = run.config(ImportModelConfig)
    folder = run.output("model")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars are of no use in a log file
    print(f"importing {config.source} {config.location}", flush=True)
    run.progress(0, 3, "steps")
    stored = ""
    if config.source == "directory":
        with pinned(place_given(config.location)) as held:
            directory_copy(held, folder)
    elif config.source == "gguf":
        with pinned(place_given(config.location)) as held:
            scratch = _scratch(run)
            given, alone = scratch / "given", scratch / "alone"
            for one in (given, alone):
                one.mkdir()
            path = given / Path(config.location).name  # what messages call it
            path.symlink_to(held)
            stored = gguf_weight_type(path)
            gguf_convert(path, folder, scratch=alone)
    else:
        scratch = _scratch(run)
        hub_download(config.location, config.revision, scratch)
        directory_copy(scratch, folder)
    run.progress(1, 3, "steps")
    facts = model_directory_check(folder)
    role_check(facts, config.role)
    weights_check(folder, facts)
    run.progress(2, 3, "steps")
    if facts.chat_template:
        template_check(folder)
    else:
        print("the model has no chat template: it can be trained from, not asked", flush=True)
    run.progress(3, 3, "steps")
    run.succeed(
        outputs={"model": "model"},
        result={
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "dtype": facts.dtype,
            "context_tokens": facts.context_tokens,
            "chat_template": facts.chat_template,
            **({"weights_from": stored} if stored else {}),
        },
    )


def gguf_weight_type(path: Path) -> str:
    """What most of a GGUF file's numbers are kept as, such as "Q4_1"; empty where they are whole.

    They are de-quantised here, and are no more exact for it. Raises RefusedError as gguf_check.
    """
    gguf_check(path)
    from gguf import GGUFReader

    counts: Counter[str] = Counter()
    try:
        for tensor in GGUFReader(path).tensors:
            counts[tensor.tensor_type.name] += int(tensor.n_elements)
    except Exception as error:  # what its bytes can make a parser raise has no end
        raise RefusedError(f"{path.name}: cannot be read as GGUF: {error}") from error
    name = max(counts, key=lambda one: counts[one], default="")
    return "" if name in _WHOLE_TYPES else name


def directory_copy(source: Path, folder: Path) -> None:
    """Copy a model directory's own files; what merely travels with them stays behind.

    Raises ModelDirectoryError as `model_directory_check` does. The copy has to be checked again:
    the source may change under the copying.
    """
    for name in model_directory_check(source).files:
        # Opened without following links: a file may have been swapped since the check.
        descriptor = os.open(source / name, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as read, (folder / name).open("xb") as write:
            shutil.copyfileobj(read, write, 1 << 20)
        (folder / name).chmod(0o640)  # as in checkpoint.py, without loading torch for it


def gguf_convert(path: Path, folder: Path, *, scratch: Path) -> None:
    """Write a GGUF model as a bfloat16 model directory, de-quantised.

    Raises RefusedError for a file that is not GGUF, or holds an architecture Rondo does not know.
    """
    gguf_check(path)
    import torch
    from transformers import AutoModelForCausalLM

    from modelhub.ml.checkpoint import model_save

    # Alone in a folder: the loader would also look at what lies beside the file.
    (scratch / "model.gguf").symlink_to(path.absolute())
    loaded, tokenizer = gguf_load(scratch / "model.gguf", name=path.name)
    # A model loaded from GGUF calls itself quantised and refuses to be saved, so its numbers go to
    # a fresh one of the same shape, which has none of its own.
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False, dtype="float32")
    model.load_state_dict(loaded.state_dict(), assign=True)
    model_save(model, tokenizer, folder, dtype="bfloat16")


def gguf_load(path: Path, *, name: str = "") -> tuple[Any, Any]:
    """(model in float32, tokenizer) of a GGUF file that lies alone in its folder.

    name: what to call the file in an error. Raises RefusedError for what is no language model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path.parent, dtype="float32", trust_remote_code=False, **where
        )
        tokenizer = AutoTokenizer.from_pretrained(path.parent, trust_remote_code=False, **where)
    except MemoryError:
        raise
    except Exception as error:  # what its bytes can make a parser raise has no end
        what = name or path.name
        raise RefusedError(f"{what}: cannot be read as a language model: {error}") from error
    if model.config.model_type == "gpt2":  # of a file transformers reads a context of 1,024
        model.config.n_positions = len(model.transformer.wpe.weight)
    return model, tokenizer


def gguf_check(path: Path) -> None:
    """Raise RefusedError unless the file starts as a GGUF file of version 2 or 3 does."""
    if not path.is_file():
        raise RefusedError(f"{path.name}: no such file")
    with path.open("rb") as file:
        start = file.read(24)
    if len(start) < 24 or start[:4] != b"GGUF":
        raise RefusedError(f"{path.name}: not a GGUF file")
    version, tensors, fields = struct.unpack("<IQQ", start[4:])
    if version not in (2, 3):
        raise RefusedError(f"{path.name}: GGUF version {version}; wanted 2 or 3")
    if not 0 < tensors <= 1_000_000 or not 0 < fields <= 1_000_000:
        raise RefusedError(f"{path.name}: said to hold {tensors:,} tensors and {fields:,} fields")


def hub_download(name: str, revision: str, folder: Path) -> None:
    """Download a model's own files from the hub into `folder`.

    Raises RefusedError for what is no hub id, is not there, or needs a licence accepted first;
    ConnectionError when the hub cannot be reached (the run may be tried again).
    """
    if not _HUB_ID.fullmatch(name):
        raise RefusedError(f"{name!r} is not a hub id such as organisation/model")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        snapshot_download(
            name, revision=revision or None, local_dir=folder, allow_patterns=list(HUB_PATTERNS)
        )
    except GatedRepoError as error:
        raise RefusedError(f"{name}: the hub asks for its licence to be accepted first") from error
    except RevisionNotFoundError as error:
        raise RefusedError(f"{name}: the hub has no revision {revision!r} of it") from error
    except RepositoryNotFoundError as error:
        raise RefusedError(f"{name}: the hub has no such model, or not for everyone") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise ConnectionError(
            f"{name}: the hub cannot be reached from here. Copy the model's directory or a GGUF "
            "file to this machine and import that."
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the downloader's own notes


def role_check(facts: ModelFacts, role: str) -> None:
    """Raise ModelDirectoryError for a reward model imported as a policy, and for the reverse."""
    wanted = "reward" if role == "reward" else "causal"
    if facts.role != wanted:
        raise ModelDirectoryError(
            "config.json", f"a {facts.architecture} cannot be a {role} model of the hub"
        )


def weights_check(folder: Path, facts: ModelFacts) -> None:
    """Load the model as every program will, and look at each number once.

    Raises CheckpointError for weights that are not those of the architecture in config.json,
    ModelDirectoryError for NaN and infinities.
    """
    import torch

    from modelhub.ml.checkpoint import model_load

    model = model_load(folder, dtype=facts.dtype, role=facts.role)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelDirectoryError("weights", f"{name} holds NaN or infinity")


def _scratch(run: RunDir) -> Path:
    """An empty folder that goes away when the run succeeds."""
    folder = run.path / "checkpoints" / "import"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


if __name__ == "__main__":
    program_run(main)
