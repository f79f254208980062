"""The words of a program's settings in the reader's language.

They are the names and comments of configuration classes, which know no Django. The catalogue that
translators have of them is alignment/method_words.py.
"""

from django.utils.translation import gettext, pgettext

from modelhub.config_fields import setting_help, setting_label

LABEL_CONTEXT = "setting"  # a name may be another word elsewhere: to keep, to publish


def setting_title(name: str) -> str:
    """A setting's name as words."""
    return pgettext(LABEL_CONTEXT, setting_label(name))


def setting_about(about: str) -> str:
    """A setting's comment as a sentence."""
    return gettext(setting_help(about)) if about else ""


def section_english(section: str) -> str:
    """A heading of settings with a capital first."""
    return section[:1].upper() + section[1:]


def section_title(section: str) -> str:
    """The same in the reader's language; "" for none."""
    return gettext(section_english(section)) if section else ""
