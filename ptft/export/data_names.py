"""What a set of data is called in public: its name, never the folder that it lay in."""

from pathlib import Path

from ptft.recipe import BoxesData, FolderData, ShardsData, TableData
from ptft.recipe.paths import is_hub_id
from ptft.recipe.publication import public_place

__all__ = ["public_names"]


def public_names(section: ShardsData | FolderData | TableData | BoxesData) -> list[str]:
    """Of each place that samples are trained on, its name on the Hub, or that of the last part of
    its path: the folders before it are of a machine, and nobody else's business."""
    train = section.train
    places = [train] if isinstance(train, str) else list(train or [])
    return [name if is_hub_id(name) else public_place(Path(name).name) for name in places]
