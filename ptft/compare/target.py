"""What arms are compared on: the target, the retained sets, and which step may see which samples.

Labels are drawn by seed: the budget's from ``train``, for learning, and at most as many from
``val``, for what is chosen while an arm is trained. Which arm is best is asked of the same part of
``val`` at every budget. ``test`` is what the tables tell; nothing is chosen by it.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ptft.compare.boxes import BoxMeasurement, has_things
from ptft.compare.cached_set import CachedSet, Room
from ptft.compare.candidates import answers_among, answers_of_pictures
from ptft.compare.metric import (
    Measurement,
    TextEmbeddings,
    bits,
    default_metric,
    measure_metric,
    retained_metric,
)
from ptft.compare.selected import selected_on
from ptft.compare.stats import AnswerRow
from ptft.data import SampleSet, open_split
from ptft.data.sample import Part, draw_samples, draw_val, with_labels
from ptft.data.sources.mixture import Joined
from ptft.errors import DataError, RecipeError, SampleError
from ptft.model import DualEncoder
from ptft.preprocess.images import ImagePreprocess
from ptft.recipe import (
    ClassifyEvaluation,
    Comparison,
    DataSection,
    DetectEvaluation,
    EvaluateItem,
    ZeroShotEvaluation,
)
from ptft.recipe.check import Split
from ptft.recipe.comparison import per_class

__all__ = ["Target", "pictures_of", "shares"]


@dataclass(frozen=True)
class _Set:
    """One evaluation with its two splits."""

    name: str
    item: EvaluateItem
    metric: str
    val: SampleSet
    test: SampleSet

    def cached(self, preprocess: ImagePreprocess, room: Room) -> "_Set":
        if isinstance(self.item, DetectEvaluation):  # boxes are in pixels of the picture as it is
            return self
        val, test = (CachedSet(one, preprocess, room) for one in (self.val, self.test))
        return replace(self, val=val, test=test)

    def measure(
        self, model: DualEncoder, samples: SampleSet, embedded: TextEmbeddings | None
    ) -> Measurement | BoxMeasurement:
        return measure_metric(model, self.item, samples, self.metric, embedded)


class Target:
    """The data of a comparison, opened and checked.

    Attributes:
        train: what any arm may learn from.
        classes: of ``train``, which the target's other splits are numbered by.
        target: the evaluation that arms are compared by.
        retained: those whose figures are to stay.
        per_class: whether a budget is of labels of each class.
        said: of the target's splits, what is left out, a line each.

    Raises:
        RecipeError: a budget is larger than the data, or an evaluation has no metric to compare by.
        DataError: a class without a picture, a label outside the list, a retained set that shares
            samples with the target.
    """

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        section = comparison.compare
        item = comparison.evaluate[0]
        metric = default_metric(item, comparison.data, section.metric)
        data = item.data or comparison.data
        self.train = open_split(comparison.data, "train", seed=comparison.seed)
        self._learned_from: SampleSet = self.train
        self.said: list[str] = []
        self.classes = list(self.train.classes or [])
        self.target = _Set(
            item.name or item.kind,
            item,
            metric,
            self._asked(data, "val"),
            self._asked(data, "test"),
        )
        selected = selected_on(comparison) if section.ask_train else set()
        self.retained = [
            _open_retained(item, comparison.seed, section.ask_train, selected)
            for item in section.retain
        ]
        self.per_class = per_class(comparison)
        self._check_budgets(section.budgets)
        self._check_shared()

    def _asked(self, data: DataSection, split: Split) -> SampleSet:
        """A split that the arms are compared by; of classes what has one."""
        seed = self.comparison.seed
        samples = open_split(data, split, seed=seed, classes=self.classes or None)
        if not isinstance(self.comparison.evaluate[0], ClassifyEvaluation | ZeroShotEvaluation):
            return samples
        samples, said = with_labels(samples)
        self.said += [f"data.{split}: {line}" for line in said]
        return samples

    def cache_pictures(self, preprocess: ImagePreprocess) -> None:
        """Keep the pictures of all evaluations in memory once they are read, as far as there is
        room."""
        room = Room()
        self.target = self.target.cached(preprocess, room)
        if not isinstance(self.target.item, DetectEvaluation):
            self._learned_from = CachedSet(self.train, preprocess, room)
        self.retained = [kept.cached(preprocess, room) for kept in self.retained]

    def samples(self, budget: int) -> int:
        """Count the labelled samples of all classes at a budget."""
        return budget * len(self.classes) if self.per_class else budget

    @property
    def questions(self) -> Part:
        """The validation samples that every arm is asked, at every budget and seed."""
        whole = self.target.val
        drawn = draw_val(whole, self.comparison.compare.val_most, self.comparison.seed)
        return Part(whole, np.sort(_numbers(drawn, whole)))

    @property
    def questions_told(self) -> str | None:
        """Tell in a sentence which budgets are asked more than they allow to choose by; None: none
        are."""
        asked, more = len(self.questions), len(self._more_questions)
        fewer = [b for b in self.comparison.compare.budgets if self.samples(b) < asked + more]
        if not fewer:
            return None
        also = f", and by what of {more:,} of train an arm did not learn from" if more else ""
        return (
            f"At every budget arms are told from each other by the same {asked:,} of val{also}. "
            f"That is more than the labels at {', '.join(f'{budget:,}' for budget in fewer)}; what "
            "is chosen while an arm is trained there, such as its rate and its share of a mix, "
            "goes by no more of val than these."
        )

    def val(self, budget: int, seed: int) -> Part:
        """The validation samples that a budget allows what is trained at it to choose by: what this
        seed and those before it drew."""
        most = min(self.samples(budget), self.comparison.compare.val_most)
        whole = self.target.val
        draws = [draw_val(whole, most, self.comparison.seed + one) for one in range(seed + 1)]
        return self._first(whole, [_numbers(draw, whole) for draw in draws])

    def unlearned(self, budget: int, seed: int) -> Part:
        """Samples of ``train`` that are asked beside ``questions``, without those that a seed's
        models learn from."""
        limit = {"shots" if self.per_class else "limit": budget}
        own = draw_samples(self.train, self.comparison.seed + seed, **limit)
        asked = self._more_questions
        return Part(self._learned_from, np.sort(asked[~np.isin(asked, own)]))

    @property
    def _more_questions(self) -> np.ndarray:
        """Numbers of samples of ``train``, as many as ``val`` has fewer than are to be asked. None
        where a model may have seen them otherwise: without labels, or in what belongs together."""
        more = self.comparison.compare.val_most - len(self.questions)
        data = self.comparison.data
        seen = [key for key in ("unlabelled", "group") if getattr(data, key, None) is not None]
        if more <= 0 or seen:
            return np.empty(0, np.int64)
        return _numbers(draw_val(self.train, more, self.comparison.seed), self.train)

    def _first(self, samples: SampleSet, draws: Sequence[np.ndarray]) -> Part:
        """What is in any draw, from the first on, up to ``val_most``."""
        taken = dict.fromkeys(number for draw in draws for number in draw.tolist())
        numbers = list(taken)[: self.comparison.compare.val_most]
        return Part(samples, np.sort(np.array(numbers, np.int64)))

    def measure(
        self, model: DualEncoder, samples: SampleSet, embedded: TextEmbeddings | None = None
    ) -> Measurement | BoxMeasurement:
        """Measure a model by the target's metric on some of its samples.

        Args:
            embedded: captions that this model has embedded before.

        Raises:
            DataError: as :func:`ptft.compare.metric.measure_metric`.
        """
        return self.target.measure(model, samples, embedded)

    def asks(self, samples: SampleSet) -> bool:
        """Whether there is anything in samples that a model can be asked for."""
        item = self.target.item
        return len(samples) > 0 and (
            not isinstance(item, DetectEvaluation) or has_things(samples, item)
        )

    def retained_measured(
        self, model: DualEncoder, split: str, embedded: TextEmbeddings | None = None
    ) -> dict[str, Measurement]:
        """Measure each retained set, by its name."""
        embedded = {} if embedded is None else embedded
        found = {}
        for kept in self.retained:
            samples = kept.val if split == "val" else kept.test
            one = kept.measure(model, samples, embedded)
            assert isinstance(one, Measurement), "retained_metric refuses boxes"
            found[kept.name] = one
        return found

    def retained_asked(self, on_val: Mapping[str, Measurement]) -> dict[str, AnswerRow]:
        """What was measured on ``val`` of each retained set: answers of a retrieval as among the
        candidates of test, and by pictures, of classes 0 or 1."""
        found = {}
        for kept in self.retained:
            one = on_val[kept.name]
            answers = answers_among(one, len(kept.test) / len(kept.val)) or bits(one)
            found[kept.name] = answers_of_pictures(one, answers)
        return found

    @cached_property
    def labels_left(self) -> int:
        """Samples of ``train`` (of each class's smallest, where budgets are per class)."""
        if not self.per_class:
            return len(self.train)
        return min(_per_class(self.train, self.classes).values())

    def _check_budgets(self, budgets: Sequence[int]) -> None:
        if self.per_class:
            for name, count in _per_class(self.train, self.classes).items():
                if count == 0:
                    raise DataError(f"data.train: class {name!r} has no picture")
        unit = "of the smallest class" if self.per_class else "in data.train"
        if budgets[-1] > self.labels_left:
            raise RecipeError(
                f"compare.budgets: {budgets[-1]}; allowed: at most {self.labels_left}, "
                f"the samples {unit}"
            )

    def _check_shared(self) -> None:
        """Refuse a retained set that holds a picture which any budget may learn from."""
        if not self.retained:
            return
        learned = pictures_of(self._learned())
        for kept in self.retained:
            for split, samples in (("val", kept.val), ("test", kept.test)):
                shared = learned.keys() & pictures_of(samples).keys()
                if shared:
                    first = sorted(learned[digest] for digest in shared)[0]
                    raise DataError(
                        f"compare.retain.{kept.name}.data.{split}: shares {len(shared)} pictures "
                        f"with the target's data.train, such as {first}; allowed: sets that no arm "
                        "learns from"
                    )

    def _learned(self) -> Iterator[tuple[SampleSet, int]]:
        section = self.comparison.compare
        drawn = {
            int(index)
            for seed in range(section.seeds)
            for index in draw_samples(
                self.train,
                self.comparison.seed + seed,
                **{"shots" if self.per_class else "limit": section.budgets[-1]},
            )
        }
        return ((self.train, index) for index in sorted(drawn))


def shares(measured: Mapping[str, Measurement], start: Mapping[str, str]) -> dict[str, float]:
    """Each figure as a share of the starting model's, whose hits are given."""
    figures = {name: row.count("1") / len(row) for name, row in start.items()}
    return {
        name: one.value / figures[name] if figures[name] else 1.0 for name, one in measured.items()
    }


def _numbers(drawn: SampleSet, whole: SampleSet) -> np.ndarray:
    """The numbers in a set of what was drawn from it."""
    if drawn is whole:
        return np.arange(len(whole))
    assert isinstance(drawn, Part)
    return drawn.indices


def _open_retained(
    item: EvaluateItem, seed: int, ask_train: Collection[str], selected: Collection[str]
) -> _Set:
    """A retained set; ``selected``: names of those whose ``val`` the start is too good on, so that
    ``train`` is asked in its place and not beside it."""
    name = item.label
    if (data := item.data) is None:
        raise RecipeError(f"compare.retain.{name}.data: missing; what is to be retained?")
    metric = retained_metric(item, data, f"compare.retain.{name}")

    def opened(split: Split) -> SampleSet:
        return open_split(data, split, seed=seed, key=f"compare.retain.{name}.data")

    asked = [opened("val")] if name not in ask_train or name not in selected else []
    if name in ask_train:
        asked.append(opened("train"))
    val = asked[0] if len(asked) == 1 else Joined(asked, ["val", "train"])
    return _Set(name, item, metric, val, opened("test"))


def _per_class(samples: SampleSet, classes: Sequence[str]) -> dict[str, int]:
    labels = samples.labels()
    if labels is None:
        raise DataError(
            "data.train: its labels cannot be read without its pictures; see data.label"
        )
    return {name: int((labels == number).sum()) for number, name in enumerate(classes)}


def pictures_of(samples: SampleSet | Iterator[tuple[SampleSet, int]]) -> dict[bytes, str]:
    """Give the digest of each picture's pixels -> its sample's name; what cannot be read has
    none."""
    if isinstance(samples, SampleSet):
        whole = samples
        samples = ((whole, index) for index in range(len(whole)))
    found = {}
    for holder, index in samples:
        try:
            picture = holder[index].image
        except SampleError:
            continue
        size = f"{picture.size}".encode()
        found[hashlib.sha256(size + picture.tobytes()).digest()] = holder.name(index)
    return found
