"""Tables that are read in order: in files, saved, and on the Hub at a revision."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from huggingface_hub import HfApi

from ptft.data.open import open_split
from ptft.data.reading.order import Order
from ptft.errors import DataError, MissingExtraError, RecipeError
from ptft.recipe.data import TableData
from tests.support.loopback_hub import LoopbackHub
from tests.support.saved_tables import grey_of, save_dataset
from tests.support.shards import picture, write_parquet, write_tar


def _streams(tmp_path: Path) -> dict[str, TableData]:
    """The same 47 rows streamed from parquet, from a saved dataset, and from a folder that is laid
    out as a repository of the Hub is."""
    values = {"streaming": True, "window": 10, "captions": ["{text}"]}
    write_parquet(tmp_path / "p-0.parquet", 25, group=8)
    write_parquet(tmp_path / "p-1.parquet", 22, first=25, group=8)
    save_dataset(tmp_path / "saved", 47)
    repo = tmp_path / "repo"
    (repo / "data").mkdir(parents=True)
    for number in range(2):
        name = f"train-{number:05d}-of-00002.parquet"
        (repo / "data" / name).write_bytes((tmp_path / f"p-{number}.parquet").read_bytes())
    (repo / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - {name: image, dtype: image}\n"
        "  - {name: text, dtype: string}\n  - {name: tags, list: string}\n"
        "  - {name: kind, dtype: int64}\n"
        "  splits:\n  - {name: train, num_examples: 47, num_bytes: 1}\n"
        "configs:\n- config_name: default\n  data_files:\n"
        "  - {split: train, path: data/train-*}\n---\n"
    )
    return {
        "parquet": TableData(train=str(tmp_path / "p-*.parquet"), **values),
        "saved": TableData(train=str(tmp_path / "saved"), **values),
        "repository": TableData(train=str(repo), **values),
    }


@pytest.mark.parametrize("kind", ["parquet", "saved", "repository"])
def test_a_stream_loses_and_repeats_no_row_and_goes_on_anywhere(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    section = _streams(tmp_path)[kind]
    samples = open_split(section, "train")
    assert (len(samples), samples.window, samples.blocks) == (47, 10, None)
    order = Order(47, 5, samples.window, samples.blocks)
    run = [samples[order[position]].captions[0] for position in range(94)]
    for epoch in (run[:47], run[47:]):
        assert sorted(epoch) == sorted(f"grey {i}" for i in range(47))
        for start in range(0, 47, 10):  # shuffled, but only within windows
            window = epoch[start : start + 10]
            expected = [f"grey {i}" for i in range(start, min(start + 10, 47))]
            assert sorted(window) == sorted(expected) and window != expected
    assert run[:47] != run[47:]
    for start in (0, 13, 46, 47, 90):  # resumed by another process
        fresh = pickle.loads(pickle.dumps(open_split(section, "train")))
        again = [fresh[order[position]].captions[0] for position in range(start, 94)]
        assert again == run[start:]
    assert grey_of(samples, 30) == 30


def test_a_part_of_a_stream_is_read_in_order_too(tmp_path: Path) -> None:
    path = str(write_parquet(tmp_path / "p.parquet", 400))
    section = TableData(train=path, streaming=True, window=100, limit=80)
    samples = open_split(section, "train", seed=3)
    assert len(samples) == 80 and samples.window == 10
    order = Order(80, 0, samples.window, samples.blocks)
    numbers = [
        int(samples.captions(order[position])[0].removeprefix("grey ")) for position in range(80)
    ]
    assert len(set(numbers)) == 80 and numbers != sorted(numbers)
    for start in range(0, 80, 10):  # two windows of the stream are all that it keeps
        assert len({number // 100 for number in numbers[start : start + 10]}) <= 2


def test_a_stream_with_labels_needs_its_classes(tmp_path: Path) -> None:
    path = str(write_parquet(tmp_path / "p.parquet", 12))
    section = TableData(train=path, streaming=True, label="kind")
    with pytest.raises(DataError, match=r"data\.classes: missing"):
        open_split(section, "train")
    samples = open_split(section.model_copy(update={"classes": ["x", "y", "z"]}), "train")
    assert samples[5].label == 2
    assert samples.labels() is None


def test_a_stream_that_does_not_say_how_long_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    section = _streams(tmp_path)["repository"]
    (tmp_path / "repo" / "README.md").unlink()
    with pytest.raises(DataError, match=r"data\.train: .* does not say how many rows 'train' has"):
        open_split(section, "train")


def test_without_datasets_the_line_that_installs_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "datasets" else found(name)
    )
    monkeypatch.delitem(sys.modules, "datasets")
    (tmp_path / "d").mkdir()
    with pytest.raises(MissingExtraError, match=r"pip install '\.\[datasets\]'"):
        open_split(TableData(train=str(tmp_path / "d")), "train")


def test_two_revisions_are_an_error() -> None:
    section = TableData(train="org/name@v2:train", revision="v1")
    with pytest.raises(RecipeError, match=r"data\.revision: 'v1'; data\.train has 'v2'"):
        open_split(section, "train")


READ_FROM_HUB = """
from ptft.data import open_split
from ptft.recipe.data import TableData

