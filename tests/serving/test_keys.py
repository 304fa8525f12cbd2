"""API keys: lines to keys, what is said of wrong ones, and the command that makes one."""

import hashlib
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from ptft.errors import UsageError
from serving.keys import Key, check_keys, find_key, main, make_key, parse_keys, read_keys
from serving.settings import Settings

HASH = "sha256:" + hashlib.sha256(b"one").hexdigest()
OTHER = "sha256:" + hashlib.sha256(b"other").hexdigest()


def test_a_line_has_a_name_a_hash_and_limits() -> None:
    text = f"# ours\n\n one {HASH}\nother {OTHER} rate=0.5 concurrency=3 expires=2027-06-30\n"
    one, other = parse_keys(text, "here")
    assert one == Key("one", hashlib.sha256(b"one").digest())
    assert (other.rate, other.concurrency, other.expires) == (0.5, 3, date(2027, 6, 30))
    assert parse_keys(f"{one.line()}\n{other.line()}", "again") == [one, other]
    assert find_key([one, other], b"other") == other
    assert find_key([one, other], b"another") is None


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("one", "line 2: one: allowed: NAME sha256: and 64 hex digits"),
        ("one ptft_the-key-itself", "line 2: one: allowed: NAME sha256:"),
        (f"o/ne {HASH}", "line 2: its name; allowed: letters"),
        (f"one {HASH} rate=0", "line 2: one: rate=0: allowed: requests a second, above 0"),
        (f"one {HASH} rate=nan", "rate=nan: allowed"),
        (f"one {HASH} concurrency=1.5", "concurrency=1.5: allowed: a whole number"),
        (f"one {HASH} concurrency={'9' * 5000}", f"concurrency={'9' * 40}: allowed: a whole"),
        (f"one {HASH} expires=soon", "expires=soon: allowed: a day such as 2027-06-30"),
        (f"one {HASH} rat=1", "rat: did you mean 'rate'?"),
        (f"one {HASH} rate=1 rate=2", "rate stands twice"),
        (f"one {HASH} ptft_the-key-itself", "a word without ="),
    ],
)
def test_wrong_lines_are_named_and_no_key_is_shown(line: str, part: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"good {OTHER}\n{line}\n")
    with pytest.raises(UsageError) as caught:
        read_keys(file, "")
    assert str(caught.value).startswith(f"PTFT_KEYS_FILE={file}: ")
    assert part in str(caught.value)
    assert "the-key-itself" not in str(caught.value)


def test_a_name_and_a_key_stand_once(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"one {HASH}\n")
    assert [key.name for key in read_keys(file, f"a {OTHER}; ")] == ["a", "one"]
    for line, what in ((f"one {OTHER}", "its name"), (f"two {HASH}", "its hash")):
        with pytest.raises(UsageError, match=f"{what} stands twice"):
            read_keys(file, line)


def test_no_keys_where_they_are_asked_for(tmp_path: Path) -> None:
    plain = Settings(model=tmp_path)
    assert check_keys(plain) == []
    with pytest.raises(UsageError, match="PTFT_METRICS=key: allowed: only with"):
        check_keys(replace(plain, metrics="key"))
    empty = tmp_path / "empty"
    empty.write_text("# none\n")
    for file, what in ((empty, "no key in it"), (tmp_path / "none", "No such file")):
        with pytest.raises(UsageError, match=what) as caught:
            check_keys(replace(plain, keys_file=file))
        assert f"PTFT_KEYS_FILE={file}" in str(caught.value)
    with pytest.raises(UsageError, match="PTFT_KEYS: no key in it"):
        check_keys(replace(plain, keys=";;"))


def test_it_is_good_on_its_last_day() -> None:
    _, key = make_key("one")
    today = datetime.now(UTC).date()
    assert not key.has_expired()
    assert not replace(key, expires=today + timedelta(days=1)).has_expired()
    assert replace(key, expires=today - timedelta(days=1)).has_expired()


def test_the_command_shows_a_key_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "mobile", "--rate", "20", "--concurrency", "4"]) == 0
    told = capsys.readouterr()
    secret = told.err.split()[-1]
    assert secret.startswith("ptft_") and len(secret) > 40
    (key,) = parse_keys(told.out, "stdout")
    assert find_key([key], secret.encode()) == key
    assert (key.name, key.rate, key.concurrency) == ("mobile", 20.0, 4)
    assert secret not in told.out
    assert main(["new", "mobile", "--rate", "often"]) == 2
    assert main(["new", "mobile", "--rate", ""]) == 2  # not a key without a limit
    assert main(["new", "mobile", "--rate", "2000000"]) == 2
    assert main(["new", "not a name"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("ptft: keys new: mobile: rate=often: allowed: ")
    assert lines[2].endswith(
        "rate=2000000: allowed: requests a second, above 0 and at most 1000000"
    )
