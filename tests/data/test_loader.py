"""Batches: the same whatever reads them, whole when samples are broken."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from ptft.data.hashing import text_id
from ptft.data.open import open_split
from ptft.data.reading.batch import BatchSpec, EvalBatch
from ptft.data.reading.loader import eval_batches, train_batches, worker_count
from ptft.data.sample import Sample, SampleSet
from ptft.errors import DataError, RecipeError
from ptft.preprocess import TextTokenizer, clip_bpe_json
from ptft.recipe.data import DataSection, FolderData, ScenesData, ShardsData, TableData
from tests.support.batches import AUGMENT, PREPROCESS, batches_of, joined, same
from tests.support.shards import picture, write_pairs, write_parquet, write_tar


@pytest.fixture(scope="module")
def sections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DataSection]:
    """One section of each kind; the shards and the folder hold broken samples."""
    folder = tmp_path_factory.mktemp("data")
    write_pairs(folder / "s-0.tar", 17)
    files = {f"{i}.png": picture(100 + i) for i in range(9)}
    files |= {f"{i}.txt": f"other {i}".encode() for i in range(9)}
    files["3.png"] = files["3.png"][:50]
    write_tar(folder / "s-1.tar", dict(sorted(files.items())))
    for number in range(20):
        path = folder / "classes" / f"c{number % 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number) if number != 7 else b"no picture")
    write_parquet(folder / "p.parquet", 40)
    return {
        "scenes": ScenesData(train=40, val=10, size=32),
        "shards": ShardsData(train=str(folder / "s-{0,1}.tar")),
        "folder": FolderData(train=str(folder / "classes"), captions=["a {label}", "the {label}"]),
        "table": TableData(train=str(folder / "p.parquet"), captions=["{text}", "{tags}"]),
        "stream": TableData(train=str(folder / "p.parquet"), streaming=True, window=15),
    }


KINDS = ["scenes", "shards", "folder", "table", "stream"]


@pytest.mark.parametrize("kind", KINDS)
def test_workers_change_nothing(sections: dict[str, DataSection], kind: str) -> None:
    samples = open_split(sections[kind], "train")
    alone = joined(batches_of(samples))
    state = torch.get_rng_state()
    assert same(alone, joined(batches_of(samples, workers=1 if kind == "table" else 2)))
    assert torch.equal(torch.get_rng_state(), state), "loading draws from the run's own generator"


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_share_the_same_global_batches(sections: dict[str, DataSection], kind: str) -> None:
    samples = open_split(sections[kind], "train")
    alone = joined(batches_of(samples))
    for world in (2, 3, 4):
        ranks = [batches_of(samples, rank=rank, world=world) for rank in range(world)]
        in_order = [batch for step in zip(*ranks, strict=True) for batch in step]
        assert same(alone, joined(in_order))
    with pytest.raises(RecipeError, match=r"optim\.global_batch: 12 over 5 ranks"):
        batches_of(samples, world=5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_goes_on_as_if_nothing_had_happened(
    sections: dict[str, DataSection], kind: str
) -> None:
    whole = joined(batches_of(open_split(sections[kind], "train")))
    for stopped in (12, 36, 84):  # within the first epoch, and in later ones
        samples = open_split(sections[kind], "train")  # another process
        parts = batches_of(samples, end=stopped) + batches_of(samples, start=stopped)
        assert same(whole, joined(parts))


def test_every_epoch_visits_each_sample_once_and_differs(
    sections: dict[str, DataSection],
) -> None:
    samples = open_split(sections["table"], "train")
    names = joined(batches_of(samples, end=120, size=20))["names"]
    epochs = [names[start : start + 40] for start in (0, 40, 80)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(samples.name(i) for i in range(40))
    assert epochs[0] != epochs[1] != epochs[2]
    assert joined(batches_of(samples, seed=2))["names"] != joined(batches_of(samples))["names"]


def test_a_batch_holds_what_its_names_say() -> None:
    samples = open_split(ScenesData(train=30, size=32), "train")
    by_name = {samples.name(i): samples[i] for i in range(30)}
    for batch in batches_of(samples, augment=None, end=60):
        assert batch.images.dtype == torch.uint8 and batch.images.shape == (12, 16, 16, 3)
        assert batch.tokens is not None and batch.caption_ids is not None
        assert batch.labels is not None
        for row, name in enumerate(batch.names):
            sample = by_name[name]
            assert np.array_equal(batch.images[row].numpy(), PREPROCESS.pixels(sample.image))
            caption = "".join(chr(code) for code in batch.tokens[row].tolist() if code)
            assert caption in {text[:80] for text in sample.captions}
            said, shown = batch.caption_ids[row].tolist()
            assert said in {text_id(text) for text in sample.captions}
            assert name == samples.name(shown)
            assert batch.labels[row].item() == sample.label


def test_all_captions_of_a_sample_are_drawn_and_augmentation_changes_with_each_visit() -> None:
    samples = open_split(ScenesData(train=1, size=32), "train")
    batches = batches_of(samples, end=96)
    ids = {number for batch in batches for number, _ in batch.caption_ids.tolist()}  # type: ignore[union-attr]
    assert ids == {text_id(text) for text in samples.captions(0)}
    pictures = {batch.images[row].numpy().tobytes() for batch in batches for row in range(12)}
    assert len(pictures) == 96


def test_equal_captions_have_equal_ids_and_others_differ(
    sections: dict[str, DataSection],
) -> None:
    whole = joined(batches_of(open_split(sections["folder"], "train")))
    for (one, a), (other, b) in itertools.combinations(
        zip(whole["caption_ids"].tolist(), whole["tokens"].tolist(), strict=True), 2
    ):
        assert (one[0] == other[0]) == (a == b)


def test_broken_samples_are_replaced_counted_and_named(
    sections: dict[str, DataSection],
) -> None:
    samples = open_split(sections["shards"], "train")
    assert len(samples) == 26
    batches = batches_of(samples, end=104, size=26)  # four epochs
    assert [len(batch.images) for batch in batches] == [26] * 4
    for batch in batches:
        ((name, reason, fault),) = set(batch.skipped)
        assert name == "s-1.tar/3" and "s-1.tar/3" not in reason and fault == "corrupt"
        assert "s-1.tar/3" not in batch.names
        assert len(set(batch.names)) == 25  # one came twice, in place of the broken one


def test_evaluation_leaves_broken_samples_out(sections: dict[str, DataSection]) -> None:
    samples = open_split(sections["shards"], "train")
    for workers in (0, 1):
        batches = list(eval_batches(samples, preprocess=PREPROCESS, batch=4, workers=workers))
        indices = torch.cat([batch.indices for batch in batches]).tolist()
        assert indices == [index for index in range(26) if index != 20]
        assert [skip.name for batch in batches for skip in batch.skipped] == ["s-1.tar/3"]
        captions = [caption for batch in batches for caption in batch.captions]
        assert captions == [samples.captions(index) for index in indices]
        pictures = torch.cat([batch.images for batch in batches]).numpy()
        for row, index in enumerate(indices):
            assert np.array_equal(pictures[row], PREPROCESS.pixels(samples[index].image))


def test_evaluation_yields_no_empty_batch(tmp_path: Path) -> None:
    files = {}
    for number, fine in enumerate([0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0]):
        files[f"{number:02d}.png"] = picture(number) if fine else b"broken"
        files[f"{number:02d}.txt"] = b"x"
    samples = open_split(ShardsData(val=str(write_tar(tmp_path / "t.tar", files))), "val")
    batches: list[EvalBatch] = list(
        eval_batches(samples, preprocess=PREPROCESS, batch=2, workers=0)
    )
    assert [batch.indices.tolist() for batch in batches] == [[3], [4, 5], [10]]
    assert sorted(skip.name for batch in batches for skip in batch.skipped) == [
        f"t.tar/{number:02d}" for number in (0, 1, 2, 6, 7, 8, 9, 11, 12, 13)
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_that_cannot_be_read_is_an_error(tmp_path: Path, workers: int) -> None:
    files = {f"{i}.{ext}": b"?" for i in range(9) for ext in ("png", "txt")}
    samples = open_split(ShardsData(train=str(write_tar(tmp_path / "t.tar", files))), "train")
    message = r"^none of 9 samples could be read; first: t\.tar/\d: not a picture \(1 bytes\)$"
    with pytest.raises(DataError, match=message):
        batches_of(samples, workers=workers)
    with pytest.raises(DataError, match=message):
        list(eval_batches(samples, preprocess=PREPROCESS, batch=2, workers=workers))


def test_what_a_run_needs_of_a_sample_depends_on_the_tokenizer(tmp_path: Path) -> None:
    files = {f"{i}.png": picture(i) for i in range(6)}
    files |= {f"{i}.cls": b"1" for i in range(3)} | {f"{i}.txt": b"x" for i in range(2, 6)}
    path = str(write_tar(tmp_path / "t.tar", dict(sorted(files.items()))))
    samples = open_split(ShardsData(train=path, classes=["a", "b"]), "train")
    spoken = joined(batches_of(samples))
    assert set(spoken["names"]) == {f"t.tar/{i}" for i in (2, 3, 4, 5)}
    assert set(spoken["skipped"]) == {(f"t.tar/{i}", "it has no caption", "empty") for i in (0, 1)}
    labelled = batches_of(samples, tokenizer=None)
    assert labelled[0].tokens is None and labelled[0].caption_ids is None
    whole = joined(labelled)
    assert set(whole["names"]) == {f"t.tar/{i}" for i in (0, 1, 2)}
    assert set(whole["labels"].tolist()) == {1}


def test_a_broken_window_is_mended_from_itself(tmp_path: Path) -> None:
    """A stream need not read ahead, or back, for what takes the place of a broken row."""

    class Windowed(SampleSet):
        window = 5

        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> Sample:
            from ptft.errors import SampleError

            if index in (3, 4, 11):
                raise SampleError(f"{index}: broken")
            return open_split(ScenesData(train=20, size=32), "train")[index]

        def name(self, index: int) -> str:
            return str(index)

        def captions(self, index: int) -> tuple[str, ...]:
            return ("x",)

    names = joined(batches_of(Windowed(), end=20, size=5, augment=None))["names"]
    for start in range(0, 20, 5):
        assert {int(name.rpartition("/")[2]) // 5 for name in names[start : start + 5]} == {
            start // 5
        }


def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a process that reads data died .*run\.workers: 0"):
        batches_of(Deadly(), workers=1)


class Deadly(SampleSet):
    """Kills the process that reads it, as running out of memory does."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def name(self, index: int) -> str:
        return str(index)

    def captions(self, index: int) -> tuple[str, ...]:
        return ()


