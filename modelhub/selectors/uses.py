"""What a version can be used for: some architectures are for fewer of the hub's programs.

Told before anything is queued, and on the version's page. What is not here, every program takes
that its role fits.
"""

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from modelhub.errors import ApplicationError
from modelhub.models import ModelVersion

# Pretrained here, and not decoders with attention over tokens alone, which samplers, rows and
# servers are made for.
UNREAD: dict[str, str | Promise] = {
    "BertForMaskedLM": _("an encoder, which fills in hidden words and writes no text"),
    "RwkvForCausalLM": _("recurrent: its state runs through all that it has read"),
    "T5ForConditionalGeneration": _("an encoder and a decoder, not one sequence"),
}
# Programs that go on training such a model, or take its tokenizer.
_TAKEN_BY = ("pretrain", "tokenise")
# Those that write no text; the playground lets the others write.
MUTE = ("BertForMaskedLM",)


def version_is_unread(version: ModelVersion) -> bool:
    """Whether only pretraining, tokenising and, if it writes, the playground take the version."""
    return version.architecture in UNREAD


def version_uses(version: ModelVersion) -> str:
    """What a version of such an architecture can be used for, in words; empty for all others."""
    if not version_is_unread(version):
        return ""
    told = {
        "version": version,
        "architecture": version.architecture,
        "what": UNREAD[version.architecture],
    }
    if version.architecture in MUTE:
        text = gettext(
            "%(version)s is a %(architecture)s, %(what)s. Pretraining can go on from it, other"
            " models and token sets can take its tokenizer, and its folder can be shared, to be"
            " used with transformers. Sampling, the playground, fine-tuning, rewards and serving"
            " take decoders alone: Llama, GPT-2, Mixtral, BLOOM and their kin."
        )
    else:
        text = gettext(
            "%(version)s is a %(architecture)s, %(what)s. It can be tried in the playground,"
            " pretraining can go on from it, other models and token sets can take its tokenizer,"
            " and its folder can be shared, to be used with transformers. Sampling, fine-tuning,"
            " rewards and serving take decoders with attention alone: Llama, GPT-2, Mixtral, BLOOM"
            " and their kin."
        )
    return text % told


def version_use_check(*, version: ModelVersion, program: str, field: str = "version") -> None:
    """Raise ApplicationError, with what the version is good for, if the program cannot read it."""
    writes = program == "playground" and version.architecture not in MUTE
    if program not in _TAKEN_BY and not writes and version_is_unread(version):
        raise ApplicationError(version_uses(version), {"field": field})
