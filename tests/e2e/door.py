"""What holds requests while there is no pod, as an ingress controller may: the standard library
alone, run by the service's own image.

``python -c ... HOST``. Each request is sent on until somebody answers it; how many wait is shown as
``door_waiting`` at ``/metrics``.
"""

import http.client
import http.server
import sys
import threading
import time

HOST = sys.argv[1]
HELD_S, ANSWER_S = 120, 30
CONNECT_S = 0.5  # the last pod's address takes connections for a moment in which nobody is there
lock, waiting = threading.Lock(), [0]


class Door(http.server.BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """How many wait."""
        self.answer(200, f"door_waiting {waiting[0]}\n".encode(), "text/plain; version=0.0.4")

    def do_POST(self):
        """Send it on."""
        body = self.rfile.read(int(self.headers["content-length"]))
        with lock:
            waiting[0] += 1
        try:
            self.answer(*self.sent_on(body))
        finally:
            with lock:
                waiting[0] -= 1

    def sent_on(self, body):
        """What the service answered; a connection that was never made is tried again."""
        until = time.monotonic() + HELD_S
        while True:
            connection = http.client.HTTPConnection(HOST, 80, timeout=CONNECT_S)
            try:
                connection.connect()
                connection.sock.settimeout(ANSWER_S)
            except OSError:
                if time.monotonic() > until:
                    return 503, b"", "text/plain"
                time.sleep(0.2)
                continue
            try:
                kind = {"content-type": self.headers["content-type"]}
                connection.request("POST", self.path, body, kind)
                answer = connection.getresponse()
                return answer.status, answer.read(), answer.headers["content-type"]
            finally:
                connection.close()

    def answer(self, status, body, kind):
        """Write it."""
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *values):
        """Say nothing."""


http.server.ThreadingHTTPServer(("", 3000), Door).serve_forever()
