"""Keys to sign models with, made by openssl."""

import subprocess
from pathlib import Path

__all__ = ["make_key"]


def make_key(path: Path, curve: str = "prime256v1", *more: str) -> Path:
    """A private key; the public one lies beside it as .pub."""
    made = ["openssl", "ecparam", "-genkey", "-name", curve, "-noout", "-out", path]
    subprocess.run(made, check=True, capture_output=True)
    public = ["openssl", "ec", "-in", path, "-pubout", "-out", path.with_suffix(".pub")]
    subprocess.run(public, check=True, capture_output=True)
    if more:
        locked = ["openssl", "ec", "-in", path, "-aes256", "-passout", *more, "-out", f"{path}.new"]
        subprocess.run(locked, check=True, capture_output=True)
        Path(f"{path}.new").replace(path)
    return path
