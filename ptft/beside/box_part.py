"""The part of a page that looks at what one detector found, picture by picture."""

from dataclasses import dataclass

from ptft.data import SampleSet
from ptft.evaluate.detect import Detections
from ptft.pages.chart import Bars, Chart
from ptft.report.boxes.charts import mistake_bars, precision_chart
from ptft.report.boxes.record import EvaluatedBoxes, found_boxes

__all__ = ["BoxPart", "box_part"]


@dataclass(frozen=True)
class BoxPart:
    """One model's answers to one evaluation.

    Attributes:
        found: pictures, the worst first, with what is there and what was found.
        curve: precision over recall.
        mistakes: how many answers there are of each kind.
    """

    found: EvaluatedBoxes
    curve: Chart
    mistakes: Bars


def box_part(samples: SampleSet, detections: Detections) -> BoxPart:
    """Look at what a detector found in a split.

    Args:
        samples: the split that was asked.
    """
    found = found_boxes(samples, detections)
    return BoxPart(found, precision_chart(found), mistake_bars(found))
