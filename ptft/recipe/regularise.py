"""The regularise section of a recipe."""

from typing import Annotated, Literal

from pydantic import Field

from ptft.recipe.section import Section

__all__ = ["RegulariseSection"]


class RegulariseSection(Section):
    """Keep what learns near the weights that it starts from.

    The penalty ``start * sum ||w - w0||^2`` joins the objective (L2-SP, Li et al. 2018); with
    ``adapt.kind: projection`` it is the last projections' alone (ProLIP, Fahes et al. 2024). w0 is
    what the run starts with. Parts that start at random are not held: new towers and projections,
    and a head drawn at random; nor are the logit scale and bias. A head made of prompts or of a
    probe is held. ``optim.weight_decay`` pulls towards zero beside it: set it to 0 for the penalty
    alone.
    """

    start: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | Literal["auto"]
    """Strength of the penalty; ``auto``: 1 / N of N training samples, and with ``classify`` of N
    samples a class on average, which are ProLIP's shots. It is a part of the gradient, so an
    adaptive optimiser (``adamw``) scales it as it does the rest."""
