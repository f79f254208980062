"""The keys of the annotator's page, as one person has them."""

from django.contrib.auth.models import User

from annotation.desk_keys import DEFAULTS, keys_read
from annotation.models import KeyBindings
from modelhub.errors import ApplicationError


def key_bindings_of(*, user: User) -> dict[str, str]:
    """Every action's key. One query.

    Where an action has come since that takes a key the person uses, all are as the page comes.
    """
    row = KeyBindings.objects.filter(user=user).first()
    try:
        return keys_read(row.keys) if row else dict(DEFAULTS)
    except ApplicationError:
        return dict(DEFAULTS)
