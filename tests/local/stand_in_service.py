"""A child process that stands in for a service: answers `/readyz`, and misbehaves when told to.

Usage: python stand_in_service.py PORT [stubborn | crash | with-child]; port 0 serves nothing.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name there)
        sys.stderr.write(f"served {format % args}\n")


def main() -> None:
    port, manners = int(sys.argv[1]), sys.argv[2:]
    if "crash" in manners:
        sys.stderr.write("the reason for the crash\n")
        sys.exit(3)
    if "stubborn" in manners:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "with-child" in manners:
        subprocess.Popen(["/bin/sleep", "600"])
    if port == 0:
        while True:
            time.sleep(1)
    HTTPServer(("127.0.0.1", port), Ready).serve_forever()


if __name__ == "__main__":
    main()
