"""The distillation section of a recipe."""

from pydantic import Field

from ptft.recipe.section import Section

__all__ = ["DistillSection"]


class DistillSection(Section):
    """Learn from a teacher's answers beside the objective's own (Hinton et al. 2015).

    ``clip`` and ``siglip``: the teacher's softmax over the batch is the target of the student's,
    both ways, as in open_clip. ``classify``: its class probabilities, by its own head where that
    has the same classes, else by the objective's templates. The teacher sees the student's crops.
    """

    from_: str = Field(alias="from")
    """The teacher: a run folder, a model folder, or ``org/repo@revision`` on the Hub. It takes
    pictures of the student's size; its tokenizer and pixel normalisation may be others."""
    weight: float = Field(default=1.0, ge=0.0)
    """Of the teacher's answers beside the objective."""
    temperature: float = Field(default=1.0, gt=0.0)
    """Divides both models' logits; their loss is multiplied by its square, so that gradients keep
    their size."""
    features: float = Field(default=0.0, ge=0.0)
    """Weight of the squared distance of the two models' normalised embeddings of an image and of a
    text, their mean; for ``clip`` and ``siglip``, and embeddings of one width."""
