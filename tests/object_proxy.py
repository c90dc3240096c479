"""What can happen between a client and an object store, made to happen: a proxy on loopback."""

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ERROR = "<Error><Code>{}</Code><Message>{} by the test</Message></Error>"


class Proxy:
    """Passes requests on, except for what its rule says.

    `rule(method, path, number)` is asked of each request, counted from 1. It answers None to pass
    it on; "hold" to do so once `release` is set; "spoil" to damage its last byte first; "lose" to
    pass it on and answer 500; "agree" to pass it on and answer 200; or "503 SlowDown", the like of
    which is answered at once.
    """

    def __init__(self, port: int, rule: Callable[[str, str, int], str | None]) -> None:
        self.held = threading.Event()
        self.release = threading.Event()
        self.seen: list[tuple[str, str]] = []
        self._port = port
        self._rule = rule
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:  # either side is gone
                    self.close_connection = True

            def answer(self) -> None:
                outer.answer(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """End it."""
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, asked: BaseHTTPRequestHandler) -> None:
        """Do with a request what the rule says."""
        method = asked.command
        body = asked.rfile.read(int(asked.headers.get("Content-Length", 0)))
        with self._lock:
            self.seen.append((method, asked.path))
            verdict = self._rule(method, asked.path, len(self.seen))
        if verdict == "hold":
            self.held.set()
            self.release.wait()
        if verdict == "spoil":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if verdict is not None and verdict[:1].isdigit():
            status, _, code = verdict.partition(" ")
            self._send(asked, int(status), ERROR.format(code, code).encode())
            return
        server = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            headers = {name: value for name, value in asked.headers.items() if name != "Expect"}
            server.request(method, asked.path, body, headers)
            told = server.getresponse()
            content = told.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            server.close()
        if verdict == "lose":
            self._send(asked, 500, ERROR.format("InternalError", "lost").encode())
        elif verdict == "agree":
            self._send(asked, 200, b"")
        else:
            kept = ("ETag", "Content-Type", "Content-Range")
            headers = {name: value for name, value in told.getheaders() if name in kept}
            self._send(asked, told.status, content, headers)

    @staticmethod
    def _send(
        asked: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
    ) -> None:
        asked.send_response(status)
        for name, value in (headers or {}).items():
            asked.send_header(name, value)
        if status != 204:
            asked.send_header("Content-Length", str(len(body)))
        asked.end_headers()
        asked.wfile.write(body)


# Puts one between this process and a gateway: `proxy(rule)`, `proxy(rule, gateway)`.
Between = Callable[..., Proxy]
