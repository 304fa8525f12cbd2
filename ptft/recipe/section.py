"""The base of every section of a recipe."""

from pydantic import BaseModel, ConfigDict

__all__ = ["LONGEST_NAME", "Section"]

LONGEST_NAME = 100
"""Characters of what files and folders are named by, where several names join in one of 255."""


class Section(BaseModel):
    """A closed, frozen set of keys: an unknown key is an error, nothing changes after loading.

    Numbers are finite: none of a recipe's could mean anything otherwise.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
