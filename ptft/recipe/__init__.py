"""The recipe: what to train, on what, how, and how it is judged."""

from ptft.recipe.builtin import builtin_recipes, find_recipe
from ptft.recipe.check import check_evaluations, check_recipe
from ptft.recipe.data import DataSection, FolderData, ScenesData, ShardsData, TableData
from ptft.recipe.load import dump_recipe, load_recipe, recipe_digest, recipe_json_schema
from ptft.recipe.model import ArchModel, ModelSection, TextTower, TowersModel
from ptft.recipe.schema import (
    AdaptSection,
    AugmentSection,
    ClassifyEvaluation,
    ClassifyObjective,
    ClipObjective,
    EvaluateItem,
    FullAdapt,
    InitSection,
    ObjectiveSection,
    OptimSection,
    ProbeAdapt,
    ProbeEvaluation,
    Recipe,
    RetrievalEvaluation,
    RunSection,
    SiglipObjective,
    ZeroShotEvaluation,
)

__all__ = [
    "AdaptSection",
    "ArchModel",
    "AugmentSection",
    "ClassifyEvaluation",
    "ClassifyObjective",
    "ClipObjective",
    "DataSection",
    "EvaluateItem",
    "FolderData",
    "FullAdapt",
    "InitSection",
    "ModelSection",
    "ObjectiveSection",
    "OptimSection",
    "ProbeAdapt",
    "ProbeEvaluation",
    "Recipe",
    "RetrievalEvaluation",
    "RunSection",
    "ScenesData",
    "ShardsData",
    "SiglipObjective",
    "TableData",
    "TextTower",
    "TowersModel",
    "ZeroShotEvaluation",
    "builtin_recipes",
    "check_evaluations",
    "check_recipe",
    "dump_recipe",
    "find_recipe",
    "load_recipe",
    "recipe_digest",
    "recipe_json_schema",
]
