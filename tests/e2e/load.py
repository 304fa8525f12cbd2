"""Clients inside the cluster, run by the service's own image: the standard library alone.

``python -c ... URL CLIENTS SECONDS PAUSE KEEP HEADERS [ASKED]``. KEEP of the clients keep their
connection, the others take a new one for each request. HEADERS: a JSON object of those of each
request. ASKED: a file of requests, a JSON object with ``path`` and ``body`` a line, which
they ask in turn; without it, one text. It ends after so many seconds, or when /tmp/stop is there,
and prints one JSON.
Nothing is asked twice: what fails is counted.
"""

import collections
import http.client
import itertools
import json
import pathlib
import sys
import threading
import time
import urllib.parse

URL, CLIENTS, SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
PAUSE_S, KEEP = float(sys.argv[4]), int(sys.argv[5])
STOP = pathlib.Path("/tmp/stop")
PLACE = urllib.parse.urlsplit(URL)
UNTIL = time.monotonic() + SECONDS
ASKED = [{"path": "/v1/embeddings", "body": {"input": ["a red circle"]}}]
if len(sys.argv) > 7:
    ASKED = [json.loads(line) for line in pathlib.Path(sys.argv[7]).read_text().splitlines()]
REQUESTS = [(one["path"], json.dumps(one["body"]).encode()) for one in ASKED]
HEADERS = {"content-type": "application/json", **json.loads(sys.argv[6])}

lock = threading.Lock()
digests, statuses = collections.Counter(), collections.Counter()
times, failures = [], []


def connect():
    """A new connection."""
    return http.client.HTTPConnection(PLACE.hostname, PLACE.port or 80, timeout=30)


def ask(connection, path, body):
    """One request; the digest that answered, or what went wrong."""
    connection.request("POST", path, body, HEADERS)
    answer = connection.getresponse()
    body = answer.read()
    digest = json.loads(body)["digest"] if answer.status == 200 else ""
    return answer.status, digest, answer.will_close


def client(at):
    """Ask until it is over."""
    connection, keeps = None, at < KEEP
    turns = itertools.islice(itertools.cycle(REQUESTS), at, None)
    while time.monotonic() < UNTIL and not STOP.exists():
        began = time.monotonic()
        connection = connection or connect()
        try:
            status, digest, closes = ask(connection, *next(turns))
            why = "" if status == 200 else f"status {status}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            status, digest, closes, why = 0, "", True, f"{type(error).__name__}: {error}"
        took = time.monotonic() - began
        if closes or not keeps:
            connection.close()
            connection = None
        with lock:
            statuses[str(status)] += 1
            digests[digest] += 1
            times.append(took)
            if why:
                failures.append([round(time.time(), 3), why])
        time.sleep(PAUSE_S)


threads = [threading.Thread(target=client, args=(at,)) for at in range(CLIENTS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
times.sort()
sys.stdout.write(
    json.dumps(
        {
            "requests": len(times),
            "failed": len(failures),
            "failures": failures[:20],
            "statuses": dict(statuses),
            "digests": {name: count for name, count in digests.items() if name},
            "median_ms": round(times[len(times) // 2] * 1000, 1) if times else None,
            "p95_ms": round(times[int(len(times) * 0.95)] * 1000, 1) if times else None,
            "longest_ms": round(times[-1] * 1000, 1) if times else None,
        }
    )
    + "\n"
)
