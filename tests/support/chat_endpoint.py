"""A server that speaks the chat completions of the OpenAI-compatible APIs, and answers by rote."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[list[dict[str, Any]]], str]
"""What to say of the interests that were sent."""


def labels_in_turn(interests: list[dict[str, Any]]) -> str:
    """All labels, so that a test sees what the summary is of."""
    return "You like " + ", ".join(interest["label"] for interest in interests) + "."


@dataclass
class ChatEndpoint:
    """An endpoint on a port of this machine, and all that it was sent."""

    port: int = 0
    answer: Answer = labels_in_turn
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """Sent in place of a completion."""
    released: threading.Event = field(default_factory=threading.Event)
    """Answers are held back while it isn't set."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def told(self) -> list[list[dict[str, Any]]]:
        """The interests of each request."""
        return [json.loads(request["messages"][1]["content"]) for request in self.requests]


@contextmanager
def listening(endpoint: ChatEndpoint) -> Iterator[ChatEndpoint]:
    """Serve for as long as the context lasts; on a free port, unless one is set."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            assert self.path == "/v1/chat/completions"
            assert request["model"] == "tiny"
            endpoint.requests.append(request)
            endpoint.keys.append(self.headers["authorization"])
            endpoint.released.wait(30)
            body = endpoint.body
            if body is None:
                content = endpoint.answer(json.loads(request["messages"][1]["content"]))
                choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}
                body = json.dumps({"object": "chat.completion", "model": "tiny", "choices": [choice]}).encode()
            try:
                self.send_response(endpoint.status)
                for name, value in endpoint.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # whoever asked has gone

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            pass

    endpoint.released.set()
    with ThreadingHTTPServer(("127.0.0.1", endpoint.port), Handler) as server:
        endpoint.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield endpoint
        finally:
            endpoint.released.set()
            server.shutdown()
            thread.join()
