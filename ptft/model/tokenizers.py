"""The tokenizer of an architecture, from open_clip's configuration of its text tower."""

import json
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

from ptft.compat import prepare_torchvision
from ptft.errors import ModelError
from ptft.model.foreign import by_itself, check_folder_configs
from ptft.preprocess import TextTokenizer, clip_bpe_json
from ptft.preprocess.clip_vocabulary import END_OF_TEXT, START_OF_TEXT
from ptft.preprocess.tokenizer_file import check_tokenizer
from ptft.reach import hub_at_hand
from ptft.speech import tell_once

__all__ = ["build_tokenizer"]

_Clean = Literal["clip", "canonicalize", "whitespace", "none"]
_CLEANS: dict[str, _Clean] = {
    "lower": "clip",
    "canonicalize": "canonicalize",
    "whitespace": "whitespace",
}
_CLIP_CONFIG = {
    "tokenizer_class": "CLIPTokenizer",
    "bos_token": START_OF_TEXT,
    "eos_token": END_OF_TEXT,
    "unk_token": END_OF_TEXT,
    "pad_token": END_OF_TEXT,
}


def build_tokenizer(
    config: Mapping[str, Any], *, folder: Path | None = None
) -> tuple[TextTokenizer, dict[str, Any]]:
    """The tokenizer that open_clip would take, and its ``tokenizer_config.json``.

    Args:
        config: open_clip's ``model_cfg``.
        folder: holds the tokenizer's files, where they are local; else they come from the Hub under
            the name in the configuration.

    Raises:
        ModelError: it cannot be found or read, or has no fast form.
    """
    text = config["text_cfg"]
    length = int(text.get("context_length", 77))
    options = dict(text.get("tokenizer_kwargs") or {})
    clean = _clean(options.pop("clean", None), hf="hf_tokenizer_name" in text)
    if not text.get("hf_tokenizer_name"):
        if options:
            raise ModelError(f"text_cfg.tokenizer_kwargs: {options}: not supported; allowed: clean")
        tokenizer = TextTokenizer(clip_bpe_json(), context_length=length, clean=clean)
        return tokenizer, {**_CLIP_CONFIG, "model_max_length": length}
    strip = bool(options.pop("strip_sep_token", False))
    if options:
        raise ModelError(
            f"text_cfg.tokenizer_kwargs: {options}: not supported; allowed: clean, strip_sep_token"
        )
    source = str(folder) if folder is not None else text["hf_tokenizer_name"]
    return _from_transformers(source, length=length, clean=clean, strip=strip)


def _clean(name: str | None, *, hf: bool) -> _Clean:
    name = name or ("whitespace" if hf else "lower")  # open_clip's defaults
    # "none" is a recipe's (model.text_clean) and unknown to open_clip
    allowed: dict[str, _Clean] = {**_CLEANS, "none": "none"} if hf else _CLEANS
    if name not in allowed:
        raise ModelError(f"tokenizer_kwargs.clean: {name!r}; allowed: {', '.join(allowed)}")
    return allowed[name]


def _from_transformers(
    source: str, *, length: int, clean: _Clean, strip: bool
) -> tuple[TextTokenizer, dict[str, Any]]:
    prepare_torchvision()  # transformers imports it
    from transformers import AutoTokenizer

    local = Path(source).is_dir()
    if local:
        check_folder_configs(Path(source))
    absent: str | None = None
    try:
        with nullcontext() if local else hub_at_hand() as absent, by_itself(offline=local):
            if not local and absent is None:
                tell_once(f"{source}: from the Hub, unless the cache has it")
            theirs = AutoTokenizer.from_pretrained(
                source, trust_remote_code=False, local_files_only=local
            )
    except (OSError, ValueError, ImportError, TypeError, KeyError, AttributeError) as error:
        first = f"not in the cache; {absent}" if absent else str(error).strip().split("\n")[0]
        raise ModelError(f"{source}: no tokenizer can be loaded: {first}") from error
    if not getattr(theirs, "is_fast", False):
        raise ModelError(f"{source}: its tokenizer has no fast form (tokenizer.json)")
    if theirs.pad_token_id is None:
        raise ModelError(f"{source}: its tokenizer names no padding token")
    if theirs.truncation_side != "right":
        raise ModelError(f"{source}: its tokenizer cuts texts on the {theirs.truncation_side}")
    text = _without_state(theirs.backend_tokenizer.to_str())
    check_tokenizer(text, source)
    tokenizer = TextTokenizer(
        text,
        context_length=length,
        kind="hf",
        clean=clean,
        pad_id=theirs.pad_token_id,
        pad_left=theirs.padding_side == "left",
        zeroed_id=theirs.sep_token_id if strip else None,
    )
    return tokenizer, _saved_config(theirs)


def _without_state(text: str) -> str:
    """The backend's JSON without the truncation and padding of the last call."""
    values = json.loads(text)
    values.update(truncation=None, padding=None)
    return json.dumps(values, ensure_ascii=False)


def _saved_config(tokenizer: Any) -> dict[str, Any]:
    """``tokenizer_config.json`` as transformers writes it, without where it was read from."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path = Path(folder) / "tokenizer_config.json"
        values = json.loads(path.read_text(encoding="utf-8"))
    values.pop("name_or_path", None)
    return values
