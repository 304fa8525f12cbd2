"""Texts against open_clip's own tokenizers, id for id."""

import itertools
import pickle
import sys
import threading
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from ptft.compat import import_open_clip
from ptft.errors import ModelError
from ptft.preprocess import TextTokenizer, clip_bpe_json
from ptft.preprocess import texts as texts_module
from ptft.preprocess.cleaning import CLEANERS
from tests.support.tokenizer_json import MARKS, bert_json, old_json

HARD = [
    "",
    " ",
    "a photo of a cat",
    "A PHOTO of Ä ÇAT, İstanbul ẞ ΑΣ",
    "  mixed \t white\n\nspace\u00a0and\u3000wide\u2028 lines  ",
    "Tom &amp; Jerry &lt;b&gt; &amp;amp; &copy; &#233; &#x1F600; &nbsp;x",
    "<p>e&#769; &eacute;</p> &bogus; &amp",
    "cafe\u0301 \ufb01ne \uff21\uff22 \u00bd \u2460",
    "schÃ¶n, donâ€™t, â€œquotedâ€\u009d",
    "it's we're I've I'm they'll he'd DON'T 'S 'ſ",
    "😀👨‍👩‍👧‍👦 🇩🇪 👍🏽 ❤️",
    "猫の写真 고양이 사진 صورة قطة תמונה ภาพแมว",
    "1234567890 3.14 ٣٤ Ⅷ x²",
    "snake_case --- ... !!?! C++ #1 @you a/b\\c",
    "<start_of_text>a<end_of_text> b !<end_of_text> <|endoftext|> <END_OF_TEXT>",
    "<end_of_text><end_of_text>x<start_of_text>",
    "word " * 200,
    "x" * 3000,
    "<end_of_text> word " * 100,
    "\x00\x07 control \x1b[31mred\x1b[0m \ufeff zero\u200bwidth \ufffd",
    "!",
    "\u0345 a\u0345b ΐ ᾳ",
]
HARD += MARKS


@pytest.fixture(scope="module")
def clip_json() -> str:
    return clip_bpe_json()


@pytest.mark.parametrize("context_length", [77, 5, 32])
def test_clip_equals_open_clip(clip_json: str, context_length: int) -> None:
    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    ours = TextTokenizer(clip_json, context_length=context_length)
    expected = SimpleTokenizer(context_length=context_length)(HARD).numpy()
    got = ours(HARD)
    assert got.dtype == np.int64
    for text, row, right in zip(HARD, got, expected, strict=True):
        np.testing.assert_array_equal(row, right, err_msg=repr(text))
    assert ours([]).shape == (0, context_length)


@pytest.mark.parametrize(("clean", "theirs"), [("whitespace",) * 2, ("canonicalize",) * 2])
def test_clip_with_other_cleaning(clip_json: str, clean: str, theirs: str) -> None:
    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    upper = ("<START_OF_TEXT>", "<END_OF_TEXT>")  # marks only when lower-cased
    texts = [text for text in HARD if not any(mark in text for mark in upper)]
    ours = TextTokenizer(clip_json, context_length=40, clean=clean)
    expected = SimpleTokenizer(context_length=40, clean=theirs)(texts).numpy()
    np.testing.assert_array_equal(ours(texts), expected)


def test_clip_equals_open_clip_all_over_unicode(clip_json: str) -> None:
    """Every 23rd assigned character, in a word, in punctuation, after a digit and an apostrophe."""
    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    characters = [chr(point) for point in range(1, 0x3FFFF)]
    assigned = [c for c in characters if unicodedata.category(c) not in ("Cn", "Co", "Cs")]
    texts = [f"a{c}b !{c}! 1{c}2 '{c}" for c in assigned[::23]]
    assert len(texts) > 5000
    ours = TextTokenizer(clip_json, context_length=32)(texts)
    np.testing.assert_array_equal(ours, SimpleTokenizer(context_length=32)(texts).numpy())


def test_saved_and_restored(clip_json: str, tmp_path: Path) -> None:
    first = TextTokenizer(clip_json, context_length=20, trimmable=True)
    first.save(tmp_path / "tokenizer.json")
    second = TextTokenizer(tmp_path / "tokenizer.json", **first.kwargs())
    np.testing.assert_array_equal(first(HARD), second(HARD))
    second.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()
    third = pickle.loads(pickle.dumps(second))  # a worker process that is spawned, not forked
    np.testing.assert_array_equal(first(HARD), third(HARD))
    assert first.with_(context_length=7)(HARD).shape == (len(HARD), 7)


