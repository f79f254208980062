"""Write a policy as one GGUF file, and read it back before anything is published.

    python -m modelhub.ml.export_gguf RUN_DIR

A file that loads can still be another model: a row out of place, or text cut up in another way,
and it only answers a little worse. So the file is read as an import reads it, and beside the source

    token ids    of texts in English, German, Chinese and code, and of every added token: equal
    logits       of those texts, both models in float32: no further apart than LOGIT_BOUNDS
    perplexity   of each text, token accuracy and the divergence KL(source ‖ file): told

Fewer bits move logits as they must, so q8_0 and q4_0 have no bound; they are written by the same
code as the two that have one.

Legend: T tokens of a text, V vocabulary.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modelhub.ml.checkpoint import model_load, tokenizer_load
from modelhub.ml.configs import ExportGgufConfig, RefusedError
from modelhub.ml.gguf_file import gguf_write
from modelhub.ml.import_model import gguf_load
from modelhub.ml.model_directory import model_directory_check, weights_bytes
from modelhub.ml.rundir import RunDir, program_run

# max |Δlogit|. f32 holds every weight as it is; f16 rounds a float32 weight by 2^-11 of it.
LOGIT_BOUNDS = {"f32": 1e-3, "f16": 0.1}

TEXTS = {
    "English": (
        "It's raining in Leeds, isn't it? The 3 trains at 10:45, 11:15 and 23:59 were late;\n"
        "we'll wait — she said \"don't\" twice   and left.  Café, naïve, 1,234.50 pounds."
    ),
    "German": (
        "Über den Dächern zieht der Rauch, und die Straßenbahn fährt größere Umwege: "
        "Donaudampfschifffahrt kostet 12,50 €. Läßt sich's ändern?"
    ),
    "Chinese": (
        "秋天的早晨,湖边很安静。他说:“今天是2024年10月3日,我们走吧!”\n"
        "山下有一座小桥,桥边住着两户人家。🌾"
    ),
    "code": (
        "def mean(values: list[float]) -> float:\n"
        "    total = 0.0\n"
        "    for value in values:\n"
        "\ttotal += value  # tab\n\n\n"
        "    return total / len(values) if values != [] else -1e-9\n"
    ),
}


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One text, heard by the source and by the file."""

    text: str
    tokens: int  # that are predicted
    parent_nats: float  # sum
    nats: float
    parent_right: int  # tokens that the source thinks likeliest
    right: int
    divergence_nats: float  # sum
    max_logit_difference: float

    def row(self) -> dict[str, Any]:
        parent, own = (math.exp(one / self.tokens) for one in (self.parent_nats, self.nats))
        return {
            "text": self.text,
            "tokens": self.tokens,
            "parent": parent,
            "own": own,
            "perplexity_difference": own - parent,
            "parent_token_accuracy": self.parent_right / self.tokens,
            "token_accuracy": self.right / self.tokens,
            "divergence": self.divergence_nats / self.tokens,
            "max_logit_difference": self.max_logit_difference,
        }


def tokenizers_compare(source: Any, written: Any) -> None:
    """Raise RefusedError unless both cut the texts into the same tokens and have one template."""
    added = sorted(source.get_added_vocab())
    texts = {**TEXTS, "a text of added tokens": "".join(f"{token} a{token}1\n" for token in added)}
    for name, text in texts.items():
        wanted = source(text, add_special_tokens=False)["input_ids"]
        found = written(text, add_special_tokens=False)["input_ids"]
        if wanted != found:
            pairs = enumerate(zip(wanted, found, strict=False))
            shorter = min(len(wanted), len(found))
            place = next((at for at, (one, other) in pairs if one != other), shorter)
            raise RefusedError(
                f"read back, {name} is cut into other tokens from the {place + 1}th on: "
                f"{source.convert_ids_to_tokens(wanted[place : place + 3])} became "
                f"{written.convert_ids_to_tokens(found[place : place + 3])}; nothing is published"
            )
    if source.chat_template != written.chat_template:
        raise RefusedError("read back, the chat template is another; nothing is published")


