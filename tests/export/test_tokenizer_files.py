"""The tokenizer's files of a model folder: special tokens in texts are read as open_clip does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from ptft.artifact import FolderFiles, read_json
from ptft.compat import import_open_clip, prepare_torchvision
from ptft.export.model_files import TOKENIZER_CONFIG, write_tokenizer_files
from ptft.model.spec import ModelSpec
from ptft.model.tokenizers import build_tokenizer
from ptft.preprocess import ImagePreprocess, TextTokenizer
from tests.support import tiny
from tests.support.tokenizer_json import MARKS, old_json

TEXTS = [
    *(text for text in MARKS if "&" not in text and "</S>" not in text),
    "</s>",
    "<pad>",
    "a <pad> cat<pad>",
    "s pad unk",
    "a photo</s><s>of [SEP] red",
    "two  spaces \t and\na line",
    "a <mask> cat<mask>dog",
    "&eacute; &amp;amp; a <s> &lt;b&gt;",
]


def byte_level(folder: Path) -> Path:
    """A vocabulary as RoBERTa's, which tells words by the space before; ``<mask>`` takes it."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = [*names, *pre_tokenizers.ByteLevel.alphabet()]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.add_special_tokens([*names[:4], AddedToken("<mask>", lstrip=True)])
    return _saved(tokenizer, folder, mask_token="<mask>")


def unigram(folder: Path) -> Path:
    """A vocabulary as T5's and XLM-R's: pieces that begin with a space, after NFKC."""
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = [chr(point) for point in range(33, 127)]
    words = [*names, "\u2581", *letters, "\u2581a", "cat"]
    tokenizer = Tokenizer(models.Unigram([(word, -1.0) for word in words], unk_id=3))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    tokenizer.add_special_tokens(names)
    return _saved(tokenizer, folder)


def _saved(tokenizer: Tokenizer, folder: Path, **names: str) -> Path:
    prepare_torchvision()  # transformers imports it
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="</s>",
        sep_token="</s>",
        cls_token="<s>",
        **names,
    ).save_pretrained(folder)
    return folder


def word_piece(folder: Path) -> Path:
    return tiny.hf_text_folder(folder, weights=False)


def written(config: dict[str, Any], folder: Path, source: Path | None = None) -> ModelSpec:
    """The specification of open_clip's ``text_cfg``, its files written into a folder."""
    tokenizer, names = build_tokenizer({"text_cfg": config}, folder=source)
    size = ImagePreprocess(size=(32, 32))
    spec = ModelSpec("test", {"text_cfg": config}, size, tokenizer, names)
    folder.mkdir(exist_ok=True)
    write_tokenizer_files(spec, folder)
    return spec


@pytest.mark.parametrize("make", [word_piece, byte_level, unigram])
@pytest.mark.parametrize("clean", ["whitespace", "canonicalize"])
def test_open_clip_transformers_and_tokenizers_agree(
    clean: str, make: Callable[[Path], Path], tmp_path: Path
) -> None:
    import_open_clip()
    from open_clip.tokenizer import HFTokenizer
    from transformers import AutoTokenizer

    source = make(tmp_path / "source")
    config = {
        "context_length": 24,
        "hf_tokenizer_name": str(source),
        "tokenizer_kwargs": {"clean": clean},
    }
    spec = written(config, tmp_path / "out", source)
    right = spec.tokenizer(TEXTS)
    for folder in (source, tmp_path / "out"):
        theirs = HFTokenizer(str(folder), context_length=24, clean=clean)
        np.testing.assert_array_equal(theirs(TEXTS).numpy(), right)
    whole = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = whole(TEXTS, padding="max_length", truncation=True)["input_ids"]
    np.testing.assert_array_equal(ids, right)
    alone = Tokenizer.from_file(str(tmp_path / "out" / FolderFiles.TOKENIZER))
    alone.enable_truncation(24)
    for text, row in zip(TEXTS, right, strict=True):
        assert alone.encode(text).ids == row[: len(alone.encode(text).ids)].tolist(), text
    # people do not read marks, whether or not the file still tells what they are
    again = TextTokenizer(tmp_path / "out" / FolderFiles.TOKENIZER, **spec.tokenizer.kwargs())
    if make is word_piece:
        assert again.decode(again(["a cat", ""])) == ["a cat", ""]
    # and an export of the export changes nothing
    (tmp_path / "again").mkdir()
    write_tokenizer_files(spec.with_(tokenizer=again), tmp_path / "again")
    for name in (FolderFiles.TOKENIZER, TOKENIZER_CONFIG):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_a_name_that_only_the_added_tokens_have_stays(tmp_path: Path) -> None:
    """It would lose its number: transformers alone is kept from finding it."""
    source = tiny.hf_text_folder(tmp_path / "source", weights=False)
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.save(str(source / "tokenizer.json"))
    config = {
        "context_length": 24,
        "hf_tokenizer_name": str(source),
        "tokenizer_kwargs": {"clean": "canonicalize"},
    }
    written(config, tmp_path / "out", source)
    found = read_json(tmp_path / "out" / FolderFiles.TOKENIZER)["added_tokens"]
    assert [token["content"] for token in found] == ["<mask>"]
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs("a <mask> </s>")["input_ids"] == theirs("a mask s")["input_ids"]


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_clip_with_every_cleaning(clean: str, tmp_path: Path) -> None:
    config = {"context_length": 24, "tokenizer_kwargs": {"clean": clean}}
    spec = written(config, tmp_path / "out")
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = [*TEXTS, "A Photo of the end of text"]
    if clean == "whitespace":  # open_clip takes a mark in upper case for one word and no mark
        texts = [text for text in texts if "_OF_TEXT>" not in text]
    for text, row in zip(texts, spec.tokenizer(texts), strict=True):
        ids = theirs(text, truncation=True)["input_ids"]
        assert ids == row[: len(ids)].tolist(), text
        assert not row[len(ids) :].any(), text


def test_names_of_before_are_exported_as_open_clips(tmp_path: Path) -> None:
    """A run or a folder that an older ptft wrote."""
    spec = written({"context_length": 16}, tmp_path / "new")
    old = old_json(spec.tokenizer.json)
    names = {"eos_token": "<|endoftext|>", "bos_token": "<|startoftext|>", "pad_token": "!"}
    before = spec.with_(
        tokenizer=TextTokenizer(old, **spec.tokenizer.kwargs()), tokenizer_config=names
    )
    write_tokenizer_files(before, tmp_path)
    new = tmp_path / "new" / FolderFiles.TOKENIZER
    assert (tmp_path / FolderFiles.TOKENIZER).read_bytes() == new.read_bytes()
    found = read_json(tmp_path / TOKENIZER_CONFIG)
    assert (found["bos_token"], found["eos_token"]) == ("<start_of_text>", "<end_of_text>")
    assert found["pad_token"] == "!"
