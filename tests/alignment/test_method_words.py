"""What pages say of methods and settings is in the catalogue, and in the site's other language."""

import gettext
from pathlib import Path

import pytest
from django.conf import settings
from django.urls import reverse
from django.utils import translation

from alignment.management.commands.method_words import (
    PATH,
    catalogue_text,
    method_texts,
    setting_labels,
    setting_texts,
)
from alignment.methods import METHODS
from modelhub.config_fields import setting_help
from modelhub.setting_words import LABEL_CONTEXT, setting_about, setting_title

COMPILED = Path(settings.BASE_DIR) / "locale/zh_Hans/LC_MESSAGES/django.mo"


def test_the_catalogue_has_what_the_tables_and_classes_say():
    assert PATH.read_text(encoding="utf-8") == catalogue_text(), "run: make words"


def test_every_text_and_every_name_of_a_setting_has_a_translation():
    with COMPILED.open("rb") as file:
        known = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    texts = {text for text in (*method_texts(), *setting_texts()) if text}
    texts |= {f"{LABEL_CONTEXT}\x04{label}" for label in setting_labels()}
    missing = sorted(texts - known.keys())
    assert not missing, "no translation in locale/zh_Hans: make words, then fill it in"


def test_a_comment_becomes_a_sentence():
    assert setting_help("peak, after warm-up") == "Peak, after warm-up."
    assert setting_help("λ_D") == "λ_D."  # no capital of a symbol, which is another one
    assert setting_help("k1 is the log-ratio") == "k1 is the log-ratio."  # as it is set
    assert setting_help("forward_kl of both") == "forward_kl of both."
    assert setting_help("which one?") == "Which one?"
    assert setting_help("") == ""


def test_a_setting_is_named_and_told_in_chinese():
    with translation.override("zh-hans"):
        assert setting_title("lr") == "学习率"
        assert setting_title("keep") == "保留数"  # not the button that keeps a form
        assert setting_about("peak, after warm-up") == "预热之后的峰值。"
        assert setting_about("") == ""


@pytest.mark.django_db
def test_the_launch_pages_are_in_chinese(eve, signed_in):
    client = signed_in(eve)
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = "zh-hans"
    page = client.get(reverse("method_list")).content.decode()
    assert "监督微调" in page
    assert METHODS["sft"].about not in page
    page = client.get(reverse("method_launch", args=["dpo"])).content.decode()
    for chinese in ("直接偏好优化", "起始模型", "学习率", "预热之后的峰值。"):
        assert chinese in page
    assert "Peak, after warm-up" not in page
