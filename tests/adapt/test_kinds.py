"""Every kind of adapter on every family of towers: starts as the base, learns, merges, comes back.

Two models hold the three families: open_clip's own towers; a timm ViT beside a transformers BERT.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ptft.compat import import_open_clip
from ptft.errors import AdaptError
from ptft.export.graph import write_graph
from ptft.export.parity import run_apart
from ptft.export.towers import text_tower
from ptft.model import (
    DualEncoder,
    apply_adapt,
    check_trains,
    init_head,
    load_adapter,
    load_model,
    merge,
    open_clip_state_dict,
    save_adapter,
    save_model,
)
from ptft.model.adapt import adapter_names, rebuild
from ptft.model.towers import build_towers
from ptft.recipe import (
    BottleneckAdapt,
    ClassifyObjective,
    ClipObjective,
    DoraAdapt,
    Ia3Adapt,
    LoraAdapt,
    PrefixAdapt,
    ProjectionAdapt,
    SiglipObjective,
)
from ptft.recipe.adapt import Adapter
from tests.support import tiny
from tests.support.adapting import assert_same, outputs, step_of, train

ADAPTERS: dict[str, Adapter] = {
    "lora": LoraAdapt(rank=4),
    "lora everywhere": LoraAdapt(
        targets=["q", "k", "v", "out", "fc1", "fc2", "conv"], dropout=0.2, rslora=True
    ),
    "dora": DoraAdapt(rank=2, dropout=0.1, targets=["q", "k", "v", "out", "fc2"]),
    "ia3": Ia3Adapt(),
    "bottleneck": BottleneckAdapt(width=4),
    "prefix": PrefixAdapt(length=3),
    "deep prefix": PrefixAdapt(length=2, depth="deep"),
    "projection": ProjectionAdapt(),
}
STAYS = ("bottleneck", "prefix")
MODELS = ("open_clip", "timm and transformers")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], DualEncoder]:
    folder = tiny.hf_text_folder(tmp_path_factory.mktemp("bert"))
    section = tiny.hf_section(
        folder, image="test_vit", image_args={"depth": 2}, image_size=48, text_pool="mean_pooler"
    )
    built = {"open_clip": tiny.build(tiny.arch_section()), "timm and transformers": None}
    built["timm and transformers"] = tiny.build(section)
    return lambda name: copy.deepcopy(built[name])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ADAPTERS)
def test_the_whole_way(
    kind: str, name: str, base: Callable[[str], DualEncoder], tmp_path: Path
) -> None:
    model, plain, objective = base(name), base(name), ClipObjective()
    before, weights = outputs(plain), plain.state_dict()
    apply_adapt(model, ADAPTERS[kind], objective, seed=3)
    stays = ADAPTERS[kind].kind in STAYS
    if ADAPTERS[kind].kind != "prefix":
        assert_same(outputs(model), before)

    # 1. What learns does, and nothing else moves.
    check_trains(model, step_of(model, objective), scale_learns=True)
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert set(adapter_names(model)) <= learning
    start = {n: t.clone() for n, t in model.state_dict().items()}
    train(model, objective)
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, start[n])}
    assert moved == learning
    trained = outputs(model)
    assert max(float((a - b).abs().max()) for a, b in zip(trained, before, strict=True)) > 1e-3

    # 2. A checkpoint of it, read back, is a plain model that gives the same.
    save_model(model, tmp_path / "checkpoint")
    again = load_model(tmp_path / "checkpoint")
    assert_same(outputs(again), trained)
    if stays:
        assert again.spec.open_clip_config is None
    else:
        assert again.spec.adapter is None
        assert {n: t.shape for n, t in again.state_dict().items()} == {
            n: t.shape for n, t in weights.items()
        }
        torch.nn.Module.load_state_dict(base(name), again.state_dict(), strict=True)

    # 3. Saved alone, it belongs to its base, and to no other.
    save_adapter(model, tmp_path / "adapter")
    assert_same(outputs(load_adapter(base(name), tmp_path / "adapter")), trained)
    other = base(name)
    with torch.no_grad():
        next(other.text.parameters()).view(-1)[0] += 1e-3
    with pytest.raises(AdaptError, match=r"adapter: an adapter of .* \(weights [0-9a-f]{12}\)"):
        load_adapter(other, tmp_path / "adapter")
    assert other.spec.adapter is None

    # 4. Merged, it is the plain architecture; open_clip takes its weights.
    merge(model)
    assert_same(outputs(model), trained)
    if name == "open_clip" and not stays:
        theirs = import_open_clip().create_model("tiny-vit")
        theirs.load_state_dict(open_clip_state_dict(model), strict=True)
        with torch.no_grad():
            image_bd = F.normalize(theirs.eval().encode_image(tiny.pictures(model, 4)), dim=-1)
        torch.testing.assert_close(image_bd, trained[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_text_prefix_leaves_trimming_exact(base: Callable[[str], DualEncoder]) -> None:
    """What comes after the end mark must not reach a word through the prefix."""
    for name in MODELS:
        for depth in ("shallow", "deep"):
            model = base(name)
            apply_adapt(model, PrefixAdapt(length=3, depth=depth), ClipObjective(), seed=1)
            for key in adapter_names(model):
                nn.init.normal_(model.get_parameter(key))
            model.eval()
            tokens = tiny.tokens(model, ["a cat", "a"])
            whole = model.encode_text(tokens)
            for length in (5, 9):
                torch.testing.assert_close(
                    model.encode_text(tokens[:, :length]), whole, atol=1e-5, rtol=0
                )
            filled = tokens.clone()
            if name == "open_clip":  # causal: ids lower than the end mark's change nothing
                filled[:, 9:] = 320
                torch.testing.assert_close(model.encode_text(filled), whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_prefix_against_a_loop(base: Callable[[str], DualEncoder]) -> None:
    """Tokens before the words, seen by all, that see each other alone; written out by hand."""
    model = base("open_clip").double()
    apply_adapt(model, PrefixAdapt(length=2, depth="deep", towers=["text"]), ClipObjective())
    text, tokens = model.text.eval(), tiny.tokens(model)[:, :6]
    for block in text.transformer.resblocks:
        nn.init.normal_(block.prefix.tokens)
    found = model.encode_text(tokens)
    x = text.token_embedding(tokens) + text.positional_embedding[:6]
    allowed = torch.zeros(8, 8, dtype=torch.bool)
    allowed[:, :2] = True
    allowed[2:, 2:] = torch.ones(6, 6).tril().bool()
    for block in text.transformer.resblocks:
        x = torch.cat([block.prefix.tokens.expand(3, -1, -1), x], dim=1)
        h = block.ln_1(x)
        q, k, v = F.linear(h, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, dim=-1)
        heads = []
        for head in range(block.attn.num_heads):
            part = slice(head * 16, head * 16 + 16)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / 4
            heads.append(scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ v[..., part])
        x = x + block.attn.out_proj(torch.cat(heads, dim=-1))
        x = (x + block.mlp(block.ln_2(x)))[:, 2:]
    end = tokens.argmax(dim=1)
    expected = text.ln_final(x)[torch.arange(3), end] @ text.text_projection
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


ONNX = [
    ("open_clip", PrefixAdapt(length=3)),
    ("timm and transformers", PrefixAdapt(length=3)),
]


@torch.no_grad()
@pytest.mark.parametrize(("name", "adapt"), ONNX, ids=lambda v: getattr(v, "kind", v))
def test_what_stays_is_in_the_onnx_file(
    name: str, adapt: Adapter, base: Callable[[str], DualEncoder], tmp_path: Path
) -> None:
    model = base(name)
    _one_block(model)
    apply_adapt(model, adapt.model_copy(update={"towers": ["text"]}), ClipObjective())
    for key in adapter_names(model):
        nn.init.normal_(model.get_parameter(key), std=0.3)
    model.eval()
    tower, tokens = text_tower(model), tiny.tokens(model)
    inputs = {"short": tokens[:2, :7], "whole": tokens}
    write_graph(tower, tmp_path / "tower.onnx")
    found = run_apart(tmp_path / "tower.onnx", {key: rows.numpy() for key, rows in inputs.items()})
    for key, rows in inputs.items():
        expected = F.normalize(tower.module(rows), dim=-1)
        unit = F.normalize(torch.from_numpy(found[key]), dim=-1)
        torch.testing.assert_close(unit, expected, atol=1e-5, rtol=0)


def _one_block(model: DualEncoder) -> None:
    """An export takes seconds a block."""
    if hasattr(model.text.transformer, "encoder"):
        model.text.transformer.encoder.layer = model.text.transformer.encoder.layer[:1]
    else:
        model.text.transformer.resblocks = model.text.transformer.resblocks[:1]


def test_lora_of_rank_8_on_vit_b_32_is_a_hundredth_of_it() -> None:
    model = tiny.build(tiny.arch_section())
    config = import_open_clip().get_model_config("ViT-B-32")
    with torch.device("meta"):
        model.image, model.text = build_towers(config)
        whole = sum(p.numel() for p in model.parameters())
        section = LoraAdapt().model_dump(mode="json")
        model.spec = model.spec.with_(adapter={"section": section, "base": ""})
        rebuild(model)
    learned = sum(model.get_parameter(name).numel() for name in adapter_names(model))
    assert learned == 12 * 3 * 2 * 8 * (768 + 512)
    assert learned <= 0.01 * whole


def test_batch_statistics_and_unread_towers_stay(base: Callable[[str], DualEncoder]) -> None:
    model = tiny.build(tiny.towers_section(), ClassifyObjective())
    objective = ClassifyObjective()
    init_head(model, ["cat", "dog"], objective, seed=0)
    said = apply_adapt(model, LoraAdapt(logit_scale=False), objective)
    assert said.startswith("lora in image tower, head: ")
    assert not model.logit_scale.requires_grad
    assert not [name for name in adapter_names(model) if name.startswith("text.")]
    buffers = {n: b.clone() for n, b in model.named_buffers()}
    check_trains(model, step_of(model, objective), scale_learns=False)
    train(model, objective)
    assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())
    model.train()
    assert not model.text.training
    assert model.image.training

    kept = tiny.build(tiny.arch_section(), objective)
    init_head(kept, ["cat", "dog"], objective, seed=0)
    apply_adapt(kept, ProjectionAdapt(), objective)
    learning = {n for n, p in kept.named_parameters() if p.requires_grad}
    assert learning == {"image.proj", "logit_scale"}
    kept.train()
    assert not kept.image.training

    siglip = tiny.build(tiny.arch_section("tiny-siglip"), SiglipObjective())
    apply_adapt(siglip, Ia3Adapt(towers=["text"], projections=True), SiglipObjective())
    whole = {n for n, p in siglip.named_parameters() if p.requires_grad} - set(
        adapter_names(siglip)
    )
    text = {"text.text_projection.weight", "text.text_projection.bias"}
    assert whole == {*text, "logit_scale", "logit_bias"}
