"""A small model that answers on a port of this machine, in the protocol of chat completions."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from modelhub.models import Endpoint


class _Talker(BaseHTTPRequestHandler):
    """Says the last message back, word by word; shorter when it is asked to be cold.

    Told "slowly" it takes its time over the longer one.
    """

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = asked["messages"][-1]["content"]
        cold = asked["temperature"] < 0.5
        answer = f"You said: {said}" if cold else f"**Indeed**: {said}, again."
        pause_s = 0.5 if "slowly" in said and not cold else 0.01
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for word in answer.split(" "):
            self._event({"choices": [{"index": 0, "delta": {"content": f"{word} "}}]})
            time.sleep(pause_s)
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, data: object) -> None:
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Tests read no log of it."""


@contextmanager
def talking() -> Iterator[Endpoint]:
    """An endpoint of the hub that answers while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Talker)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Endpoint.objects.create(
            name="talker",
            base_url=f"http://127.0.0.1:{server.server_port}/v1",
            served_model="talker",
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
