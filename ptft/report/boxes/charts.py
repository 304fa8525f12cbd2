"""Precision over recall of a detector's classes, and its mistakes, as charts."""

from ptft.pages.chart import Axis, Bars, Chart, Mark
from ptft.report.boxes.record import EvaluatedBoxes
from ptft.report.charts import figure_text

__all__ = ["mistake_bars", "precision_chart"]

_SHARES = [(0.0, "0%"), (0.25, "25%"), (0.5, "50%"), (0.75, "75%"), (1.0, "100%")]


def precision_chart(found: EvaluatedBoxes) -> Chart:
    """A line for each class, and beside its name the area below it: AP50."""
    marks, words = [], []
    for colour, (name, precision) in enumerate(found.curves.items()):
        area = figure_text(True, sum(precision) / len(precision))
        line = [(place / (len(precision) - 1), value) for place, value in enumerate(precision)]
        marks.append(Mark(name=name, value=area, colour=colour, line=line))
        words.append(f"{name} {area}")
    return Chart(
        "precision over recall",
        f"Precision over recall at an overlap of 0.5, by class: {'; '.join(words)}",
        Axis(0.0, 1.0, _SHARES, "recall"),
        Axis(0.0, 1.0, _SHARES),
        marks,
        note="at an overlap of 0.5",
    )


def mistake_bars(found: EvaluatedBoxes) -> Bars:
    """How many boxes there are of each kind."""
    rows = [(kind, float(count), f"{count:,}") for kind, count in found.counts.items()]
    return Bars("boxes", rows, f"answers from {figure_text(True, found.threshold)} on")
