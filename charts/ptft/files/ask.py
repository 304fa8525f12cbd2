"""Ask a running service whether it is ready, and for the embedding of one text.

`helm test` runs this inside the service's own image, so it needs only the standard library.
"""

import json
import math
import os
import sys
import time
import urllib.error
import urllib.request

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by way of a proxy


def wait_until_ready(base, seconds=120):
    """Ask /readyz each second until it answers 200."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with DIRECT.open(f"{base}/readyz", timeout=5):
                return
        except OSError as error:  # urllib's errors are among them
            if time.monotonic() > deadline:
                sys.exit(f"{base}/readyz: not ready after {seconds} s: {error}")
            time.sleep(1)


def embed(base, text):
    """The embedding of one text, and the whole answer."""
    body = json.dumps({"input": [text]}).encode()
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("PTFT_API_KEY"):
        headers["Authorization"] = f"Bearer {key.strip()}"
    url = f"{base}/v1/embeddings"
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310
    try:
        with DIRECT.open(request, timeout=30) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        why = f"{error}: {error.read(1000).decode(errors='replace')}"
        if error.code in (401, 403):
            why += "; gate.keySecret names the Secret with the key that this test asks with"
        sys.exit(f"{base}/v1/embeddings: {why}")
    except OSError as error:
        sys.exit(f"{base}/v1/embeddings: {error}")
    return answer["data"][0]["embedding"], answer


base = sys.argv[1].rstrip("/")
wait_until_ready(base)
vector, answer = embed(base, "a red circle")
norm = math.sqrt(sum(value * value for value in vector))
if not abs(norm - 1) < 1e-2:  # not a number fails, too
    sys.exit(f"an embedding of norm {norm}, expected 1")
sys.stdout.write(f"{base}: ready, {len(vector)} dimensions, model {answer['digest']}\n")
