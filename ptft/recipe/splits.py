"""What of a data section is there to be read."""

from ptft.recipe.data import DataSection, MixtureData, TableData

__all__ = ["has_many_labels", "has_pictures", "has_split"]


def has_split(section: DataSection, split: str) -> bool:
    """Whether a data section has a split, of its own or held out of its training set."""
    if isinstance(section, MixtureData):
        return any(has_split(part.data, split) for part in section.parts)
    held_out = split == "val" and getattr(section, "hold_out", None) is not None
    return held_out or getattr(section, split) is not None


def has_pictures(section: DataSection) -> bool:
    """Whether the samples of a data section are said to have pictures."""
    if isinstance(section, MixtureData):
        return all(has_pictures(part.data) for part in section.parts)
    return not isinstance(section, TableData) or section.image is not None


def has_many_labels(section: DataSection) -> bool:
    """Whether a sample of a data section may have several classes."""
    if isinstance(section, MixtureData):
        return any(has_many_labels(part.data) for part in section.parts)
    return getattr(section, "labels", "one") == "many"