def test_a_file_is_checked_and_parsed_once_a_process(
    clip_json: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = clip_json.replace("{", "{ ", 1)  # which no other test has read
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path in paths:
        path.write_text(text, encoding="utf-8")
    first = TextTokenizer(paths[0], context_length=9)

    def fail(*_: object) -> None:
        raise AssertionError("again")

    with monkeypatch.context() as patch:
        patch.setattr(texts_module, "check_tokenizer", fail)
        patch.setattr(texts_module, "Tokenizer", fail)
        again = TextTokenizer(paths[1], context_length=9, clean="none")
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(first))(HARD), first(HARD))
    shorter = TextTokenizer(paths[0], context_length=5)
    assert [one(["a " * 9]).astype(bool).sum() for one in (first, again, shorter)] == [9, 9, 5]
    paths[0].write_text(text.replace("BPE", "EPB"), encoding="utf-8")
    with pytest.raises(ModelError, match=r"a\.json"):
        TextTokenizer(paths[0], context_length=9)


def test_trim(clip_json: str) -> None:
    tokenizer = TextTokenizer(clip_json, context_length=77, trimmable=True)
    tokens = tokenizer(["a cat", "two dogs on a mat!"])
    trimmed = tokenizer.trim(tokens)
    assert trimmed.shape == (2, 8)
    np.testing.assert_array_equal(tokens[:, :8], trimmed)
    assert not tokens[:, 8:].any()
    assert tokenizer.trim(tokenizer([])).shape == (0, 77)
    assert tokenizer.with_(trimmable=False).trim(tokens).shape == (2, 77)
    assert tokenizer.trim(tokenizer(["word " * 90, "a"])).shape == (2, 77)


def written() -> list[str]:
    """Marks between whatever may stand beside them, two or three at a time."""
    parts = ["<end_of_text>", "<START_OF_TEXT>", "a", "!", "<", ">", " ", "'s", "1", "_", "&gt;"]
    return ["".join(one) for n in (2, 3, 4) for one in itertools.product(parts, repeat=n)][::5]


def test_the_file_alone_finds_marks_where_open_clip_does(clip_json: str) -> None:
    """For libraries that have nothing but ``tokenizer.json``."""
    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    theirs = Tokenizer.from_str(clip_json)
    theirs.enable_truncation(24)
    texts = [text for text in (*MARKS, *written()) if "&" not in text]  # the export's to resolve
    assert len(texts) > 2000
    expected = SimpleTokenizer(context_length=24)(texts).numpy()
    np.testing.assert_array_equal(TextTokenizer(clip_json, context_length=24)(texts), expected)
    for text, row in zip(texts, expected, strict=True):
        ids = theirs.encode(text).ids
        assert ids + [0] * (24 - len(ids)) == row.tolist(), text


def test_transformers_reads_the_file(clip_json: str, tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    (tmp_path / "tokenizer.json").write_text(clip_json, encoding="utf-8")
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path, eos_token="<end_of_text>")
    texts = ["A photo of a Cat, isn't it?", "cafe\u0301 猫 😀 1234", "", "x " * 100, *MARKS[:8]]
    ids = theirs(texts, max_length=77, truncation=True)["input_ids"]
    ours = TextTokenizer(clip_json, context_length=77)(texts)
    for row, right in zip(ours, ids, strict=True):
        assert row[: len(right)].tolist() == right


def test_files_of_before_give_the_ids_they_gave(clip_json: str, tmp_path: Path) -> None:
    before = old_json(clip_json)
    assert "_of_text" not in before
    (tmp_path / "tokenizer.json").write_text(before, encoding="utf-8")
    tokenizer = TextTokenizer(tmp_path / "tokenizer.json", context_length=40)
    expected = TextTokenizer(clip_json, context_length=40)
    np.testing.assert_array_equal(tokenizer(HARD), expected(HARD))
    assert tokenizer.json == expected.json  # or models of before and after could not be mixed


def test_what_is_lost_of_a_text_is_told(clip_json: str) -> None:
    tokenizer = TextTokenizer(clip_json, context_length=12)
    cases = {
        "a cat": (False, False),
        "a cat<end_of_text>": (False, False),  # nothing is lost
        "a cat <end_of_text> dog": (True, False),
        "a cat &lt;End_Of_Text&gt; dog": (True, False),
        "!<end_of_text> dog": (False, False),  # no mark
        "a <start_of_text> cat": (False, False),
        "a cat <|endoftext|> dog": (False, False),
        "one two three four five six seven eight nine ten": (False, False),
        "one two three four five six seven eight nine ten eleven": (False, True),
        "a <end_of_text> " + "word " * 20: (True, True),
        "word " * 20 + "<end_of_text> a": (False, True),
        "": (False, False),
    }
    tokens = tokenizer(list(cases))
    assert tokenizer.ends_early(tokens).tolist() == [early for early, _ in cases.values()]
    assert tokenizer.too_long(list(cases), tokens).tolist() == [cut for _, cut in cases.values()]
    assert tokenizer.ends_early(tokenizer([])).shape == (0,)
    bert = TextTokenizer(bert_json(), context_length=5, kind="hf", clean="whitespace", zeroed_id=3)
    texts = ["a cat", "a cat of", "a photo of a cat"]
    assert bert.too_long(texts, bert(texts)).tolist() == [False, False, True]
    left = bert.with_(pad_left=True, zeroed_id=None)
    assert left.too_long(texts, left(texts)).tolist() == [False, False, True]
    assert left.ends_early(left(["a[SEP]", "a [SEP] cat"])).tolist() == [False, True]


