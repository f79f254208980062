"""A small server with vLLM's arguments and addresses, a process of its own, ready in no time.

It says back what it was asked. A model folder with a file "slow" is ready when that file is gone;
with a file "broken" it prints why and ends with status 1; with a file "lingering" it takes three
seconds to end and says so.
"""

import argparse
import json
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Handler(BaseHTTPRequestHandler):
    names: list[str]

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._reply({"data": [{"id": name} for name in self.names]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = f"{body['model']} heard: {body['messages'][-1]['content']}"
        if not body.get("stream"):
            choice = {"message": {"content": said}, "finish_reason": "stop"}
            return self._reply({"choices": [choice], "usage": {"completion_tokens": 4}})
        self.send_response(200)
        self.end_headers()
        event = {"choices": [{"delta": {"content": said}}]}
        self.wfile.write(f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode())
        return None

    def _reply(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def linger(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(3)
    print("ended in its own time", flush=True)
    sys.exit()


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("host", "model", "served-model-name", "lora-modules"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--port", type=int)
    given, others = parser.parse_known_args()
    print(f"stand-in for {given.model} on {given.host}:{given.port} with {others}", flush=True)
    folder = Path(given.model)
    if (folder / "broken").exists():
        print("ValueError: these weights are no good", flush=True)
        sys.exit(1)
    if (folder / "lingering").exists():
        signal.signal(signal.SIGTERM, linger)
    while (folder / "slow").exists():
        time.sleep(0.02)
    lora = given.lora_modules.partition("=")[0]
    Handler.names = [given.served_model_name, *([lora] if lora else [])]
    ThreadingHTTPServer((given.host, given.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
