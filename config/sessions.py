"""Sessions in the database, as Django keeps them, read by a statement that is compiled once."""

from django.contrib.sessions.backends.db import SessionStore as DatabaseSessionStore
from django.contrib.sessions.models import Session
from django.utils import timezone

from modelhub.prepared import PreparedObjects


class SessionStore(DatabaseSessionStore):
    """What `SESSION_ENGINE` names. Every request of a signed-in person reads its session."""

    def _get_session_from_db(self) -> Session | None:
        # A cookie can hold a NUL, which PostgreSQL refuses even where it is only compared.
        key = self.session_key or ""
        session = None if "\x00" in key else _SESSION.first(key=key, now=timezone.now())
        if session is None:
            self._session_key = None
        return session


_SESSION = PreparedObjects(
    lambda key, now: Session.objects.filter(session_key=key, expire_date__gt=now),
    texts=("key",),
    times=("now",),
)