@pytest.mark.parametrize("clean", ["whitespace", "canonicalize"])
@pytest.mark.parametrize("strip_sep", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
def test_hf_equals_open_clip(clean: str, strip_sep: bool, side: str, tmp_path: Path) -> None:
    import_open_clip()
    from open_clip.tokenizer import HFTokenizer
    from transformers import PreTrainedTokenizerFast

    names = {"pad_token": "[PAD]", "sep_token": "[SEP]", "cls_token": "[CLS]"}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(bert_json()), padding_side=side, **names
    ).save_pretrained(tmp_path)
    theirs = HFTokenizer(str(tmp_path), context_length=12, clean=clean, strip_sep_token=strip_sep)
    ours = TextTokenizer(
        bert_json(),
        context_length=12,
        kind="hf",
        clean=clean,
        pad_left=side == "left",
        zeroed_id=3 if strip_sep else None,
    )
    texts = [*HARD, "a photo of the cats [SEP] & a cat!"]
    np.testing.assert_array_equal(ours(texts), theirs(texts).numpy())


def test_errors(tmp_path: Path, clip_json: str) -> None:
    with pytest.raises(ModelError, match="no such file"):
        TextTokenizer(tmp_path / "absent.json", context_length=8)
    with pytest.raises(ModelError, match=r"tokenizer\.json: "):
        TextTokenizer("{}", context_length=8)
    with pytest.raises(ModelError, match=r"lacks <start_of_text>"):
        TextTokenizer(bert_json(), context_length=8)
    with pytest.raises(ModelError, match="clean: 'lower'; allowed: clip"):
        TextTokenizer(clip_json, context_length=8, clean="lower")


_LONG = [
    "a photo of a cat, a dog & <b>an old caf\u00e9</b> in 1998! " * 2000,
    "\u732b\u306e\u5199\u771f\u3002\u3068\u3066\u3082\u53e4\u3044\u5bb6\uff0c" * 9000,
    "&lt;p&gt; caf\u00c3\u00a9 \u2014 \u201cquoted\u201d \U0001f408 " * 4000,
    "donaudampfschifffahrtsgesellschaft" * 3000,
]


@pytest.mark.parametrize("context_length", [77, 300])
def test_a_text_that_is_cut_far_behind_the_context_gives_the_ids_of_the_whole(
    clip_json: str, context_length: int
) -> None:
    """open_clip's own tokenizer takes all of it."""
    import_open_clip()
    from open_clip.tokenizer import SimpleTokenizer

    assert all(len(text) > 60_000 for text in _LONG)
    ours = TextTokenizer(clip_json, context_length=context_length)
    whole = SimpleTokenizer(context_length=context_length)(_LONG).numpy()
    np.testing.assert_array_equal(ours(_LONG), whole)
    assert ours.too_long(_LONG, ours(_LONG)).all()


@pytest.mark.parametrize("clean", ["whitespace", "canonicalize", "none"])
def test_so_does_one_of_words(clean: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = TextTokenizer(bert_json(), context_length=64, kind="hf", clean=clean)  # type: ignore[arg-type]
    cut = ours(_LONG)
    monkeypatch.setattr(texts_module, "LONGEST", 1 << 30)
    np.testing.assert_array_equal(cut, ours(_LONG))


def test_other_threads_go_on_while_a_long_text_is_cut_into_tokens(clip_json: str) -> None:
    """64 texts of emoji held up everybody else's requests, each for as long as it took."""
    ours = TextTokenizer(clip_json, context_length=77)
    begin, ran = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: begin.wait() and ran.set(), daemon=True)
    other.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # only who lets go of the interpreter lets another thread run
    try:
        begin.set()
        for _ in range(200):
            ours.uncleaned(["\U0001f408" * 16_384])
            if ran.is_set():
                break
        went_on = ran.is_set()
    finally:
        sys.setswitchinterval(interval)
    other.join()
    assert went_on


def test_what_lies_far_behind_the_context_is_not_cleaned(
    clip_json: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """25 MB of a caption that needs repair took a minute, each time that it was drawn."""
    seen: list[int] = []
    cleaner = CLEANERS["clip"]

    def count(text: str) -> str:
        seen.append(len(text))
        return cleaner(text)

    monkeypatch.setitem(CLEANERS, "clip", count)
    ours = TextTokenizer(clip_json, context_length=77)
    seen.clear()
    text = "caf\u00c3\u00a9 " * 4_000_000
    ours.too_long([text], ours([text]))
    assert max(seen) == 16_384
    longer = ours.with_(context_length=1000)
    assert longer._longest == 32_000, "of a longer context, more"
