"""Models from before they said how they read pictures: gone on with, and mixed with newer ones."""

from pathlib import Path

import pytest

from ptft.artifact import RunFiles
from ptft.errors import ModelError
from ptft.mix import mix
from ptft.model import save_model
from ptft.model.average import check_alike
from ptft.model.spec import load_spec
from ptft.preprocess import ImagePreprocess
from ptft.preprocess.decoding import OLDER, READING
from ptft.train.setup import keep_reading
from tests.support import tiny
from tests.support.picture_files import age
from tests.support.runs import interrupt, run


def test_a_run_goes_on_as_it_began(tmp_path: Path) -> None:
    model = tiny.build(tiny.arch_section())
    keep_reading(model, tmp_path)  # no checkpoint yet
    assert model.spec.preprocess.reading == READING
    step = tmp_path / "checkpoints" / "step-00000004"
    save_model(model, step)
    keep_reading(model, tmp_path)
    assert model.spec.preprocess.reading == READING
    age(step)
    keep_reading(model, tmp_path)
    assert model.spec.preprocess == ImagePreprocess.from_config(
        model.spec.preprocess.open_clip_config()
    )
    assert model.spec.preprocess.reading == OLDER


def test_a_start_may_read_otherwise_but_the_models_of_a_soup_not() -> None:
    one, two = tiny.build(tiny.arch_section(), seed=0), tiny.build(tiny.arch_section(), seed=1)
    spec = two.spec
    two.spec = spec.with_(
        preprocess=ImagePreprocess.from_config(spec.preprocess.open_clip_config())
    )
    check_alike(one, two, names=("one", "two"), reading=False)
    with pytest.raises(ModelError, match=r"they differ in preprocess\.reading\.background"):
        check_alike(one, two, names=("one", "two"))


def test_a_resumed_run_does_not_turn_its_pictures_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "cut"
    interrupt(monkeypatch, folder, 2, run__checkpoint_every=1)
    for step in (folder / RunFiles.CHECKPOINTS).iterdir():
        age(step)
    assert run(folder, resume=True, run__checkpoint_every=1).finished
    assert load_spec(folder / RunFiles.FINAL).preprocess.reading == OLDER


def test_a_mix_reads_as_what_was_trained(tmp_path: Path) -> None:
    for seed, name in enumerate(("start", "one", "two")):
        save_model(tiny.build(tiny.arch_section(), seed=seed), tmp_path / name)
    age(tmp_path / "one")
    one, two, start = (str(tmp_path / name) for name in ("one", "two", "start"))
    mix([one], tmp_path / "mixed", base=start, alphas=[0.5])
    assert load_spec(tmp_path / "mixed").preprocess.reading == OLDER
    for base in (None, start):
        with pytest.raises(ModelError, match=r"two cannot be mixed: they differ in preprocess\.re"):
            mix([one, two], tmp_path / "no", base=base, alphas=[] if base is None else [0.5])
    age(tmp_path / "two")
    mix([one, two], tmp_path / "both", base=start, alphas=[0.5])
    assert load_spec(tmp_path / "both").preprocess.reading == OLDER
