"""Class heads: from the names of the classes through the text tower, from a linear probe, or at
random."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ptft.errors import ModelError
from ptft.model.encoder import DualEncoder
from ptft.model.towers import seeded
from ptft.preprocess import TextTokenizer
from ptft.recipe import ClassifyObjective

__all__ = ["FitHead", "class_head", "init_head"]

FitHead = Callable[[], tuple[Tensor, Tensor]]
"""Fits a probe to a model, and gives it as rows (C, D) and biases (C,) of the model's head."""

_BATCH = 256  # prompts encoded at once


@torch.no_grad()
def class_head(
    model: DualEncoder,
    classes: Sequence[str],
    templates: Sequence[str],
    tokenizer: TextTokenizer | None = None,
) -> Tensor:
    """One embedding a class, as CLIP's zero-shot classifier has them (Radford et al. 2021).

    Each class is put in place of ``{}`` in every template; the L2-normalised embeddings of its
    prompts are averaged and normalised again.

    Args:
        tokenizer: the model's own unless given.

    Returns:
        float32 (C, D), rows of length 1, on the model's device.

    Raises:
        ModelError: there are no classes or no templates, or a template lacks ``{}``.
    """
    if not classes or not templates:
        raise ModelError("a class head needs at least one class and one template")
    for template in templates:
        if "{}" not in template:
            raise ModelError(f"template {template!r}: it lacks {{}}, where the class name goes")
    tokenizer = tokenizer or model.spec.tokenizer
    prompts = [template.replace("{}", name) for name in classes for template in templates]
    training = model.training
    model.eval()
    rows = []
    for start in range(0, len(prompts), _BATCH):
        tokens = tokenizer.trim(tokenizer(prompts[start : start + _BATCH]))
        embedding = model.encode_text(torch.from_numpy(tokens).to(model.device))
        rows.append(F.normalize(embedding.float(), dim=-1))
    model.train(training)
    mean_cd = torch.cat(rows).reshape(len(classes), len(templates), -1).mean(dim=1)
    return F.normalize(mean_cd, dim=-1)


def init_head(
    model: DualEncoder,
    classes: Sequence[str] | None,
    section: ClassifyObjective,
    *,
    seed: int,
    fit: FitHead | None = None,
) -> bool:
    """Put a head on the model as the recipe's objective says.

    A head that is there for the same classes in the same order stays: training goes on with it.

    Args:
        fit: the probe, called where ``section.head`` is ``probe`` and no head stays.

    Returns:
        Whether its rows were drawn at random just now.

    Raises:
        ModelError: the data names no classes, or names one twice.
    """
    if not classes:
        raise ModelError("objective.kind: 'classify' needs data with classes; see data.classes")
    twice = sorted({name for name in classes if list(classes).count(name) > 1})
    if twice:
        raise ModelError(f"data.classes: named twice: {', '.join(twice)}")
    if model.head is not None and model.spec.classes == tuple(classes):
        return False
    if section.head == "prompts":
        model.set_head(class_head(model, classes, section.templates), classes, section.templates)
    elif section.head == "probe":
        assert fit is not None, "a probe is fitted by the caller, who has the data"
        rows, bias = fit()
        model.set_head(rows, classes, (), bias)
    else:
        with seeded(seed):
            rows = F.normalize(torch.randn(len(classes), model.spec.embed_dim), dim=-1)
        model.set_head(rows, classes, ())
    return section.head == "random"
