"""The Celery application: the doorbell for queues that are rows."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("rondo")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
