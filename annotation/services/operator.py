"""The first account of a site, which `manage.py up` and the demo share."""

from django.contrib.auth.models import User
from django.db import transaction

OPERATOR = "admin"


@transaction.atomic
def operator_ensure() -> User:
    """The first account: an administrator without a password, who enters by a one-time link."""
    operator, created = User.objects.get_or_create(
        username=OPERATOR, defaults={"is_staff": True, "is_superuser": True}
    )
    if created:
        operator.set_unusable_password()
        operator.save()
    return operator
