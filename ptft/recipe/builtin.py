"""The recipes that come with ptft: in the wheel beside the code, in a checkout at the top."""

from pathlib import Path

from ptft.errors import RecipeError, suggest

__all__ = ["builtin_recipes", "find_recipe"]


def _folder() -> Path:
    package = Path(__file__).resolve().parent.parent
    shipped = package / "recipes"
    return shipped if shipped.is_dir() else package.parent / "recipes"


def builtin_recipes() -> dict[str, Path]:
    """Names such as ``pretrain/scenes`` and the YAML file of each, sorted by name."""
    folder = _folder()
    found = sorted(folder.glob("*/*.yaml"))
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def find_recipe(name: str) -> Path:
    """The file that ``name`` means: a path, or the name of a recipe that comes with ptft.

    Raises:
        RecipeError: neither exists; the message offers the near misses.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = builtin_recipes()
    short = name.removeprefix("recipes/").removesuffix(".yaml")
    if short in known:
        return known[short]
    raise RecipeError(f"recipe {name!r}: no such file or built-in recipe; {suggest(short, known)}")
