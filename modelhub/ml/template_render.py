"""The child of modelhub.ml.template_check: renders a chat template within limits on itself.

python -m modelhub.ml.template_render FOLDER     status 0, or 2 and the reason on standard error
"""

import json
import resource
import sys
from pathlib import Path

from modelhub.ml.model_directory import model_directory_check
from modelhub.ml.safetensors_file import ModelDirectoryError
from modelhub.ml.template_check import CPU_S

_MEMORY_BYTES = 512 << 20  # on top of what the loaded libraries take

_MARK = "Zyzzyva"  # a word no template writes by itself


def _render(folder: Path) -> None:
    # Of transformers, only what renders: loading its tokenizers and torch takes ten times as long.
    from transformers.utils.chat_template_utils import render_jinja_template

    template = model_directory_check(folder).chat_template
    tokens = _special_tokens(folder)
    _limits_set()
    turn = {"role": "user", "content": _MARK}
    for messages in ([turn], [turn, {"role": "assistant", "content": "No."}, turn]):
        try:
            (text,), _ = render_jinja_template(
                conversations=[messages],
                chat_template=template,
                add_generation_prompt=True,
                **tokens,
            )
        except MemoryError:
            raise
        except Exception as error:  # Jinja's errors and whatever the template raises itself
            raise ModelDirectoryError("", f"cannot lay a conversation: {error}") from error
        if text.count(_MARK) != sum(message is turn for message in messages):
            raise ModelDirectoryError("", "leaves out the user's words")


def _special_tokens(folder: Path) -> dict[str, str]:
    """bos_token and its like, which templates write by name."""
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        for key, value in json.loads(path.read_bytes()).items() if path.exists() else ():
            text = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(text, str):
                tokens[key] = text
    return tokens


def _limits_set() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    memory = pages * resource.getpagesize() + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    try:
        _render(Path(sys.argv[1]))
    except MemoryError:
        print("takes too much memory", file=sys.stderr)
        raise SystemExit(2) from None
    except ModelDirectoryError as refused:
        print(refused, file=sys.stderr)
        raise SystemExit(2) from None
