"""The Celery application: the doorbell for queues that are rows."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# Every task is a doorbell: one that cannot be rung costs the request that rings it nothing.
app = Celery("rondo", task_cls="modelhub.doorbell:Doorbell")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