@torch.no_grad()
def logits_hear(model: Any, texts: Sequence[Tensor]) -> list[Tensor]:
    """Logits over each text, (T, V), float32."""
    return [model(ids_T[None]).logits[0].float() for ids_T in texts]


def beside(text: str, ids_T: Tensor, before_TV: Tensor, after_TV: Tensor) -> Beside:
    """What the file's logits over a text have moved from the source's."""
    before, after = (F.log_softmax(one[:-1], dim=-1) for one in (before_TV, after_TV))
    return Beside(
        text=text,
        tokens=len(ids_T) - 1,
        parent_nats=float(F.nll_loss(before, ids_T[1:], reduction="sum")),
        nats=float(F.nll_loss(after, ids_T[1:], reduction="sum")),
        parent_right=int((before.argmax(-1) == ids_T[1:]).sum()),
        right=int((after.argmax(-1) == ids_T[1:]).sum()),
        divergence_nats=float((before.exp() * (before - after)).sum()),
        max_logit_difference=float((before_TV - after_TV).abs().max()),
    )


def logits_check(heard: Sequence[Beside], weight_type: str) -> None:
    """Raise RefusedError for a file whose logits are not finite, or too far from the source's."""
    for one in heard:
        if not math.isfinite(one.max_logit_difference) or not math.isfinite(one.nats):
            raise RefusedError(f"read back, logits of {one.text} are not finite; nothing published")
        bound = LOGIT_BOUNDS.get(weight_type, math.inf)
        if one.max_logit_difference > bound:
            raise RefusedError(
                f"read back, a logit of {one.text} is {one.max_logit_difference:.3g} from the "
                f"source's; {weight_type} is allowed {bound:g}; nothing is published"
            )


def main(run: RunDir) -> None:
    config = run.config(ExportGgufConfig)
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars are of no use in a log file
    base = run.input("base")
    facts = model_directory_check(base)
    if facts.role != "causal":
        raise RefusedError(f"a {facts.architecture} scores answers: only policies are exported")
    run.progress(0, 3, "steps")
    path = run.output("gguf") / f"model-{config.weight_type.upper()}.gguf"
    split = gguf_write(base, facts, path, weight_type=config.weight_type, name=config.name)
    run.progress(1, 3, "steps")

    tokenizer = tokenizer_load(base)
    texts = [
        torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"][: facts.context_tokens])
        for text in TEXTS.values()
    ]
    # One model at a time: what both said is smaller than either.
    before = logits_hear(model_load(base, dtype="float32"), texts)
    run.progress(2, 3, "steps")
    written, written_tokenizer = gguf_load(path)
    tokenizers_compare(tokenizer, written_tokenizer)
    after = logits_hear(written.eval(), texts)
    heard = [beside(*one) for one in zip(TEXTS, texts, before, after, strict=True)]
    logits_check(heard, config.weight_type)
    table = [one.row() for one in heard]
    for row in table:
        print(
            f"{row['text']}: perplexity {row['parent']:.4f} → {row['own']:.4f}, "
            f"max |Δlogit| {row['max_logit_difference']:.2g}",
            flush=True,
        )
    run.progress(3, 3, "steps")
    tokens = sum(one.tokens for one in heard)
    bound = LOGIT_BOUNDS.get(config.weight_type)
    run.succeed(
        outputs={"gguf": "gguf"},
        result={
            "architecture": facts.architecture,
            "parameters": facts.parameters,
            "file": path.name,
            "file_bytes": path.stat().st_size,
            "parent_weights_bytes": weights_bytes(base),
            "tokenizer_pre": split,
            "token_ids_equal": True,  # or the run would have ended above
            "max_logit_difference": max(one.max_logit_difference for one in heard),
            **({} if bound is None else {"max_logit_difference_allowed": bound}),
            "parent_perplexity": math.exp(sum(one.parent_nats for one in heard) / tokens),
            "perplexity": math.exp(sum(one.nats for one in heard) / tokens),
            "parent_token_accuracy": sum(one.parent_right for one in heard) / tokens,
            "token_accuracy": sum(one.right for one in heard) / tokens,
            "divergence": sum(one.divergence_nats for one in heard) / tokens,
            "round_trip": table,
        },
    )


if __name__ == "__main__":
    program_run(main)
