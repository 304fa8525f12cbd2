"""An adapter in its folder: whole, of one base, and the same model when it comes back."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ptft.errors import AdaptError, ArtifactError
from ptft.model import DualEncoder, apply_adapt, check_merged, load_adapter, merge, save_adapter
from ptft.model.adapt import attach, base_digest, reference_outputs
from ptft.model.adapt.saved import ADAPTER, ADAPTER_WEIGHTS
from ptft.recipe import ClipObjective, LoraAdapt
from tests.support import tiny


def plain() -> DualEncoder:
    return tiny.build(tiny.arch_section())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = plain()
    apply_adapt(model, LoraAdapt(rank=2, towers=["text"]), ClipObjective())
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1
    save_adapter(model, tmp_path)
    return tmp_path


def test_what_is_written(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == [ADAPTER, ADAPTER_WEIGHTS]
    values = json.loads((saved / ADAPTER).read_text())
    assert values["section"]["kind"] == "lora"
    assert values["section"]["towers"] == ["text"]
    assert values["base"] == {"digest": base_digest(plain()), "source": None, "name": "tiny-vit"}
    tensors = load_file(saved / ADAPTER_WEIGHTS)
    learned = {name for name in tensors if not name.startswith("reference/")}
    assert all(name.startswith("text.") and ".lora_" in name for name in learned - {"logit_scale"})
    assert len(learned) == 2 * 3 * 2 + 1


def change(folder: Path, name: str, change: object) -> None:
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name])  # type: ignore[operator]
    save_file(tensors, folder / ADAPTER_WEIGHTS)


FIRST = "text.transformer.resblocks.0.attn.q_proj.lora_B.default.weight"


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        (FIRST, None, f"missing: {FIRST}"),
        (FIRST, lambda t: t[:1].clone(), f"left over or of another shape: {FIRST}"),
        (FIRST, lambda t: t + 5, "the adapter on this base: text embeddings differ .* by"),
        ("reference/texts", lambda t: t * torch.nan, "text embeddings differ .* by nan"),
        ("reference/texts", None, "no reference/texts"),
    ],
)
def test_a_spoiled_adapter_is_refused(saved: Path, name: str, how: object, message: str) -> None:
    change(saved, name, how)
    with pytest.raises(AdaptError, match=message):
        load_adapter(plain(), saved)


def test_other_formats_and_kinds_are_refused(saved: Path) -> None:
    values = json.loads((saved / ADAPTER).read_text())
    (saved / ADAPTER).write_text(json.dumps({**values, "format": 9}))
    with pytest.raises(AdaptError, match="format 9; this ptft reads 1"):
        load_adapter(plain(), saved)
    section = {**values["section"], "kind": "unheard"}
    (saved / ADAPTER).write_text(json.dumps({**values, "section": section}))
    with pytest.raises(AdaptError, match="unheard"):
        load_adapter(plain(), saved)
    (saved / ADAPTER).unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        load_adapter(plain(), saved)


def test_a_plain_model_has_nothing_to_save(tmp_path: Path) -> None:
    with pytest.raises(AdaptError, match="tiny-vit: carries no adapter"):
        save_adapter(plain(), tmp_path)
    assert merge(plain()).spec.adapter is None


def test_the_same_seed_gives_the_same_start_and_the_global_state_is_left_alone() -> None:
    models = [plain() for _ in range(3)]
    rng = torch.get_rng_state()
    for model, seed in zip(models, (1, 1, 2), strict=True):
        attach(model, LoraAdapt(), seed=seed)
    assert torch.equal(torch.get_rng_state(), rng)
    first, same, other = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_merged_model_that_differs_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = plain()
    reference = reference_outputs(model)
    assert check_merged(reference, model) == 0.0
    with torch.no_grad():
        model.image.proj[0, 0] += 0.01
    with pytest.raises(AdaptError, match=r"the merged model: image embeddings differ .* by \d"):
        check_merged(reference, model)

    model = plain()
    apply_adapt(model, LoraAdapt(), ClipObjective())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter += 0.3
    layer = model.text.transformer.resblocks[0].attn.q_proj
    monkeypatch.setattr(layer, "merge", lambda safe_merge: None)  # one that is forgotten
    with pytest.raises(AdaptError, match="text embeddings differ"):
        merge(model)
