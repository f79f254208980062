"""A cluster of one's own is begun again where Ray gave up; one that is given is asked once."""

from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="the ray extra is not installed")

from modelhub.ml.ray_cluster import cluster_join


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What Ray was asked for; it gives up twice, as on a machine that has no time for it."""
    asked: list[dict[str, Any]] = []

    def init(**options: Any) -> None:
        asked.append(options)
        if len(asked) < 3:
            raise Exception("The current node timed out during startup.")  # as Ray raises it

    monkeypatch.setattr(ray, "init", init)
    return asked


def test_what_ray_gave_up_on_is_begun_again(
    calls: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster_join(configure_logging=False)
    assert [(one["address"], one["configure_logging"]) for one in calls] == [(None, False)] * 3
    assert capsys.readouterr().err.count("timed out during startup") == 2


def test_a_cluster_that_does_not_answer_is_told_at_once(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(Exception, match="timed out during startup"):
        cluster_join()
    assert [one["address"] for one in calls] == ["127.0.0.1:1"]
