"""``python -m tests.serving.whole_life MODEL HOME [TARGET]``: a service from its start to its end.

Every route and page is asked for once. What comes of it is printed; whoever starts this watches
what the service does meanwhile.
"""

import os
import sys
from pathlib import Path

import httpx

from tests.serving.attacks import form, pictures, small_photo
from tests.serving.server import TARGET, serve, serve_plain

SWITCHES = ("BENTOML_DO_NOT_TRACK", "DO_NOT_TRACK", "ORT_DISABLE_TELEMETRY", "HF_HUB_OFFLINE")
"""What would switch a telemetry off by the environment: left out, the code has to."""

JSON = {"content-type": "application/json"}


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")


def main(model: str, home: str, target: str = "") -> None:
    for name in SWITCHES:
        os.environ.pop(name, None)
    kind = {"content-type": "multipart/form-data; boundary=aBoundary"}
    picture = small_photo()
    start = serve if target == TARGET else serve_plain
    with start(Path(home), {"PTFT_MODEL": model}) as server:
        with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as ask:
            for path in ("/", "/docs", "/openapi.json", "/v1/model", "/metrics", "/livez", "/x"):
                say(path, ask.get(path).status_code)
            answers = [
                ask.post("/v1/embed/text", json={"texts": ["a cat"]}),
                ask.post("/v1/embeddings", json={"input": "a cat"}),
                ask.post("/v1/embed/image", content=form([picture]), headers=kind),
                ask.post("/v1/classify", content=pictures(picture), headers=JSON),
                ask.post("/v1/embed/image", json={"images": ["https://192.0.2.1/a.jpg"]}),
            ]
        say(*(answer.status_code for answer in answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
