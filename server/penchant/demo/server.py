"""A Penchant server as a child process, on a free port."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penchant._channel import channel_options

START_SECONDS = 120.0
STOP_SECONDS = 40.0
_LOG_LINES = 200


class ServerFailed(Exception):
    """The server did not start, or did not end as it should. The message is for people."""


class ServerProcess:
    """A running server: where it listens, and what it has logged lately."""

    def __init__(self, data: Path) -> None:
        settings = ["--set", "log_format=json", "--set", "log_level=info"]
        self._process = subprocess.Popen(  # noqa: S603 (our own command)
            [sys.executable, "-m", "penchant", "serve", "--data", data, "--listen", "127.0.0.1:0", *settings],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self.address = ""
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read_log, name="server-log", daemon=True)
        self._reader.start()

    def last_log(self, count: int) -> list[str]:
        """Return the newest lines of the server's log, oldest first."""
        return list(self._log)[-count:]

    def wait_ready(self) -> None:
        """Wait until the server says that it serves. Raises ServerFailed."""
        if not self._listening.wait(START_SECONDS) or not self.address:
            raise ServerFailed("the server did not start")
        with grpc.insecure_channel(self.address, options=channel_options(self.address)) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=START_SECONDS, wait_for_ready=True
                )
            except grpc.RpcError as error:
                raise ServerFailed("the server does not answer") from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise ServerFailed("the server does not say that it is healthy")

    def stop(self) -> int:
        """Ask the server to end, by SIGTERM. Returns its exit code, negative where a signal ended it."""
        self._process.terminate()
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join()
        return code

    def _read_log(self) -> None:
        if self._process.stderr is None:
            raise RuntimeError("started without a pipe")
        with self._process.stderr as lines:
            for line in lines:
                self._log.append(line.rstrip())
                if not self.address and '"server.listening"' in line:
                    self.address = json.loads(line)["address"]
                    self._listening.set()
        self._listening.set()
