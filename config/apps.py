from django.apps import AppConfig


class SiteConfig(AppConfig):
    """The site itself: its checks and its commands."""

    name = "config"

    def ready(self) -> None:
        from config import checks  # noqa: F401  (registers the checks)