for train, revision, streaming in (
    ("tester/greys", "v1", False), ("tester/greys@v1:train", None, True)
):
    section = TableData(train=train, revision=revision, streaming=streaming, window=10)
    samples = open_split(section, "train")
    captions = [samples[index].captions[0] for index in (0, 19, 12)]
    print(len(samples), samples.window, captions, samples[5].image.size, samples.name(3))
try:
    open_split(TableData(train="tester/greys:tset", revision="v1"), "train")
except Exception as error:
    print(error)
"""


# huggingface_hub uploads through a deprecated argument of httpx
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_dataset_on_the_hub_is_read_at_its_revision(tmp_path: Path) -> None:
    """By the real client in a process of its own, whose Hub is on this machine."""
    _streams(tmp_path)
    with LoopbackHub(token="hf_test") as hub:
        api = HfApi(endpoint=hub.url, token="hf_test")
        api.create_repo("tester/greys", repo_type="dataset")
        api.upload_folder(
            repo_id="tester/greys", repo_type="dataset", folder_path=tmp_path / "repo"
        )
        api.create_tag("tester/greys", repo_type="dataset", tag="v1")
        api.delete_file("README.md", "tester/greys", repo_type="dataset")  # v1 still has it
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", READ_FROM_HUB],
            env={**os.environ, **hub.env(), "HF_HOME": str(tmp_path / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert "Traceback" not in done.stderr, done.stderr
    greys = "['grey 0', 'grey 19', 'grey 12'] (8, 6) tester/greys/3"
    assert done.stdout.splitlines() == [
        f"47 None {greys}",
        f"47 10 {greys}",
        "data.train: 'tester/greys': no split 'tset'; allowed: train",
    ]


def test_a_set_that_is_neither_here_nor_to_be_asked_for_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not after each of the client's retries; how long it takes is not measured here."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(DataError, match=r"no such folder here; not in the cache; cannot reach"):
        open_split(TableData(train="nobody/nothing"), "train")
    assert not datasets.config.HF_HUB_OFFLINE


def test_what_datasets_would_unpickle_is_not_opened(tmp_path: Path) -> None:
    """Of a tar it reads a ``.pth`` by torch.load; shards are read by ``data.kind: shards``."""
    write_tar(tmp_path / "train.tar", {"a.png": picture(1), "a.pth": b"\x80\x04N."})
    section = TableData(train=str(tmp_path), image="png", captions=["x"])
    with pytest.raises(DataError, match=r"files of kind 'webdataset'; allowed: csv, .*: shards"):
        open_split(section, "train")