def test_leaving_early_leaves_no_process_behind() -> None:
    import multiprocessing

    samples = open_split(ScenesData(train=64, size=32), "train")
    batches = train_batches(
        samples,
        BatchSpec(
            preprocess=PREPROCESS,
            size=8,
            tokenizer=TextTokenizer(clip_bpe_json(), context_length=32),
            augment=AUGMENT,
        ),
        start=0,
        end=64_000,
        workers=2,
    )
    assert next(batches).images.shape == (8, 16, 16, 3)
    assert len(multiprocessing.active_children()) == 2
    batches.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


KILLED = """
import multiprocessing, time
from ptft.data import BatchSpec, open_split, train_batches
from ptft.preprocess import ImagePreprocess
from ptft.recipe import AugmentSection, ScenesData

spec = BatchSpec(ImagePreprocess(size=(16, 16)), size=8, augment=AugmentSection())
samples = open_split(ScenesData(train=64, size=32), "train")
batches = train_batches(samples, spec, start=0, end=64_000, workers=2)
next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


def test_a_run_that_is_killed_leaves_no_process_behind() -> None:
    import subprocess
    import sys
    import time

    command = [sys.executable, "-c", KILLED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        workers = [Path(f"/proc/{pid}") for pid in run.stdout.readline().split()]
        assert len(workers) == 2
        assert all(worker.is_dir() for worker in workers)
        run.kill()
    deadline = time.monotonic() + 60
    while any(worker.is_dir() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(worker.is_dir() for worker in workers)


def test_auto_takes_few_workers() -> None:
    scenes = open_split(ScenesData(), "train")
    assert worker_count(3, scenes, jobs=1, world=1) == 3
    assert worker_count("auto", scenes, jobs=2, world=1) == 0
    assert 1 <= worker_count("auto", scenes, jobs=1000, world=1) <= 8
    assert worker_count("auto", scenes, jobs=1000, world=1024) == 1
