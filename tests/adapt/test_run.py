"""Adapters in a run: resumed exactly, left merged and alone, exported as they were trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ptft.artifact import FolderFiles, RunFiles, read_model_info
from ptft.checkpoint import checkpoints
from ptft.errors import AdaptError
from ptft.export import export_model
from ptft.export.model_files import write_model_files
from ptft.export.parity import check_adapted, find_reference
from ptft.model import build_model, load_adapter, load_model
from ptft.model.adapt import Reference, compare_outputs, reference_outputs
from ptft.model.adapt.saved import ADAPTER_WEIGHTS
from ptft.model.store import OWN_WEIGHTS
from ptft.model_source import resolve
from ptft.train import run as loop_module
from tests.support.runs import interrupt, largest_difference, recipe, run

KINDS: dict[str, dict[str, Any]] = {
    "lora": {"adapt": {"kind": "lora", "dropout": 0.2, "projections": True}, "optim__ema": 0.9},
    "prefix": {"adapt": {"kind": "prefix", "length": 2, "depth": "deep"}},
}
SMALL = {"model__image_args": {"depth": 1}, "optim__samples_seen": 64}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {**SMALL, **KINDS[kind]}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert run(whole, **changes).finished
    if kind == "lora":
        interrupt(monkeypatch, cut, 3, **changes)
        assert run(cut, resume=True, **changes).finished
        assert largest_difference(whole, cut) == 0.0
        learned = load_file(cut / RunFiles.ADAPTER / ADAPTER_WEIGHTS)
        for name, tensor in load_file(whole / RunFiles.ADAPTER / ADAPTER_WEIGHTS).items():
            assert torch.equal(learned[name], tensor), name

    # The model that is left, the adapter on its base, and the newest checkpoint are one.
    final = load_model(whole)
    trained = reference_outputs(final)
    settings = recipe(tmp_path / "unused", **changes)
    base = build_model(settings.model, None, settings.objective, seed=settings.seed).eval()
    names = set(base.state_dict())
    assert float((reference_outputs(base).images - trained.images).abs().max()) > 1e-4
    compare_outputs(
        trained, reference_outputs(load_adapter(base, whole / RunFiles.ADAPTER)), "the adapter"
    )
    if kind == "lora":  # an average was kept: the checkpoint has the raw weights
        assert set(final.state_dict()) == names
    else:
        newest = max((whole / RunFiles.CHECKPOINTS).iterdir())
        compare_outputs(trained, reference_outputs(load_model(newest)), "the checkpoint")
        assert final.spec.open_clip_config is None
        write_model_files(final, tmp_path / "folder")
        assert not (tmp_path / "folder" / FolderFiles.OPEN_CLIP_CONFIG).exists()
        compare_outputs(
            trained, reference_outputs(load_model(tmp_path / "folder")), "the model folder"
        )


def test_an_export_is_held_against_the_model_as_it_trained(tmp_path: Path) -> None:
    folder, out = tmp_path / "run", tmp_path / "out"
    changes = {**SMALL, "adapt": {"kind": "dora", "towers": ["image"]}, "optim__lr": 0.01}
    run(folder, **changes)
    export_model(folder, out, precisions=())
    reference = find_reference(resolve(folder / RunFiles.FINAL))
    assert reference is not None
    model = load_model(out)
    assert check_adapted(reference, model, out) < 1e-5
    spoiled = Reference(reference.images + 2e-5, reference.texts)
    with pytest.raises(AdaptError, match="image embeddings differ"):
        check_adapted(spoiled, model, out)
    assert find_reference(resolve(folder)) is not None
    (newest, *_) = checkpoints(folder / RunFiles.CHECKPOINTS)
    assert find_reference(resolve(newest)) is None

    # What learned travels alone, too, and back onto its own base only.
    settings = recipe(tmp_path / "unused", **changes)
    base = build_model(settings.model, None, settings.objective, seed=settings.seed).eval()
    alone = load_adapter(base, out / FolderFiles.ADAPTER)
    compare_outputs(reference, reference_outputs(alone), "the adapter on its base")
    other = build_model(settings.model, None, settings.objective, seed=settings.seed + 1)
    with pytest.raises(AdaptError, match=r"an adapter of .* this model is"):
        load_adapter(other, out / FolderFiles.ADAPTER)
    size = (out / FolderFiles.ADAPTER / ADAPTER_WEIGHTS).stat().st_size
    assert size < (out / OWN_WEIGHTS).stat().st_size / 2
    again = export_model(out, tmp_path / "again", precisions=())
    assert again.files == read_model_info(out).files, "the folder holds all that the run did"


def test_the_gate_stands_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = loop_module.set_up

    def broken(*args: Any) -> Any:
        setup = plain(*args)
        setup.model.spare = torch.nn.Parameter(torch.ones(1))
        return setup

    monkeypatch.setattr(loop_module, "set_up", broken)
    with pytest.raises(AdaptError, match="no gradient reaches it: spare"):
        run(tmp_path / "run", **SMALL)
    assert not list((tmp_path / "run").rglob("model.safetensors"))
