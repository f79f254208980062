"""Where what a method reads comes from: the pages that make it, for who has none of it yet."""

from dataclasses import dataclass

from django.urls import reverse
from django.utils.functional import Promise
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from alignment.methods import METHODS, Input


@dataclass(frozen=True)
class Origin:
    """A page, or with `method` the launch page of one."""

    title: str | Promise
    page: str = "method_launch"
    argument: str = ""

    @property
    def address(self) -> str:
        return reverse(self.page, args=[self.argument] if self.argument else [])


def _method(name: str) -> Origin:
    return Origin(_(METHODS[name].title), argument=name)


_IMPORT = Origin(_("Import a model"), "model_import")
_FROZEN = Origin(_("Freeze a project’s judgements: its page Datasets"), "home")
_QUESTIONS = Origin(
    _("Bring questions with right answers in"), "docs_page", "algorithms/rejection-sampling"
)

# By the role of a version, or the kind of an artifact.
ORIGINS: dict[str, tuple[Origin, ...]] = {
    "base": (_IMPORT, _method("pretrain")),
    "policy": (_IMPORT, _method("sft")),
    "reward": (_method("reward"),),
    "adapter": (_method("sft"),),
    "quantised": (_method("quantise"),),
    "prompts": (Origin(_("A project with prompts of yours"), "project_new"), _QUESTIONS),
    "candidates": (_method("generate"),),
    "rankings": (_FROZEN,),
    "ratings": (_FROZEN,),
    "demonstrations": (
        _method("rejection"),
        _FROZEN,
        _method("context_distillation"),
        _method("ghost_attention"),
    ),
    "references": (_QUESTIONS,),
    "corpus": (Origin(_("Import a corpus from files or addresses"), "corpus_import"),),
    "tokenizer": (_method("train_tokenizer"), _IMPORT),
    "tokens": (_method("tokenise"),),
    "model": (_IMPORT,),  # for its tokenizer
}
_PROJECT = (Origin(_("A project that you manage"), "project_new"),)


def input_origins(input: Input) -> list[Origin]:
    """The pages that make what an input takes, each once, in the order it names kinds."""
    wanted = (*input.versions, *input.kinds)
    found = [origin for name in wanted for origin in ORIGINS[name]]
    rows_alone = input.of_project and not wanted
    return list(dict.fromkeys((*found, *(_PROJECT if rows_alone else ()))))


def origins_html(input: Input) -> SafeString:
    """A sentence with links: what to do where nothing fits an input yet."""
    links = format_html_join(
        " · ",
        '<a href="{}">{}</a>',
        ((origin.address, origin.title) for origin in input_origins(input)),
    )
    return format_html("{} {}", gettext("There is nothing yet that fits. It comes from:"), links)
