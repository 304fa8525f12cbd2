"""What every arm of a comparison but scratch begins with."""

from ptft.compare.target import Target
from ptft.data.checks.marked import box_classes
from ptft.model import DualEncoder, build_model, init_head, prepare_detector
from ptft.recipe import ClassifyObjective, Comparison, DetectObjective

__all__ = ["put_head", "starting_model"]


def starting_model(comparison: Comparison, target: Target) -> tuple[DualEncoder, bool]:
    """Build the start: for classes with the head of their names, for boxes with a detector's.

    Returns:
        The model, and whether its detector is a new one, which has learned nothing.
    """
    objective = comparison.objective
    model = build_model(comparison.model, comparison.init, objective, seed=comparison.seed)
    new_detector = False
    put_head(model, target, comparison)
    if isinstance(objective, DetectObjective):
        had = model.detector
        prepare_detector(model, objective, box_classes(target.train), seed=comparison.seed)
        new_detector = model.detector is not had
    return model.eval(), new_detector


def put_head(model: DualEncoder, target: Target, comparison: Comparison) -> None:
    """Give a model of classes the head that the objective begins with."""
    objective, many = comparison.objective, target.train.label_sets is not None
    if isinstance(objective, ClassifyObjective):
        init_head(model, target.classes, objective, seed=comparison.seed, many=many)
