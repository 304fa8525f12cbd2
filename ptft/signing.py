"""Who vouches for a model folder: its signature, as OpenSSF Model Signing v1.0 has it.

``model.sig`` is a Sigstore bundle of a DSSE envelope of an in-toto statement that names every file
of the folder with its sha256; it is signed with an elliptic curve key of the publisher's, without
asking anybody. The ``model_signing`` package verifies what is signed here and signs what is
verified here; this module needs the cryptography package alone, so that the service's image can
hold a folder to a key. The card is not signed: people edit it on the Hub, and ``ptft push`` merges
what they wrote.
"""

import base64
import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptft.artifact import FolderFiles, ModelInfo, file_sha256, read_model_info, verify_files
from ptft.errors import MissingExtraError, SignatureError, UsageError
from ptft.files.atomic import write_atomic
from ptft.files.bounds import brief, parse_json, read_bytes
from ptft.printable import printable
from ptft.speech import warn

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["check_signature", "key_id", "sign_folder", "signed_files"]

_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_IGNORED = (
    *(FolderFiles.CARD, FolderFiles.SIGNATURE, FolderFiles.PULLED, FolderFiles.PARTS, ".cache"),
    *(".git", ".gitattributes", ".github", ".gitignore"),
)
_MOST = 16 << 20  # bytes of a signature: some 100,000 files
_SHA256 = re.compile(r"[0-9a-f]{64}")


def sign_folder(folder: Path, private_key: Path, password: str | None = None) -> Path:
    """Sign a whole model folder; one that was signed before is signed anew. Of files that are none
    of the model's it is said that they are not signed.

    Args:
        private_key: PEM, of the curve P-256, P-384 or P-521.
        password: of the key, where it has one.

    Returns:
        The path of ``model.sig``.

    Raises:
        ArtifactError, DigestError: it is no model folder, or not as ``ptft.json`` records it.
        UsageError: the key cannot be read, or is of another kind.
        MissingExtraError: the cryptography package is not installed.
    """
    info = read_model_info(folder)
    verify_files(folder, info.files)
    key = _private(private_key, password)
    digests = {name: str(entry["sha256"]) for name, entry in info.files.items()}
    for name in (FolderFiles.INFO, FolderFiles.BOM):
        if (folder / name).is_file():
            digests[name] = file_sha256(folder / name)
    if unsigned := _others(folder, digests):
        several = "s" if len(unsigned) > 1 else ""
        what = f"{len(unsigned)} file{several} beside the model's, such as {brief(unsigned[0])}"
        warn(f"{folder}: not signed: {what}; the model_signing package refuses such a folder")
    payload = json.dumps(_statement(folder.resolve().name, digests), sort_keys=True).encode()
    from cryptography.hazmat.primitives.asymmetric import ec

    made = key.sign(_pae(payload), ec.ECDSA(_hash_of(key.public_key())))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": _PAYLOAD,
        "signatures": [{"sig": base64.b64encode(made).decode(), "keyid": ""}],
    }
    bundle = {
        "mediaType": _BUNDLE,
        "verificationMaterial": {
            "publicKey": {"hint": _fingerprint(key.public_key())},
            "tlogEntries": [],
        },
        "dsseEnvelope": envelope,
    }
    write_atomic(folder / FolderFiles.SIGNATURE, json.dumps(bundle))
    return folder / FolderFiles.SIGNATURE


def _others(folder: Path, digests: Collection[str]) -> list[str]:
    """Files that stand in no record, what belongs to Git or to this machine apart."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if not path.is_dir())
    names = [path.as_posix() for path in found if path.parts[0] not in _IGNORED]
    return [name for name in names if name not in digests]


def check_signature(
    folder: Path, info: ModelInfo, public_key: Path, *, where: str | None = None
) -> str:
    """Hold a folder's record to its signature.

    The record, ``ptft.json``, has to be the signed one, and to name the signed files with their
    digests; the bytes of those that are there are for ``verify_files``, which holds them to the
    record. So a folder that was pulled in part is held as a whole one is.

    Args:
        public_key: PEM.
        where: what is named in an error; None: ``folder``, and what it calls itself: in a pod each
            is mounted at the same place.

    Returns:
        The id of the key (:func:`key_id`).

    Raises:
        SignatureError: there is no signature, it is another key's, or something was changed since.
        UsageError: the key cannot be read, or is of another kind.
        MissingExtraError: the cryptography package is not installed.
    """
    key = _public(public_key)
    shown = where or f"{folder} ({printable(info.name)})"
    path = folder / FolderFiles.SIGNATURE
    if not path.is_file():
        raise SignatureError(
            f"{shown}: not signed: it has no {FolderFiles.SIGNATURE}; wanted: one by {public_key}"
        )
    signed = signed_files(path, public_key, where=shown)
    mine = {name: str(entry["sha256"]) for name, entry in info.files.items()}
    mine[FolderFiles.INFO] = file_sha256(folder / FolderFiles.INFO)
    if (folder / FolderFiles.BOM).is_file():
        mine[FolderFiles.BOM] = file_sha256(folder / FolderFiles.BOM)
    else:
        signed.pop(FolderFiles.BOM, None)
    for name in sorted({*mine, *signed}):
        if name not in signed:
            raise SignatureError(f"{shown}: {name}: not among the files that were signed")
        if name not in mine:
            raise SignatureError(f"{shown}: {name}: signed, and not in {FolderFiles.INFO}")
        if mine[name] != signed[name]:
            raise SignatureError(
                f"{shown}: {name}: changed since it was signed: sha256 {mine[name]}; "
                f"{FolderFiles.SIGNATURE} has {signed[name]}"
            )
    return _fingerprint(key)[:16]


def key_id(public_key: Path) -> str:
    """16 hex digits of the sha256 of a public key's PEM, by which people tell keys apart."""
    return _fingerprint(_public(public_key))[:16]


