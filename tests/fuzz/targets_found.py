"""Readers of what lies beside a model: a search index, a signature; and of marked tables."""

import base64
import hashlib
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import strategies as st

from ptft.artifact import FolderFiles
from ptft.data import open_split
from ptft.index import IndexInfo, read_picture_index, write_picture_index
from ptft.recipe.data import TableData
from ptft.signing import sign_folder, signed_files
from tests.fuzz.draw import bytes_near, to_json, values_near
from tests.fuzz.harness import Files, Target
from tests.fuzz.targets_model import record_folder
from tests.fuzz.targets_packed import make_picture, read_all

__all__ = ["TARGETS"]

# a search index

_DIGEST = "sha256:" + "0" * 64


@cache
def _index() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        info = IndexInfo(model="a", digest=_DIGEST, precision="fp32", count=3, dim=3)
        write_picture_index(folder, info, np.eye(3, dtype=np.float32), ["a", "b", "c"], [b"x"] * 3)
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _recorded(files: Files) -> Files:
    """With digests that are right, so that what is behind them is read."""
    record = json.loads(_index()["index.json"])
    for name, entry in record["files"].items():
        entry |= {"sha256": hashlib.sha256(files[name]).hexdigest(), "size": len(files[name])}
    return {**files, "index.json": json.dumps(record).encode()}


def _index_files() -> st.SearchStrategy[Files]:
    lines = [json.loads(line) for line in _index()["rows.jsonl"].splitlines()]
    keys = ("name", "thumbnail", "x")
    rows = st.lists(values_near(lines, keys).map(to_json), min_size=3, max_size=3)
    within = st.one_of(
        rows.map(lambda drawn: {"rows.jsonl": b"\n".join(drawn) + b"\n"}),
        bytes_near([_index()["rows.jsonl"]]).map(lambda data: {"rows.jsonl": data}),
        bytes_near([_index()["embeddings.safetensors"]], (b'"F32"', b"[3,3]", b"[0,36]")).map(
            lambda data: {"embeddings.safetensors": data}
        ),
    ).map(lambda changed: _recorded({**_index(), **changed}))
    record = values_near([json.loads(_index()["index.json"])], ("count", "dim", "../a")).map(
        lambda values: {**_index(), "index.json": to_json(values)}
    )
    return st.one_of(within, record)


def _read_index(folder: Path) -> None:
    index = read_picture_index(folder, digest=_DIGEST, precision="fp32")
    for near in index.search(np.ones(index.info.dim, np.float32) / index.info.dim**0.5, 3):
        index.thumbnail(near.row)


# a signature


@cache
def _signed() -> tuple[ec.EllipticCurvePrivateKey, bytes, dict[str, Any]]:
    """A private key, the public one as PEM, and a bundle that the private one signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with tempfile.TemporaryDirectory() as place:
        folder, pem = Path(place), Path(place) / "key.pem"
        record_folder(folder)
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return key, public, json.loads(sign_folder(folder, pem).read_bytes())


def _sign(payload: bytes) -> dict[str, Any]:
    key, _, bundle = _signed()
    kind = bundle["dsseEnvelope"]["payloadType"]
    framed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    made = key.sign(framed, ec.ECDSA(hashes.SHA256()))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": kind,
        "signatures": [{"sig": base64.b64encode(made).decode(), "keyid": ""}],
    }
    return {**bundle, "dsseEnvelope": envelope}


def _signature_files() -> st.SearchStrategy[Files]:
    _, public, bundle = _signed()
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    said = st.one_of(values_near([statement], ("digest", "name")).map(to_json), bytes_near([b"{}"]))
    inner = said.map(_sign).map(to_json)
    outer = values_near([bundle], ("signatures", "sig")).map(to_json)
    near = st.one_of(inner, outer, bytes_near([json.dumps(bundle).encode()]))
    return near.map(lambda data: {FolderFiles.SIGNATURE: data, "key.pem": public})


def _read_signature(folder: Path) -> None:
    signed_files(folder / FolderFiles.SIGNATURE, folder / "key.pem", where="a")


# boxes in a field of a table

_MARKED: list[Any] = [
    {"image": "0.png", "objects": {"bbox": [[1, 2, 3, 4], [0, 0, 8, 8]], "category": ["a", "b"]}},
    {"image": "0.png", "objects": [{"bbox": [0.1, 0.2, 0.3, 0.4], "label": "a", "iscrowd": 1}]},
    {"image": "0.png", "objects": {"bbox": [], "category": []}},
]


def _marked_files() -> st.SearchStrategy[Files]:
    keys = ("bbox", "category", "difficult", "area", "x")
    rows = st.lists(values_near(_MARKED, keys).map(to_json), min_size=1, max_size=3)
    plain = bytes_near([json.dumps(row).encode() for row in _MARKED])
    near = st.one_of(rows.map(b"\n".join), plain)
    return near.map(lambda data: {"a.jsonl": data, "0.png": make_picture()})


def _read_marked(folder: Path) -> None:
    section = TableData(train=str(folder / "a.jsonl"), image="image", boxes="objects")
    read_all(open_split(section, "train"))


TARGETS: dict[str, Target] = {
    "search index": Target(st.deferred(_index_files), _read_index),
    "model.sig": Target(st.deferred(_signature_files), _read_signature),
    "marked": Target(_marked_files(), _read_marked),
}
"""Name -> what is read."""
