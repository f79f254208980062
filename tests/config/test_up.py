"""`make up`, for real: the whole site on a free port, entered by its link, stopped by Ctrl-C."""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def port_free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children_of(pid: int) -> list[int]:
    """Every living process below `pid`."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def answers(address: str, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            assert httpx.get(f"{address}/healthz", timeout=2).text == "ok"
            return
        except httpx.TransportError:
            assert time.monotonic() < deadline, "the site did not answer"
            time.sleep(0.2)


def up_start(data_dir: Path, port: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "manage.py", "up", "--port", str(port), "--web-workers", "1"],
        cwd=ROOT,
        env={
            **{k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"},
            "RONDO_DATA_DIR": str(data_dir),
            "PYTHONUNBUFFERED": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def link_said(up: "subprocess.Popen[str]", said: list[str]) -> str:
    assert up.stdout is not None
    for line in up.stdout:
        said.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+/\S{20,}", line):
            return found.group()
    raise AssertionError("".join(said))


@pytest.mark.slow
def test_the_site_starts_lets_its_operator_in_once_and_stops_cleanly(tmp_path: Path) -> None:
    data_dir, port = tmp_path / "var", port_free()
    address = f"http://127.0.0.1:{port}"
    said: list[str] = []
    up = up_start(data_dir, port)
    try:
        link = link_said(up, said)
        answers(address)
        with httpx.Client(follow_redirects=True, headers={"Referer": link}) as client:
            page = client.get(link)
            assert page.status_code == 200
            token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
            assert token is not None
            home = client.post(link, data={"csrfmiddlewaretoken": token.group(1)})
            assert home.status_code == 200
            assert "Sample: short, helpful answers" in home.text
            assert "Server" not in home.headers
        with httpx.Client(follow_redirects=True) as stranger:
            again = stranger.get(link)
            assert "Sample" not in again.text
        second = up_start(data_dir, port_free())
        assert second.wait(timeout=60) != 0, "two sites on one data folder"
        below = children_of(up.pid)
        assert len(below) >= 4
        os.kill(up.pid, signal.SIGINT)
        rest = up.communicate(timeout=60)[0]
        assert up.returncode == 0, rest
        assert "Stopped." in rest
        assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []
    finally:
        if up.poll() is None:
            up.kill()
            up.wait()
    for path in (data_dir, data_dir / "secret-key"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
