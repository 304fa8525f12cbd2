"""The recipe: what to train, on what, how, and how it is judged."""

from ptft.recipe.adapt import (
    AdapterSection,
    BottleneckAdapt,
    DoraAdapt,
    Ia3Adapt,
    LoraAdapt,
    PrefixAdapt,
    ProjectionAdapt,
    TipAdapterAdapt,
)
from ptft.recipe.check import check_evaluations, check_recipe
from ptft.recipe.comparison import ArmSection, CompareSection, Comparison, SearchRange
from ptft.recipe.data import (
    BoxesData,
    DataSection,
    FolderData,
    MixtureData,
    MixturePart,
    ScenesData,
    ShardsData,
    TableData,
    has_pictures,
)
from ptft.recipe.distill import DistillSection
from ptft.recipe.early_stop import EarlyStopSection
from ptft.recipe.evaluation import (
    ClassifyEvaluation,
    DetectEvaluation,
    EvaluateItem,
    ProbeEvaluation,
    RetrievalEvaluation,
    ZeroShotEvaluation,
    metrics_of,
)
from ptft.recipe.labels import SelfTrainSection
from ptft.recipe.load import (
    builtin_recipes,
    deciding_values,
    dump_recipe,
    find_recipe,
    load_comparison,
    load_recipe,
    recipe_digest,
    recipe_json_schema,
)
from ptft.recipe.measuring import load_evaluation
from ptft.recipe.model import ArchModel, ModelSection, TextTower, TowersModel
from ptft.recipe.objective import (
    ClassifyObjective,
    ClipObjective,
    DetectObjective,
    ObjectiveSection,
    SelfSupervisedObjective,
    SiglipObjective,
    read_towers,
    usual_nms,
)
from ptft.recipe.optim import OptimSection
from ptft.recipe.publication import load_foreign
from ptft.recipe.reads import TOWERS_OF, Reads
from ptft.recipe.regularise import RegulariseSection
from ptft.recipe.schema import (
    AdaptSection,
    AugmentSection,
    FullAdapt,
    InitSection,
    ProbeAdapt,
    Recipe,
    RunSection,
)
from ptft.recipe.sequence import GuardSection, StagedRecipe, StageSection
from ptft.recipe.stage import stage_recipe

__all__ = [
    "TOWERS_OF",
    "AdaptSection",
    "AdapterSection",
    "ArchModel",
    "ArmSection",
    "AugmentSection",
    "BottleneckAdapt",
    "BoxesData",
    "ClassifyEvaluation",
    "ClassifyObjective",
    "ClipObjective",
    "CompareSection",
    "Comparison",
    "DataSection",
    "DetectEvaluation",
    "DetectObjective",
    "DistillSection",
    "DoraAdapt",
    "EarlyStopSection",
    "EvaluateItem",
    "FolderData",
    "FullAdapt",
    "GuardSection",
    "Ia3Adapt",
    "InitSection",
    "LoraAdapt",
    "MixtureData",
    "MixturePart",
    "ModelSection",
    "ObjectiveSection",
    "OptimSection",
    "PrefixAdapt",
    "ProbeAdapt",
    "ProbeEvaluation",
    "ProjectionAdapt",
    "Reads",
    "Recipe",
    "RegulariseSection",
    "RetrievalEvaluation",
    "RunSection",
    "ScenesData",
    "SearchRange",
    "SelfSupervisedObjective",
    "SelfTrainSection",
    "ShardsData",
    "SiglipObjective",
    "StageSection",
    "StagedRecipe",
    "TableData",
    "TextTower",
    "TipAdapterAdapt",
    "TowersModel",
    "ZeroShotEvaluation",
    "builtin_recipes",
    "check_evaluations",
    "check_recipe",
    "deciding_values",
    "dump_recipe",
    "find_recipe",
    "has_pictures",
    "load_comparison",
    "load_evaluation",
    "load_foreign",
    "load_recipe",
    "metrics_of",
    "read_towers",
    "recipe_digest",
    "recipe_json_schema",
    "stage_recipe",
    "usual_nms",
]
