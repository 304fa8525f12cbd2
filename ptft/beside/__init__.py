"""Several models beside each other: what each measures by the same evaluations, as one page."""

from ptft.beside.box_part import BoxPart, box_part
from ptft.beside.class_part import ClassPart, class_part
from ptft.beside.measured import MeasuredModel, measured_model
from ptft.beside.page import write_beside

__all__ = [
    "BoxPart",
    "ClassPart",
    "MeasuredModel",
    "box_part",
    "class_part",
    "measured_model",
    "write_beside",
]
