"""A row of ``resume_anywhere``: what happened at one place."""

from dataclasses import dataclass, field
from statistics import fmean, median

__all__ = ["HEAD", "Row"]

HEAD = f"{'place':<22}{'kills':>6}{'max |dW|':>10}{'lost steps':>11}{'most':>7}"
HEAD += f"{'back (s)':>10}{'most':>7}{'passed over':>13}"


@dataclass
class Row:
    """Kills, the largest |dW| against a run that nothing interrupts, steps that were lost and
    seconds until the first new one, each by kill, and checkpoints that were passed over."""

    kills: int = 0
    max_dw: float = 0.0
    lost: list[int] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    passed_over: int = 0

    def line(self, name: str) -> str:
        return (
            f"{name:<22}{self.kills:>6}{self.max_dw:>10.1e}{fmean(self.lost or [0]):>11.1f}"
            f"{max(self.lost, default=0):>7}{median(self.back or [0.0]):>10.1f}"
            f"{max(self.back, default=0.0):>7.1f}{self.passed_over:>13}"
        )

    def figures(self, place: str) -> dict[str, float]:
        """By the names of the bench."""
        return {
            f"{place}_kills": self.kills,
            f"{place}_max_abs_dw": self.max_dw,
            f"{place}_lost_steps": round(fmean(self.lost or [0]), 2),
            f"{place}_back_s": round(median(self.back or [0.0]), 2),
            f"{place}_passed_over": self.passed_over,
        }
