"""A stand-in for a W&B server, which cannot be had here: it lets one run begin, and then gives no answer any more."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Handler(BaseHTTPRequestHandler):
    began: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.close_connection = True
        if self.began:
            return
        asked = json.loads(body or b"{}")
        run = {"id": "r", "name": (asked.get("variables") or {}).get("name"), "displayName": "", "historyLineCount": 0}
        run["project"] = {"id": "p", "name": "p", "entity": {"id": "e", "name": "me"}}
        viewer = {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
        served = {"features": [], "cliVersionInfo": {}, "latestLocalVersionInfo": None}
        answers = {"viewer": viewer, "serverInfo": served, "model": {"bucket": None}, "upsertBucket": {"bucket": run}}
        said = json.dumps({"data": answers}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
        if "UpsertBucket" in asked.get("query", ""):
            self.began.append(str(run["name"]))

    do_GET = do_POST

    def log_message(self, *args: Any) -> None: ...


@contextmanager
def wandb_server() -> Generator[tuple[str, list[str]]]:
    """Its URL, and the names of the runs that began there: none, then one."""
    began: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"began": began}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", began
    finally:
        server.shutdown()
        server.server_close()
