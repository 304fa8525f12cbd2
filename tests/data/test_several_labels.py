"""Several classes a sample, from every source that has labels."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ptft.data import SampleSet, eval_batches, open_split
from ptft.data.checks.survey import survey_split
from ptft.data.label_sets import LabelSets
from ptft.data.open import open_val
from ptft.data.packing.pack import PackSettings, pack
from ptft.errors import DataError, RecipeError, SampleError
from ptft.preprocess import ImagePreprocess
from ptft.recipe import DataSection, FolderData, MixtureData, ScenesData, ShardsData, TableData
from ptft.recipe.load import parse_recipe
from tests.support.several import json_folder
from tests.support.shards import picture, write_tar

KINDS = [["red", "round"], ["round"], [], ["square", "red"], ["round", "red"], None]
WANTED = [{"red", "round"}, {"round"}, set(), {"red", "square"}, {"red", "round"}, None]


def csv_folder(root: Path, labels: list[Any], split: str = "train") -> FolderData:
    """A folder whose ``metadata.csv`` has labels with bars between them; null is no column of a
    CSV."""
    root.mkdir(parents=True)
    with (root / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "kind"])
        for number, one in enumerate(labels):
            (root / f"{number}.png").write_bytes(picture(number))
            writer.writerow([f"{number}.png", "|".join(one or ())])
    return FolderData(label="kind", labels="many", label_separator="|", **{split: str(root)})


def parquet(root: Path, labels: list[Any], split: str = "train") -> TableData:
    root.mkdir(parents=True)
    columns = {"image": [picture(n) for n in range(len(labels))], "kind": labels}
    pq.write_table(pa.table(columns), root / "t.parquet")
    return TableData(label="kind", labels="many", **{split: str(root / "t.parquet")})


def shards(root: Path, labels: list[Any], split: str = "train") -> ShardsData:
    root.mkdir(parents=True)
    files: dict[str, bytes] = {}
    for number, one in enumerate(labels):
        files[f"{number}.png"] = picture(number)
        if one is not None:
            files[f"{number}.cls"] = json.dumps(one).encode()
    return ShardsData(labels="many", **{split: str(write_tar(root / "t.tar", files))})


SOURCES: list[Callable[[Path, list[Any]], Any]] = [csv_folder, json_folder, parquet, shards]


def told(samples: SampleSet) -> list[set[str] | None]:
    """What each sample has, as the set says it and as it reads it."""
    labels, found = samples.labels(), []
    assert labels is not None
    for index, label in enumerate(labels.tolist()):
        if label < 0:  # it has no caption either
            with pytest.raises(SampleError, match="no field"):
                samples.describe(index)
            found.append(None)
            continue
        assert samples.describe(index)[1] == samples[index].label == label
        found.append(set(samples.label_names(label)))
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_reads_lists(source: Any, tmp_path: Path) -> None:
    samples = open_split(source(tmp_path / "a", KINDS), "train")
    assert samples.classes == ["red", "round", "square"]
    last = set() if source is csv_folder else None  # an empty cell is an empty list
    assert told(samples) == [*WANTED[:-1], last]
    counts = samples.class_counts()
    assert counts is not None and counts.tolist() == [3, 3, 1]
    empty = 2 if source is csv_folder else 1
    said = "; ".join(samples.notes(1))
    assert f"{empty} of 6 samples are of no class" in said
    assert ("1 of 6 samples do not say their classes" in said) == (source is not csv_folder)
    survey = survey_split(samples)
    assert survey.counts == [3, 3, 1]
    assert [first[1] for first in survey.first] == ["red, round", "round", ""]


def test_other_splits_are_numbered_as_training(tmp_path: Path) -> None:
    train = json_folder(tmp_path / "a", KINDS)
    section = train.model_copy(update={"val": json_folder(tmp_path / "b", [["square"]]).train})
    val = open_val(section, None, seed=0)
    assert (val.classes, told(val)) == (["red", "round", "square"], [{"square"}])


def test_numbers_are_places_in_names(tmp_path: Path) -> None:
    section = parquet(tmp_path / "a", [[0, 2], [1], []]).model_copy(
        update={"classes": ["cat", "dog", "cow"]}
    )
    assert told(open_split(section, "train")) == [{"cat", "cow"}, {"dog"}, set()]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1, 0, 0, 1], [0, 1, 0, 0]], r"every list has 4 entries, each 0 or 1 .*: one for each"),
        ([["red"], [{"a": 1}]], r"kind': \S+: label .* is an object"),
        ([["red"], [0.5]], r"is a fraction"),
    ],
)
def test_what_is_no_list_of_labels(labels: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_split(json_folder(tmp_path / "a", labels), "train")


def test_a_stranger_is_counted_and_too_many_are_an_error(tmp_path: Path) -> None:
    labels = [["red"], ["round", "red"], ["blue"]]
    section = json_folder(tmp_path / "a", labels).model_copy(update={"classes": ["red", "round"]})
    samples = open_split(section, "train")
    found = samples.labels()
    assert found is not None and found.tolist() == [0, 1, -1]
    assert "label 'blue' is not among the classes" in "; ".join(samples.notes(1))
    with pytest.raises(DataError, match="so are the labels of 1 of 3 samples"):
        open_split(section.model_copy(update={"max_skipped": 0.0}), "train")


def test_class_folders_name_one_class(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "f" / name).mkdir(parents=True)
        (tmp_path / "f" / name / "0.png").write_bytes(picture(0))
    with pytest.raises(DataError, match=r"data\.labels 'many': a folder names one class"):
        open_split(FolderData(train=str(tmp_path / "f"), labels="many"), "train")


def test_a_class_in_a_caption_is_all_of_them(tmp_path: Path) -> None:
    section = json_folder(tmp_path / "a", KINDS)
    samples = open_split(section.model_copy(update={"captions": ["things: {class}"]}), "train")
    assert samples.captions(0) == ("things: red, round",)


def test_a_share_is_held_out_of_each_rarest_class(tmp_path: Path) -> None:
    """Nearly all sets of labels differ, so that sharing out by sets would hold nothing out."""
    labels = [["all", f"kind{n % 2}", f"own{n}"][: 2 + (n % 5 > 0)] for n in range(40)]
    section = json_folder(tmp_path / "a", labels)
    parts = section.model_copy(update={"hold_out": 0.25})
    val, train = open_val(parts, None, seed=0), open_split(parts, "train")
    assert len(val) + len(train) == 40 and 1 <= len(val) <= 10
    assert {*told_names(val), *told_names(train)} == set(train.classes or [])


def told_names(samples: SampleSet) -> set[str]:
    return {name for one in told(samples) for name in one or ()}


def test_parts_of_a_mixture_keep_their_sets(tmp_path: Path) -> None:
    one = json_folder(tmp_path / "a", KINDS)
    other = shards(tmp_path / "b", [["square"], ["red", "round"], ["round"]])
    mixed = MixtureData.model_validate({"parts": [{"data": one}, {"data": other}]})
    samples = open_split(mixed, "train")
    assert told(samples) == [*WANTED, {"square"}, {"red", "round"}, {"round"}]
    single = one.model_copy(update={"labels": "one", "label": "file_name"})
    with pytest.raises(DataError, match=r"classes differ|'many' of some and 'one'"):
        mixed = MixtureData.model_validate({"parts": [{"data": one}, {"data": single}]})
        open_split(mixed, "train")


def test_what_is_packed_is_the_same_set(tmp_path: Path) -> None:
    section = json_folder(tmp_path / "a", KINDS)
    packed = pack(section, tmp_path / "out", PackSettings(short_side=32), workers=0)
    assert isinstance(packed.section, ShardsData) and packed.section.labels == "many"
    assert told(open_split(packed.section, "train")) == WANTED[:-1]
    assert [name for name, _ in packed.skipped] == ["5.png"]  # neither label nor caption


def test_sets_as_a_matrix() -> None:
    sets = LabelSets.of([(0, 2), (), (1,)], 3)
    wanted = [[1, 0, 1], [0, 0, 0], [0, 0, 0], [0, 1, 0], [1, 0, 1]]
    labels = np.array([0, -1, 1, 2, 0])
    assert sets.multi_hot(labels).astype(int).tolist() == wanted
    assert sets.counts(labels).tolist() == [2, 1, 2]
    assert sets.rarest(labels).tolist() == [0, -1, 3, 1, 0]
    joined = LabelSets.joined([sets, LabelSets.of([(1, 2)], 3)])
    assert [joined[number] for number in range(4)] == [[0, 2], [], [1], [1, 2]]


def test_scenes_have_the_colours_and_shapes_of_both_things() -> None:
    samples = open_split(ScenesData(train=40, labels="many"), "train")
    for index, names in enumerate(told(samples)):
        caption = samples.captions(index)[0]
        assert names == {name for name in samples.classes or [] if name in caption.split()}
    plain = open_split(ScenesData(train=40), "train")
    assert plain.label_sets is None and plain.fingerprint() != samples.fingerprint()


def recipe(drawn: DataSection, **changes: Any) -> Any:
    values = {
        "name": "r",
        "model": {"name": "ViT-B-32"},
        "data": drawn.model_dump(exclude_defaults=True) | {"kind": drawn.kind},
        "objective": {"kind": "classify"},
        "optim": {"samples_seen": 8},
    }
    return parse_recipe(values | changes, where="r")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": {"kind": "classify", "head": "probe"}}, "objective.head: 'probe' with"),
        ({"objective": {"kind": "classify", "calibrate": True}}, "objective.calibrate: true with"),
        ({"objective": {"kind": "clip", "templates": ["a {}"]}}, "objective.templates: "),
        ({"adapt": {"kind": "tip_adapter"}}, "adapt.kind: 'tip_adapter' with data.labels 'many'"),
        ({"distill": {"from": "runs/a"}}, "distill: with data.labels 'many'"),
        ({"evaluate": [{"kind": "probe"}]}, "evaluate.0.kind: 'probe' with data.labels 'many'"),
        (
            {"evaluate": [{"kind": "classify", "data": {"kind": "scenes"}}]},
            "evaluate.0.data.labels: 'one', and the head learns 'many'",
        ),
        (
            {"evaluate": [{"kind": "classify"}], "early_stop": {"metric": "f1"}},
            "allowed: all_first, macro_f1, map, micro_f1",
        ),
    ],
)
def test_what_means_nothing_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(ScenesData(labels="many"), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shots": 2}, "shots: 2 with labels: many"),
        ({"resample": "class"}, "resample: 'class' with labels: many"),
        ({"boxes": "objects", "label": None}, "boxes: 'objects' with labels: many"),
        ({"labels": "one", "label_separator": ";"}, "label_separator: ';' with labels: one"),
    ],
)
def test_keys_of_data_that_mean_nothing(changes: dict[str, Any], message: str) -> None:
    values = {"kind": "folder", "train": ".", "label": "kind", "labels": "many", **changes}
    with pytest.raises(RecipeError, match=message):
        recipe(ScenesData(), **{"data": values, "objective": {"kind": "clip"}})


def test_a_set_is_pickled_with_its_sets(tmp_path: Path) -> None:
    """Workers read what the process would."""
    samples = open_split(json_folder(tmp_path / "a", KINDS), "train")
    preprocess, read = ImagePreprocess(size=(32, 32)), []
    for workers in (0, 1):
        batches = eval_batches(samples, preprocess=preprocess, batch=2, workers=workers)
        read.append([batch.labels.tolist() for batch in batches if batch.labels is not None])
    assert read[0] == read[1] and sum(map(len, read[0])) == len(KINDS) - 1
