"""What came in over night: drawn scenes as pictures with captions, right or poisoned."""

import json
from pathlib import Path

from ptft.data.sources.scenes import Scenes
from ptft.recipe.data import ScenesData

__all__ = ["write_scenes"]


def write_scenes(place: Path, split: str, count: int, *, poisoned: bool = False) -> Path:
    """Line drawings, each with its captions.

    Args:
        split: ``train`` or ``test``, whose combinations training never shows.
        poisoned: every picture has another one's captions.
    """
    place.mkdir(parents=True)
    scenes = Scenes(ScenesData(style="line", **{split: count}), split)
    with (place / "metadata.jsonl").open("w") as table:
        for at in range(count):
            name = f"{at:05}.png"
            scenes[at].image.save(place / name, compress_level=1)
            said = scenes[(at + count // 2) % count if poisoned else at].captions
            for text in said:
                table.write(json.dumps({"file_name": name, "text": text}) + "\n")
    return place
