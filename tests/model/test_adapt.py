"""What learns, what stays, and the class head."""

import pytest
import torch
import torch.nn.functional as F

from ptft.errors import ModelError
from ptft.model import DualEncoder, apply_adapt, class_head, init_head
from ptft.recipe import (
    AdaptSection,
    ClassifyObjective,
    ClipObjective,
    FullAdapt,
    ObjectiveSection,
    ProbeAdapt,
    SiglipObjective,
)
from tests.support import tiny
from tests.support.plain_step import TrainBatch, compute_objective

CLASSES = ["cat", "red circle", "dog {x}"]
ADAPTS = [FullAdapt(), FullAdapt(lock=["image"]), FullAdapt(lock=["text"]), ProbeAdapt()]
OBJECTIVES = [ClipObjective(), SiglipObjective(), ClassifyObjective()]
KINDS = ["tiny-vit", "tiny-resnet", "towers", "bert"]


def fresh(kind: str, objective: ObjectiveSection, folder_of: pytest.TempPathFactory) -> DualEncoder:
    if kind == "bert":
        folder = tiny.hf_text_folder(folder_of.mktemp("bert"))
        model = tiny.build(tiny.hf_section(folder, text_pool="cls_pooler"), objective)
    elif kind == "towers":
        model = tiny.build(tiny.towers_section(image_projection="mlp"), objective)
    else:
        model = tiny.build(tiny.arch_section(kind), objective)
    if isinstance(objective, ClassifyObjective):
        init_head(model, CLASSES, objective, seed=0)
    return model


def one_step(model: DualEncoder, objective: ObjectiveSection) -> None:
    model.train()
    batch = TrainBatch(
        images=tiny.pictures(model, 3),
        tokens=tiny.tokens(model),
        caption_ids=torch.arange(3),
        labels=torch.tensor([0, 1, 2]),
    )
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2, weight_decay=0.1)
    compute_objective(objective, model, batch).loss.backward()
    optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.kind)
@pytest.mark.parametrize("adapt", ADAPTS, ids=lambda a: a.kind + "-".join(getattr(a, "lock", [])))
def test_what_learns_moves_and_nothing_else(
    kind: str,
    objective: ObjectiveSection,
    adapt: AdaptSection,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    model = fresh(kind, objective, tmp_path_factory)
    said = apply_adapt(model, adapt, objective)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one_step(model, objective)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    moved = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    buffers = {name for name, _ in model.named_buffers()}
    assert moved - buffers <= learning
    assert learning, said
    locked = {"image", "text"} if adapt.kind == "probe" else set(adapt.lock)
    if objective.kind == "classify":
        locked.add("text")
    assert not [name for name in moved & buffers if name.split(".")[0] in locked]

    if adapt.kind == "probe" and objective.kind == "classify":
        assert learning == {"head.weight", "head.bias"}
        assert said.startswith("head: ")
    elif adapt.kind == "probe":
        projections = {n for n in learning if not n.startswith("logit_")}
        assert projections <= {
            "image.proj", "text.text_projection",
            "image.attnpool.c_proj.weight", "image.attnpool.c_proj.bias",
            "image.head.mlp.fc1.weight", "image.head.mlp.fc1.bias", "image.head.mlp.fc2.weight",
            "image.head.proj.weight", "text.proj.weight",
        }  # fmt: skip
        assert len({name.split(".")[0] for name in projections}) == 2
        assert "logit_scale" in learning
    assert ("logit_bias" in learning) == (objective.kind == "siglip")


def test_locked_towers_stay_in_eval_mode() -> None:
    model = tiny.build(tiny.towers_section(), ClipObjective())
    apply_adapt(model, FullAdapt(lock=["image"]), ClipObjective())
    model.train()
    assert not model.image.trunk.training
    assert model.image.head.training
    assert model.text.training
    model.eval()
    assert not model.image.head.training
    apply_adapt(model, FullAdapt(), ClipObjective())
    model.train()
    assert model.image.trunk.training


def test_unread_parts_do_not_learn() -> None:
    """A logit bias under InfoNCE gets no gradient; an optimiser would let it decay."""
    model = tiny.build(tiny.arch_section(), SiglipObjective())
    apply_adapt(model, FullAdapt(), ClipObjective())
    assert model.logit_bias is not None
    assert not model.logit_bias.requires_grad


@torch.no_grad()
def test_class_head_against_a_loop() -> None:
    model = tiny.build(tiny.arch_section())
    model.train()
    templates = ["a photo of a {}.", "{}", "the {} of {}"]
    rows = class_head(model, CLASSES, templates)
    assert model.training
    model.eval()
    for name, row in zip(CLASSES, rows, strict=True):
        total = torch.zeros(24, dtype=torch.float64)
        for template in templates:
            prompt = name.join(template.split("{}"))
            embedding = model.encode_text(tiny.tokens(model, [prompt]))[0].double()
            total += embedding / embedding.norm()
        torch.testing.assert_close(row.double(), total / total.norm(), atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_head_of_prompts_is_zero_shot() -> None:
    model = tiny.build(tiny.arch_section(), ClassifyObjective())
    objective = ClassifyObjective(templates=["a {}"])
    init_head(model, CLASSES, objective, seed=0)
    images = tiny.pictures(model, 4)
    expected = (
        F.normalize(model.encode_image(images), dim=-1) @ class_head(model, CLASSES, ["a {}"]).T
    )
    logits = model.classify(images)
    torch.testing.assert_close(logits, model.logit_scale.exp() * expected)
    assert model.spec.classes == tuple(CLASSES)
    assert model.spec.templates == ("a {}",)


def test_init_head() -> None:
    model = tiny.build(tiny.arch_section(), ClassifyObjective())
    with pytest.raises(ModelError, match="no classifier"):
        model.classify(tiny.pictures(model))
    with pytest.raises(ModelError, match="needs a head"):
        apply_adapt(model, FullAdapt(), ClassifyObjective())
    random = ClassifyObjective(head="random")
    init_head(model, ["a", "b"], random, seed=1)
    assert model.head is not None
    first = model.head.weight.detach().clone()
    torch.testing.assert_close(first.norm(dim=1), torch.ones(2))
    with torch.no_grad():
        model.head.weight.add_(1)
    init_head(model, ["a", "b"], random, seed=1)  # the same classes: training goes on
    assert torch.equal(model.head.weight, first + 1)
    init_head(model, ["b", "a"], random, seed=1)
    assert torch.equal(model.head.weight, first)
    with pytest.raises(ModelError, match="needs data with classes"):
        init_head(model, None, random, seed=0)
    with pytest.raises(ModelError, match="named twice: a"):
        init_head(model, ["a", "b", "a"], random, seed=0)
    with pytest.raises(ModelError, match=r"lacks \{\}"):
        class_head(model, ["a"], ["a photo"])
