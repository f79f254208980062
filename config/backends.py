"""Who a session belongs to, read by a statement that is compiled once."""

from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User

from modelhub.prepared import PreparedObjects


class PersonBackend(ModelBackend):
    """Accounts as Django keeps them. Every request of a signed-in person reads theirs."""

    def get_user(self, user_id: int) -> User | None:
        user = _USER.first(user=user_id)
        return user if user is not None and self.user_can_authenticate(user) else None


_USER = PreparedObjects(lambda user: User.objects.filter(pk=user), numbers=("user",))
