"""The real client of a Hub, on the loopback one, with a repo of three files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub import (
    CommitInfo,
    CommitOperationAdd,
    HfApi,
    constants,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
)

from tests.support.loopback_hub import LoopbackHub

REPO_ID = "tester/model"


CARD = b"---\nlicense: mit\nlibrary_name: open_clip\n---\n# A model\n"


WEIGHTS = bytes(range(256)) * 40


FILES = {"README.md": CARD, "config.json": b'{"a": 1}', "onnx/text_model.onnx": WEIGHTS}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with LoopbackHub(token="hf_test") as hub:
        yield hub


def client(hub: LoopbackHub, token: str | bool = "hf_test") -> HfApi:
    return HfApi(endpoint=hub.url, token=token)


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    api = client(hub)
    api.create_repo(REPO_ID)
    return api


def push(api: HfApi, files: dict[str, bytes] = FILES, **settings: Any) -> CommitInfo:
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    commit: CommitInfo = api.create_commit(REPO_ID, operations, commit_message="a push", **settings)
    return commit


def failing_status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return error.value.response.status_code
