"""Nearest neighbours of a run: held against a loop in float64, and kept over a resume."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ptft.artifact import RunFiles
from ptft.data import open_split
from ptft.data.sample import Subset
from ptft.model import DualEncoder, load_model
from ptft.report.neighbours.find import record_neighbours
from ptft.report.neighbours.record import Answer, read_neighbours
from tests.support.runs import interrupt, recipe, run


def neighbours(folder: Path) -> Any:
    found = read_neighbours(folder)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("neighbours") / "run"
    assert run(folder, data__val=40).finished
    return folder


def in_double(model: DualEncoder, section: Any) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Embeddings of the val split, pictures and captions, one at a time."""
    samples, spec = open_split(section, "val"), model.spec
    model = model.double().eval()
    images, texts, captions = [], [], []
    with torch.no_grad():
        for index in range(len(samples)):
            sample = samples[index]
            pixels = torch.from_numpy(spec.preprocess(sample.image))[None].double()
            tokens = torch.from_numpy(spec.tokenizer([sample.captions[0]]))
            images.append(F.normalize(model.encode_image(pixels), dim=-1))
            texts.append(F.normalize(model.encode_text(tokens), dim=-1))
            captions.append(sample.captions[0])
    return torch.cat(images), torch.cat(texts), captions


def test_answers_are_those_of_a_loop_in_float64(finished: Path) -> None:
    section = recipe(finished, data__val=40).data
    images, texts, captions = in_double(load_model(finished), section)
    labels = open_split(section, "val").labels()
    assert labels is not None
    answers: list[Answer] = neighbours(finished).after
    assert [answer.kind for answer in answers] == [
        kind
        for kind in ("text_to_picture", "picture_to_text", "picture_to_picture")
        for _ in range(4)
    ]
    for answer in answers:
        if answer.text is not None:
            query = captions.index(answer.text)
            scores, right = images @ texts[query], [text == answer.text for text in captions]
        elif answer.kind == "picture_to_text":
            query = int(answer.picture or "")
            scores, right = texts @ images[query], [text == captions[query] for text in captions]
        else:
            query = int(answer.picture or "")
            scores, right = images @ images[query], (labels == labels[query]).tolist()
            scores[query], right[query] = -2.0, False
        order = scores.argsort(descending=True).tolist()
        shown = [
            captions.index(one.text) if one.text is not None else int(one.picture or "")
            for one in answer.found
        ]
        # in order but for what float32 cannot tell apart
        best = scores[order[: len(shown)]]
        assert torch.allclose(scores[shown], best, atol=1e-6)
        assert [one.right for one in answer.found] == [right[place] for place in shown]
        first = next((rank for rank, place in enumerate(order, 1) if right[place]), None)
        assert answer.rank == first
    known = neighbours(finished)
    assert known.source == "scenes, val: 40 of 40 pictures"
    shown_keys = {one.picture for answer in answers for one in answer.found if one.picture}
    assert shown_keys <= known.pictures.keys()
    assert all(known.pictures[key].says == captions[int(key)] for key in shown_keys)


def test_before_and_after_ask_the_same(finished: Path) -> None:
    known = neighbours(finished)
    asked = [
        [(one.kind, one.text, one.picture) for one in part] for part in (known.before, known.after)
    ]
    assert asked[0] == asked[1]
    assert known.before != known.after


def test_what_was_found_before_outlives_a_resume(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    interrupt(monkeypatch, folder, 4, data__val=40)
    cut = neighbours(folder)
    assert (len(cut.before), cut.after) == (12, [])
    assert run(folder, resume=True, data__val=40).finished
    assert neighbours(folder) == neighbours(finished)


def test_looking_moves_no_weight_no_mode_and_no_random_number(
    finished: Path, tmp_path: Path
) -> None:
    model = load_model(finished)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    assert record_neighbours(tmp_path, recipe(finished), model, "before", total=100) == ""
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_classifier_is_asked_for_its_classes(tmp_path: Path) -> None:
    assert run(tmp_path / "run", objective__kind="classify").finished
    known = neighbours(tmp_path / "run")
    assert (known.texts, known.right) == ("classes", "same class")
    model = load_model(tmp_path / "run")
    samples = open_split(recipe(tmp_path / "run").data, "val")
    assert samples.classes is not None
    for answer in known.after:
        if answer.kind != "picture_to_text":
            continue
        sample = samples[int(answer.picture or "")]
        pixels = torch.from_numpy(model.spec.preprocess(sample.image))[None]
        with torch.no_grad():
            best = model.eval().classify(pixels)[0].argsort(descending=True)[:3].tolist()
        assert [one.text for one in answer.found] == [model.spec.classes[place] for place in best]
        assert [one.right for one in answer.found] == [place == sample.label for place in best]


def test_many_samples_are_drawn_by_the_seed(finished: Path, tmp_path: Path) -> None:
    model, given = load_model(finished), recipe(finished, data__val=2000, seed=3)
    assert record_neighbours(tmp_path, given, model, "before", total=100) == ""
    known = neighbours(tmp_path)
    assert known.source == "scenes, val: 256 of 2,000 pictures"
    drawn = Subset(open_split(given.data, "val"), 256, 3)
    assert {picture.name for picture in known.pictures.values()} == {
        drawn.name(int(key)) for key in known.pictures
    }


def test_a_recipe_that_evaluates_nothing_says_why_nothing_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.run_page import page, pictures

    data = {"kind": "folder", "train": str(pictures(tmp_path / "train", 32))}
    assert run(tmp_path / "run", data=data, optim__samples_seen=16).finished
    assert neighbours(tmp_path / "run").reason.startswith("the recipe evaluates nothing")
    assert "Not shown: the recipe evaluates nothing" in page(tmp_path / "run").words


def test_a_set_that_cannot_be_read_costs_a_line_and_not_the_run(tmp_path: Path) -> None:
    from tests.support.run_page import pictures

    train = pictures(tmp_path / "train", 32)
    data = {"kind": "folder", "train": str(train), "val": str(tmp_path / "absent")}
    assert run(tmp_path / "run", data=data, optim__samples_seen=16).finished
    assert "absent" in neighbours(tmp_path / "run").reason


def test_a_recipe_can_do_without(tmp_path: Path) -> None:
    assert run(tmp_path / "run", run__neighbours=False, optim__samples_seen=16).finished
    assert not (tmp_path / "run" / RunFiles.NEIGHBOURS).exists()
    assert "nearest" not in (tmp_path / "run" / RunFiles.PAGE).read_text().partition("<script>")[0]


def test_a_model_that_is_too_slow_to_ask_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptft.report.neighbours import find as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "CPU_FLOP", 1e4)
        assert run(tmp_path / "run", optim__samples_seen=16).finished
    assert "would take too long" in neighbours(tmp_path / "run").reason
    assert json.loads((tmp_path / "run" / RunFiles.RUN).read_text())["status"] == "finished"
