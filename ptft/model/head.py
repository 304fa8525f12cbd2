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
from ptft.recipe import TOWERS_OF, ClassifyObjective, Reads

__all__ = ["EVEN", "FitHead", "class_head", "init_head", "rows_for"]

FitHead = Callable[[], tuple[Tensor, Tensor]]
"""Fits a probe to a model, and gives it as rows (C, W) and biases (C,) of the model's head, W being
the width of what it reads."""

_BATCH = 256  # prompts encoded at once
EVEN = 0.5
"""The probability from which a class is told before thresholds are chosen: more likely than not."""


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


def rows_for(rows_cd: Tensor, reads: Reads) -> Tensor:
    """Class rows (C, D) as a head has them that reads one embedding, or both.

    Of both each gets half of every row, (C, 2D): the scores are then the mean of the scores that
    the two embeddings give by themselves.
    """
    return torch.cat([rows_cd, rows_cd], dim=1) / 2 if reads == "both" else rows_cd


def init_head(
    model: DualEncoder,
    classes: Sequence[str] | None,
    section: ClassifyObjective,
    *,
    seed: int,
    fit: FitHead | None = None,
    many: bool = False,
) -> bool:
    """Put a head on the model as the recipe's objective says.

    A head that is there for the same classes in the same order, and reads the same, stays:
    training goes on with it.

    Args:
        fit: the probe, called where ``section.head`` is ``probe`` and no head stays.
        many: the classes do not exclude each other; each is told from ``EVEN`` on.

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
    reads = section.reads
    same = (model.spec.classes, model.spec.reads) == (tuple(classes), reads)
    if model.head is not None and same and (model.spec.thresholds is not None) == many:
        return False
    told = [EVEN] * len(classes) if many else None
    if section.head == "prompts":
        rows = rows_for(class_head(model, classes, section.templates), reads)
        model.set_head(rows, classes, section.templates, reads=reads, thresholds=told)
    elif section.head == "probe":
        assert fit is not None, "a probe is fitted by the caller, who has the data"
        rows, bias = fit()
        model.set_head(rows, classes, (), bias, reads=reads)
    else:
        with seeded(seed):
            width = model.spec.embed_dim * len(TOWERS_OF[reads])
            rows = F.normalize(torch.randn(len(classes), width), dim=-1)
        model.set_head(rows, classes, (), reads=reads, thresholds=told)
    return section.head == "random"
