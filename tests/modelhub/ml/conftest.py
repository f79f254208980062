"""One thread for the tiny models of these tests: two would wait for each other longer than work."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is loaded; programs inherit it
