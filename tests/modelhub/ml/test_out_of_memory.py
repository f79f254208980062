"""A program that really gets no more memory says so, by the status that is not tried again."""

import json
import resource
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the ml extra is not installed")

from modelhub.ml.configs import EXIT_OUT_OF_MEMORY
from tests.modelhub.ml.ranks import ranks_run

pytestmark = pytest.mark.ml

MORE_BYTES = 256 << 20  # than the process has mapped already
ASKED_BYTES = 4 << 30


def limit():
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MORE_BYTES, resource.RLIM_INFINITY))


def tensor_ask(_run):
    limit()
    torch.ones(ASKED_BYTES, dtype=torch.uint8)


def object_ask(_run):
    limit()
    bytearray(ASKED_BYTES)


@pytest.mark.parametrize("main", [tensor_ask, object_ask])
def test_want_of_memory_has_a_status_of_its_own(tmp_path, main):
    description = {"program": "any", "config": {}, "inputs": {}}
    (tmp_path / "config.json").write_text(json.dumps(description))
    assert ranks_run(main, tmp_path, world=1) == [EXIT_OUT_OF_MEMORY]
    assert "out of memory" in (tmp_path / "log.txt").read_text()
    assert not (tmp_path / "result.json").exists()
