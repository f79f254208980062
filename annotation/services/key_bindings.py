"""The keys that a person has changed; they go with the person, to every device and project."""

from collections.abc import Mapping

from django.contrib.auth.models import User

from annotation.desk_keys import keys_changed, keys_read
from annotation.models import KeyBindings


def key_bindings_change(*, user: User, keys: Mapping[str, str]) -> dict[str, str]:
    """Keep the keys somebody wants, {"<action>": "<key>"}; returns every action's key.

    What is not named has the key it comes with; so nothing named puts all of them back.
    Raises ApplicationError with a sentence for keys that are in each other's way.
    """
    every = keys_read(keys)
    KeyBindings.objects.update_or_create(user=user, defaults={"keys": keys_changed(every)})
    return every
