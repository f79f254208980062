"""The product's settings for a real Celery worker that also knows the counting program."""

from config.settings import *  # noqa: F403

RUN_PROGRAMS = {**RUN_PROGRAMS, "counting": "tests.modelhub.counting"}  # noqa: F405
RUN_ENDED_TASKS: list[str] = []
SERVER_MODULE = "tests.modelhub.stand_in_server"
