"""The curves of a run as one picture, from its log alone."""

import json
from collections import defaultdict
from pathlib import Path

from ptft.artifact import RunFiles

__all__ = ["plot_curves"]

_LABELS = {
    "loss": "loss",
    "lr": "learning rate",
    "logit_scale": "logit scale (1/temperature)",
    "grad_norm": "gradient norm",
    "samples_per_second": "samples/s",
}
_SHARES = ("recall@", "top1", "top5", "mean_per_class", "ece")  # of an evaluation's figures


def plot_curves(folder: Path) -> Path | None:
    """Draw ``curves.png`` from ``metrics.jsonl``; None where nothing was logged yet.

    One panel for the loss, one for each scalar, one for the shares that an evaluation measured.
    """
    series: dict[str, list[tuple[float, float]]] = defaultdict(list)
    log = folder / RunFiles.LOG
    if not log.is_file():
        return None
    for line in log.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        for name, value in values.items():
            counted = "/" not in name or any(share in name for share in _SHARES)
            if name not in ("step", "seen") and counted and isinstance(value, int | float):
                series[name].append((values["seen"], value))
    if not series:
        return None
    panels: dict[str, list[str]] = {}
    for name in series:
        group, slash, _ = name.rpartition("/")
        panels.setdefault(group if slash else name, []).append(name)
    return _draw(folder / RunFiles.CURVES, panels, series)


def _draw(
    path: Path, panels: dict[str, list[str]], series: dict[str, list[tuple[float, float]]]
) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(5.0 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, (title, names) in zip(axes, panels.items(), strict=False):
        for name in names:
            x, y = zip(*series[name], strict=True)
            mark = "o" if len(x) < 4 else None
            axis.plot(x, y, marker=mark, markersize=3, label=name.rpartition("/")[2])
        axis.set_title(_LABELS.get(title, title), fontsize=10)
        axis.set_xlabel("samples seen", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25)
        if "/" in names[0]:
            axis.set_ylim(0.0, 1.0)
            axis.legend(fontsize=7, ncols=2)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.savefig(path, dpi=110)
    return path
