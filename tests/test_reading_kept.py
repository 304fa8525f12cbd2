"""Models from before they said how they read pictures: gone on with, and mixed with newer ones."""

from pathlib import Path

import pytest

from ptft.errors import ModelError
from ptft.model import save_model
from ptft.model.average import check_alike
from ptft.preprocess import ImagePreprocess
from ptft.preprocess.decoding import OLDER, READING
from ptft.train.setup import keep_reading
from tests import tiny
from tests.test_preprocess_decoding import age


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