def _statement(name: str, digests: dict[str, str]) -> dict[str, Any]:
    resources = [
        {"name": file, "algorithm": "sha256", "digest": digests[file]} for file in sorted(digests)
    ]
    return {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(resources)}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(_IGNORED),
            },
            "resources": resources,
        },
    }


def _root(resources: list[dict[str, str]]) -> str:
    """sha256 (hex) over the digests, in their order."""
    return hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources)).hexdigest()


def _pae(payload: bytes) -> bytes:
    """What a DSSE signature is made over: the type and the payload, each with its length."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)


def signed_files(path: Path, public_key: Path, *, where: str) -> dict[str, str]:
    """Name -> sha256 (hex) of what a bundle says, once its signature is seen to be this key's.

    Args:
        path: of ``model.sig``.
        public_key: PEM.
        where: what is named in an error.

    Raises:
        SignatureError: it is no bundle of this kind, or another key's.
        UsageError: the key cannot be read, or is of another kind.
    """
    key, shown = _public(public_key), where
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    bundle = parse_json(
        read_bytes(path, limit=_MOST, error=SignatureError), path, error=SignatureError
    )
    try:
        envelope = bundle["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        (signature,) = envelope["signatures"]
        made = base64.b64decode(signature["sig"], validate=True)
        kinds = (bundle["mediaType"], envelope["payloadType"])
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureError(
            f"{shown}: {path.name}: no bundle of one signature with a key ({error!r})"
        ) from None
    if kinds != (_BUNDLE, _PAYLOAD):
        raise SignatureError(f"{shown}: {path.name}: {str(kinds)[:90]}; allowed: {_BUNDLE}")
    try:
        key.verify(made, _pae(payload), ec.ECDSA(_hash_of(key)))
    except InvalidSignature:
        raise SignatureError(
            f"{shown}: {path.name}: not signed with {public_key} (key {_fingerprint(key)[:16]}), "
            "or changed since"
        ) from None
    return _resources(parse_json(payload, path, error=SignatureError), f"{shown}: {path.name}")


def _resources(statement: Any, where: str) -> dict[str, str]:
    """What a statement says of the files, held to agree with itself."""
    try:
        kinds = (statement["_type"], statement["predicateType"])
        serialization = statement["predicate"]["serialization"]
        (subject,) = statement["subject"]
        resources = statement["predicate"]["resources"]
        found = {str(one["name"]): str(one["digest"]) for one in resources}
        plain = all(
            one["algorithm"] == "sha256" and _SHA256.fullmatch(one["digest"]) for one in resources
        )
        wanted = subject["digest"]["sha256"]
        how = (serialization["method"], serialization["hash_type"])
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureError(f"{where}: no statement about a model ({error!r})") from None
    if kinds != (_STATEMENT, _PREDICATE) or how != ("files", "sha256") or not plain:
        raise SignatureError(f"{where}: allowed: OpenSSF Model Signing v1.0, sha256 of each file")
    if len(found) != len(resources) or wanted != _root(resources):
        raise SignatureError(f"{where}: its own digests do not agree")
    return found


def _private(path: Path, password: str | None) -> "ec.EllipticCurvePrivateKey":
    ec, serialization = _cryptography()
    try:
        key = serialization.load_pem_private_key(
            read_bytes(path, error=UsageError), None if password is None else password.encode()
        )
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: no private key that can be read: {_short(error)}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"{path}: {_KINDS}")
    _hash_of(key.public_key(), path)
    return key


def _public(path: Path) -> "ec.EllipticCurvePublicKey":
    ec, serialization = _cryptography()
    data = read_bytes(path, error=UsageError)
    try:
        key = serialization.load_pem_public_key(data)
    except ValueError as error:
        secret = b"PRIVATE KEY" in data
        why = "a private key, which stays with who signs" if secret else _short(error)
        raise UsageError(f"{path}: no public key (PEM): {why}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UsageError(f"{path}: {_KINDS}")
    _hash_of(key, path)
    return key


_KINDS = "allowed: a key of the curve P-256, P-384 or P-521"


def _hash_of(key: "ec.EllipticCurvePublicKey", path: Path | None = None) -> Any:
    """The hash that goes with a curve."""
    from cryptography.hazmat.primitives import hashes

    known: dict[str, Any] = {
        "secp256r1": hashes.SHA256,
        "secp384r1": hashes.SHA384,
        "secp521r1": hashes.SHA512,
    }
    if key.curve.name not in known:
        raise UsageError(f"{path}: {key.curve.name}; {_KINDS}")
    return known[key.curve.name]()


def _fingerprint(key: "ec.EllipticCurvePublicKey") -> str:
    """sha256 (hex) of the PEM, which the bundle gives as a hint."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(
        key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        raise MissingExtraError("cryptography", "sign") from None
    return ec, serialization


def _short(error: Exception) -> str:
    return str(error).split("\n")[0].split(" (")[0]
