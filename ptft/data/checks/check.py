"""Every split that a recipe will read, checked before it costs anything."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ptft.data.checks.names import odd_names
from ptft.data.checks.stages import OF_CLASSES, of_classes, stage_problems
from ptft.data.checks.survey import Survey, survey_split
from ptft.data.checks.twins import KnownGroups, KnownPictures, Twins
from ptft.data.listing import walked_anew
from ptft.data.open import open_split
from ptft.data.sample import SampleSet, with_labels
from ptft.data.sources.class_captions import ClassCaptions
from ptft.errors import DataError, PtftError, RecipeError
from ptft.recipe import (
    ClassifyObjective,
    ClipObjective,
    Recipe,
    SiglipObjective,
)
from ptft.recipe.check import SplitUse, splits_of
from ptft.recipe.data import has_pictures
from ptft.recipe.objective import ObjectiveSection, read_towers
from ptft.speech import Tell

__all__ = [
    "Checked",
    "Inspection",
    "check_captions",
    "check_classes",
    "check_splits",
    "inspect_splits",
]

_CAPTIONS = 256  # of a training set, before it is learned from

Visit = Callable[["Checked", SampleSet], None]


@dataclass(frozen=True)
class Checked:
    """One split and what was seen of it.

    Attributes:
        uses: what reads it.
        survey: what it holds.
        twins: pictures that are there more than once.
        shared_groups: groups that are in a training set too: how many of its samples are of such
            ones, the first, and that set; see ``data.group``.
    """

    uses: list[SplitUse]
    survey: Survey
    twins: Twins
    shared_groups: tuple[int, str, str] = (0, "", "")

    @property
    def label(self) -> str:
        """Key and split, such as ``data.val``."""
        return f"{self.uses[0].key}.{self.uses[0].split}"

    @property
    def learned(self) -> bool:
        """Whether the model learns from it."""
        return any(use.item is None and use.split == "train" for use in self.uses)


@dataclass(frozen=True)
class Inspection:
    """What was seen of several splits.

    Attributes:
        checked: those that could be opened, in the order asked for.
        problems: all that would stop a run or make its figures worthless, a line each.
        warnings: what is worth knowing before a run.
    """

    checked: list[Checked]
    problems: list[str]
    warnings: list[str]


def check_splits(
    recipe: Recipe, *, every: bool = False, tell: Tell = lambda line: None
) -> tuple[list[Checked], list[str]]:
    """Open and look at every split that a recipe will ever read.

    Args:
        every: decode every picture instead of some.
        tell: told what is looked at, before it is.

    Returns:
        What was seen, in the recipe's order; and what is worth a warning.

    Raises:
        DataError: all that would stop the run or make its figures worthless, a line each.
        RecipeError: a split is not there.
    """
    seen = inspect_splits(
        splits_of(recipe), recipe.objective, seed=recipe.seed, every=every, tell=tell
    )
    if problems := [*seen.problems, *stage_problems(recipe, seen.checked)]:
        raise DataError(*problems)
    return seen.checked, seen.warnings


def inspect_splits(
    uses: Iterable[SplitUse],
    objective: ObjectiveSection | None,
    *,
    seed: int = 0,
    every: bool = False,
    tell: Tell = lambda line: None,
    visit: Visit = lambda found, samples: None,
) -> Inspection:
    """Open and look at splits, and stop at nothing that is wrong with them.

    Args:
        uses: of the splits; several of one split are looked at once.
        objective: that learns from them; None: it is not known, and what is there is judged.
        seed: of the recipe, which draws what ``data.limit`` keeps.
        every: decode every picture instead of some, and walk folders whatever is kept of them.
        tell: told what is looked at, before it is.
        visit: given each split that could be opened and what was seen of it.
    """
    checked: list[Checked] = []
    problems: list[str] = []
    known, learned_groups = KnownPictures(), KnownGroups()
    for same in _by_split(uses):
        use = same[0]
        label = f"{use.key}.{use.split}"
        tell(f"looking at {label}")
        try:
            with walked_anew(every):
                samples = open_split(use.section, use.split, seed=seed, key=use.key)
            samples, bare = with_labels(samples) if of_classes(same, objective) else (samples, [])
            survey = survey_split(samples, every=every, pictures=_reads_pictures(use, objective))
            survey.said.extend(bare)
        except (DataError, RecipeError) as error:
            problems += str(error).split("\n")
            continue
        twins = Twins()
        if has_pictures(use.section):
            twins = known.add(samples, label, learned=use.split == "train", every=every)
        found = Checked(same, survey, twins, learned_groups.add(samples, label, use.split))
        most = getattr(use.section, "max_skipped", 0.0)
        problems += [f"{label}: {problem}" for problem in survey.problems(most)]
        problems += _meaningless(found, objective)
        checked.append(found)
        visit(found, samples)
    problems += _strangers(checked, objective)
    return Inspection(checked, list(dict.fromkeys(problems)), _warnings(checked))


def check_captions(
    samples: SampleSet, objective: ObjectiveSection, key: str = "data.train"
) -> None:
    """Look at a training set for what makes its loss meaningless: no class or caption but one.

    Raises:
        DataError: saying what all samples have in common.
    """
    if isinstance(objective, ClassifyObjective) or isinstance(samples, ClassCaptions):
        labels = samples.labels()
        seen = () if labels is None else set(labels[labels >= 0].tolist())
        if labels is not None and len(seen) < 2:
            only = [", ".join(samples.label_names(number)) for number in seen]
            raise DataError(_one_class(key, only))
    single = not isinstance(objective, ClipObjective | SiglipObjective)
    if single or len(samples) < 2 or samples.in_order:
        return
    step = max(1, len(samples) // _CAPTIONS)
    texts: set[str] = set()
    looked = 0
    for index in range(0, len(samples), step):
        try:
            texts.update(samples.captions(index))
        except PtftError:
            continue  # counted and named as it is read
        looked += 1
        if len(texts) > 1:
            return
    if looked > 1:
        raise DataError(_one_caption(key, looked, len(samples), texts.pop() if texts else ""))


def check_classes(recipe: Recipe, known: Sequence[str]) -> None:
    """Hold the classes of data that evaluations bring along against those of training, which a
    head has; no picture is read.

    Raises:
        DataError: one that occurs is not among them.
    """
    for use in splits_of(recipe):
        if use.item is None or use.item.kind != "classify" or use.item.data is None:
            continue
        samples = open_split(use.section, use.split, seed=recipe.seed, key=use.key)
        counts = samples.class_counts()
        for number in [] if counts is None else np.flatnonzero(counts).tolist():
            name = (samples.classes or [])[number]
            if name not in known:
                raise DataError(_stranger(f"{use.key}.{use.split}", name, known))


def _stranger(label: str, name: str, known: Sequence[str]) -> str:
    return (
        f"{label}: class {name!r} is not among those of training "
        f"({', '.join(known[:8])}{', ...' if len(known) > 8 else ''})"
    )


def _one_class(key: str, classes: list[str]) -> str:
    return (
        f"{key}: {'all samples are of the class ' + repr(classes[0]) if classes else 'no class'}; "
        "there is nothing to tell apart; allowed: two classes or more (data.label, data.classes)"
    )


def _one_caption(key: str, looked: int, count: int, caption: str) -> str:
    who = f"all {count:,} samples" if looked == count else f"the {looked:,} samples looked at"
    return (
        f"{key}: {who} have one caption, {caption[:80]!r}: pairs of one caption are no negatives, "
        "so that no loss is left to learn from; see data.captions"
    )


def _by_split(uses: Iterable[SplitUse]) -> Iterator[list[SplitUse]]:
    """Uses of the same split together, in the order of the first of each."""
    found: dict[tuple[str, str], list[SplitUse]] = {}
    for use in uses:
        key = (use.section.model_dump_json(by_alias=True), use.split)
        found.setdefault(key, []).append(use)
    yield from found.values()


def _reads_pictures(use: SplitUse, objective: ObjectiveSection | None) -> bool:
    read = objective is None or use.item is not None or "image" in read_towers(objective)
    return has_pictures(use.section) and read


def _meaningless(found: Checked, objective: ObjectiveSection | None) -> Iterator[str]:
    """What makes a loss or a figure of a split mean nothing."""
    survey, label = found.survey, found.label
    if all(use.key.endswith(".unlabelled") for use in found.uses):
        return  # of which neither labels nor captions are read
    kinds: set[str] = {use.item.kind for use in found.uses if use.item is not None}
    labelled = kinds & OF_CLASSES
    paired = objective if isinstance(objective, ClipObjective | SiglipObjective) else None
    templates = paired.templates if paired is not None else None
    if found.learned and objective is not None:
        if isinstance(objective, ClassifyObjective) or templates:
            labelled |= {objective.kind}
        if paired is not None and not templates and "text" in read_towers(objective):
            kinds |= {"retrieval"}
            if survey.words and survey.distinct == 1 and survey.samples > 1:
                caption = survey.first[0][2][:1]
                text = caption[0] if caption else ""
                yield _one_caption(label, survey.read, survey.samples, text)
    if "retrieval" in kinds and not survey.words and not (templates and found.learned):
        yield f"{label}: no sample has a caption, and what reads it needs them; see data.captions"
    if labelled and survey.classes is None:
        what = ", ".join(sorted(labelled))
        yield f"{label}: no sample has a class, and {what} needs classes; see data.label"
    elif labelled and survey.counts is not None and found.learned and len(survey.seen) < 2:
        yield _one_class(label, survey.seen)
    if objective is None and not survey.words and survey.classes is None:
        yield (
            f"{label}: no sample has a caption or a class, so that there is nothing to learn; see "
            "data.captions and data.label"
        )
    if objective is None and found.learned and not survey.distinct and len(survey.seen) == 1:
        yield _one_class(label, survey.seen)


def _strangers(checked: list[Checked], objective: ObjectiveSection | None) -> Iterator[str]:
    """Classes that a head is asked for and never learns."""
    if not isinstance(objective, ClassifyObjective):
        return
    known = next((found.survey.classes for found in checked if found.learned), None)
    for found in checked:
        asked = any(use.item is not None and use.item.kind == "classify" for use in found.uses)
        if known is None or not asked:
            continue
        for name in found.survey.seen:
            if name not in known:
                yield _stranger(found.label, name, known)


def _warnings(checked: list[Checked]) -> list[str]:
    lines: list[str] = []
    for found in checked:
        survey, label = found.survey, found.label
        lines += _doubled(found)
        rare = [name for name in survey.classes or [] if name not in set(survey.seen)]
        if survey.counts is not None and rare:
            lines.append(
                f"{label}: no sample of {len(rare):,} of {len(survey.classes or []):,} classes "
                f"(first: {rare[0]})"
            )
        lines += [f"{label}: {said}" for said in odd_names(survey.classes or [])]
        count, first = survey.nothing
        if count:
            lines.append(
                f"{label}: {count:,} of {survey.words:,} captions are a word for nothing, such as "
                f"{first!r}: leave cells empty where there is no caption"
            )
        if survey.unlabelled and survey.classes is not None:
            lines.append(f"{label}: no class: {survey.unlabelled:,} of {survey.samples:,} samples")
        if survey.without and survey.words:
            lines.append(f"{label}: {survey.without:,} of {survey.read:,} samples have no caption")
        for kind, (number, examples) in survey.faults.items():
            first = examples[0]
            lines.append(f"{label}: {number:,} of {survey.looked:,} pictures {kind}: {first}")
        if survey.absent[0]:
            lines.append(f"{label}: {survey.absent[0]:,} pictures are absent ({survey.absent[1]})")
        if survey.samples == 1 and not found.learned:
            lines.append(f"{label}: one sample: a figure of it says nothing")
        lines += [f"{label}: {said}" for said in survey.said]
    return lines


def _doubled(found: Checked) -> Iterator[str]:
    twins, label = found.twins, found.label
    count, group, where = found.shared_groups
    if count:
        yield (
            f"{label}: {count:,} of {found.survey.samples:,} samples are of a group that {where} "
            f"has too (data.group, first: {group}): its figures are better than they should be"
        )
    count, first = twins.shared
    if count:
        yield (
            f"{label}: {count:,} of {found.survey.samples:,} pictures are in {twins.where} too, "
            f"byte for byte (first: {first}): its figures are better than they should be"
        )
    count, first = twins.inside
    if count and found.survey.words:
        yield (
            f"{label}: {count:,} of {twins.compared:,} pictures looked at are those of other rows, "
            f"byte for byte (first: {first}), and count as wrong for each other; data.join: bytes "
            "makes one sample of such rows, data.picture_id names a field that tells"
        )
    count, first = twins.torn
    if count:
        yield (
            f"{label}: {count:,} of {twins.compared:,} pictures are in another class too, byte for "
            f"byte (first: {first}): which class they are of cannot be learned"
        )
