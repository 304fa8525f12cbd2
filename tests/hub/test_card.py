"""A published card keeps what was written on the Hub, wherever it was written last."""

import os
from pathlib import Path

import pytest

from ptft.errors import ArtifactError, HubError
from ptft.export import card as export_card
from ptft.hub.card import EMPTY, merge_card
from ptft.model.licence import card_licence
from ptft.pages.markdown import UNKNOWN, card_metadata


def card(notes: str, *, results: str = "42", **front: str) -> str:
    header = "".join(f"{key}: {value}\n" for key, value in {"library_name": "x", **front}.items())
    keep = f"<!-- keep notes -->\n{notes}\n<!-- /keep notes -->\n"
    return f"---\n{header}---\n# A model\n\n{keep}\nResults: {results}\n"


def notes_of(text: str) -> str:
    return text.split("<!-- keep notes -->\n")[1].split("\n<!-- /keep")[0]


def test_marks_are_those_of_the_export() -> None:
    block = export_card._block("notes", export_card._EMPTY)
    assert EMPTY in block and block == card(EMPTY).split("# A model\n\n")[1].split("\nResults")[0]


def test_first_push_is_the_folders_card() -> None:
    new = card("Hello.")
    assert merge_card(new, None).startswith(new.rstrip())


@pytest.mark.parametrize(
    ("before", "here", "there", "expected"),
    [
        (EMPTY, EMPTY, "Hub.", "Hub."),  # written on the Hub only
        (EMPTY, "Folder.", EMPTY, "Folder."),  # in the folder only
        ("A", "A", "B", "B"),  # changed on the Hub
        ("A", "C", "A", "C"),  # changed in the folder
        ("A", EMPTY, "A", "A"),  # exported anew, somewhere else
        ("A", EMPTY, "B", "B"),
        ("A", "B and C", "B", "B and C"),  # changed in both, one holds the other
        ("A", "B", "B", "B"),
    ],
)
def test_who_wrote_last(before: str, here: str, there: str, expected: str) -> None:
    old = merge_card(card(before), None).replace(f"\n{before}\n", f"\n{there}\n")
    new = card(here, results="43")
    merged = merge_card(new, old)
    assert notes_of(merged) == expected and "Results: 43" in merged
    assert merge_card(new, merged) == merged  # nothing to push
    assert merged.count("<!-- pushed") == 1


def test_written_in_both_places_is_for_people_to_settle() -> None:
    old = merge_card(card("A"), None).replace("\nA\n", "\nOf the Hub.\n")
    with pytest.raises(HubError, match="'notes' was written both"):
        merge_card(card("Of the folder."), old)
    settled = merge_card(card("Of the folder.\nOf the Hub."), old)
    assert notes_of(settled) == "Of the folder.\nOf the Hub."


def test_a_card_without_marks_becomes_a_block() -> None:
    old = "---\nlicense: mit\n---\n# By hand\n\nWords.\n"
    merged = merge_card(card(EMPTY), old)
    assert "<!-- keep earlier -->\n# By hand\n\nWords.\n<!-- /keep earlier -->" in merged
    assert card_metadata(merged) == {"library_name": "x", "license": "mit"}
    assert merge_card(card(EMPTY), merged) == merged
    assert export_card._KEEP.findall(merged)[1][0] == "earlier"


def test_a_folders_card_without_marks_is_replaced_by_the_next() -> None:
    first = merge_card("# One\n", None)
    second = merge_card("# Two\n", first)
    assert "One" not in second and merge_card("# Two\n", second) == second
    by_hand = merge_card("# Three\n", second.replace("# Two", "# Two, by hand"))
    assert "# Three" in by_hand and "# Two, by hand" in by_hand


def test_metadata() -> None:
    old = "---\r\nlibrary_name: old\r\nlicense: mit\r\ntags:\r\n- a\r\n- b\r\n---\r\n# x\r\n"
    merged = card_metadata(merge_card(card(EMPTY, tags="[b, c]"), old))
    assert merged == {"library_name": "x", "tags": ["b", "c", "a"], "license": "mit"}
    assert card_metadata(merge_card(card(EMPTY), "---\n[broken\n---\n")) == {"library_name": "x"}
    assert card_metadata("# no header\n") == {}
    with pytest.raises(ArtifactError, match=r"README\.md: metadata is 'mit'"):
        merge_card("---\nmit\n---\n", None)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("[" * 5000, "nested too deep"),
        ("a: &a [*a]", "a value that holds itself"),
        ("a: 2024-99-99", "a value that cannot be: month"),
        (f"a: {'9' * 6000}", "a value that cannot be: "),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("- " + "x, " * 10_000, "metadata is .{40}; allowed: key: value"),
        ("\n".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9 * (n > 0)}]" for n in range(9)), "400000"),
    ],
)
def test_a_strangers_card_is_read_within_bounds(header: str, said: str, tmp_path: Path) -> None:
    text = f"---\n{header}\n---\n"
    with pytest.raises(ArtifactError, match=said) as caught:
        card_metadata(text)
    assert "\n" not in str(caught.value)
    (tmp_path / "README.md").write_text(text)
    assert card_licence(tmp_path / "README.md") == UNKNOWN


def test_the_licence_of_a_card_stands_at_its_head(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("---\nlicense: mit\n---\n" + "x" * 5_000_000)
    assert card_licence(path) == "mit"
    path.unlink()
    os.mkfifo(path)  # which nobody writes to
    assert card_licence(path) == UNKNOWN
