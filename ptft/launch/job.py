"""What a rented machine is to run: one shell program, the same on every system.

It writes the recipe where the machine has none, sees that the secrets are there, and calls ptft,
under torch's launcher where a run has several ranks. Every value that a user gave is quoted, so
that a shell reads it as the text that it is.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ptft.errors import LostRankError, RecipeError, UsageError
from ptft.launch.section import LaunchFile
from ptft.recipe.comparison import Comparison
from ptft.recipe.load import builtin_recipes, find_recipe, load_any
from ptft.recipe.schema import Recipe

__all__ = ["GO_ON", "LOST", "MOUNTED", "NO_RANKS", "LaunchJob", "Ranks", "plan_job", "program"]

GO_ON = (75, 143)
"""Exit codes of a run that saved and is to be started again."""
LOST = LostRankError.exit_code
"""Exit code of a machine of several where another is gone: it is to be started again, too."""
MOUNTED = "/mirror"
"""Where a bucket is mounted, where a system mounts buckets."""
_MOST_BYTES = 65_536  # of a recipe file: Linux takes 131,072 as one argument of a program
_PORT = 29_500  # torchrun's own default
_MEETING = (
    1800  # seconds to wait for the other machines: until a new one is found and has the image
)
_SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"
_LABEL = 40  # characters of a name: systems add theirs, and 63 are allowed


@dataclass(frozen=True)
class LaunchJob:
    """A recipe, and where it runs.

    Attributes:
        name: of the job, as a DNS label.
        compares: whether it is a comparison.
        recipe: a built-in recipe's name, or None: ``text``.
        text: of a recipe file, as it stands.
        settings: the overrides, with those that say where the run and its mirror are.
        launch: the machines.
        minutes: after which a comparison starts nothing more; a run has it among the settings.
    """

    name: str
    compares: bool
    recipe: str | None
    text: str
    settings: tuple[str, ...]
    launch: LaunchFile
    minutes: float | None = None

    @property
    def ranks(self) -> int:
        """Of a node."""
        machine = self.launch.machine
        return 1 if machine is None or self.compares else machine.count

    @property
    def workers(self) -> int:
        """Jobs that share a comparison's cells; 1 of a run."""
        return self.launch.workers if self.compares else 1

    @property
    def nodes(self) -> int:
        """Machines that are one run."""
        return 1 if self.compares else self.launch.nodes


@dataclass(frozen=True)
class Ranks:
    """How the machines of a run find each other, in a shell's words.

    Attributes:
        head: the host that the others call.
        node: the number of this machine.
        given: the system sets torchrun's own variables (``PET_*``), so that nothing is said.
    """

    head: str = ""
    node: str = ""
    given: bool = False


NO_RANKS = Ranks()
"""Of one machine."""


def plan_job(
    source: str,
    overrides: Sequence[str],
    launch: LaunchFile,
    *,
    runs: str,
    mounts: str = "",
    minutes: float | None = None,
    shared: bool = False,
) -> LaunchJob:
    """Read the recipe, and say where its run and the mirror of it will be.

    Args:
        source: a YAML file or a built-in recipe.
        overrides: of the recipe; ``run.dir`` and ``run.mirror`` among them are left as they are.
        runs: the folder of runs, where the launch file names none.
        mounts: a pattern of the addresses that the system mounts at :data:`MOUNTED`, with the
            bucket as its first group.
        minutes: after which the run is to stop by itself, where the recipe does not say.
        shared: whether all machines see the folder of runs.

    Raises:
        RecipeError: of the recipe; or its file is too large to go along.
        UsageError: the launch file and the recipe do not go together.
    """
    loaded = load_any(source, overrides)
    compares = isinstance(loaded, Comparison)
    if compares and launch.nodes > 1:
        raise UsageError(
            f"nodes: {launch.nodes}: of one run, and {source!r} is a comparison; "
            "allowed: nodes: 1 and workers: as many as there are to be"
        )
    if not compares and launch.workers > 1:
        raise UsageError(
            f"workers: {launch.workers}: of a comparison, which {source!r} is not; "
            "allowed: workers: 1, and nodes: as many machines as the run is to have"
        )
    name, text = _recipe(source)
    job = LaunchJob(_label(loaded.name), compares, name, text, tuple(overrides), launch)
    _check_workers(job, loaded, shared=shared)
    settings = _placed(job, loaded, runs, mounts)
    if minutes is not None and compares:
        return replace(job, settings=settings, minutes=minutes)
    if minutes is not None and loaded.run.max_minutes is None:
        settings = (*settings, f"run.max_minutes={minutes:g}")
    return replace(job, settings=settings)


def program(job: LaunchJob, ranks: Ranks = NO_RANKS, *, asks: bool = False) -> str:
    """The shell program of one machine, for bash.

    Args:
        asks: whether the machine is to be asked if it is taken away (:mod:`ptft.launch.notice`).
    """
    lines = ["set -eu"]
    for name in job.launch.secrets:
        lines.append(f': "${{{name}:?is not set, and the launch file names it as a secret}}"')
    recipe = shlex.quote(job.recipe or "")
    if job.recipe is None:
        mark = _mark(job.text)
        text = job.text if job.text.endswith("\n") else f"{job.text}\n"
        lines += ["folder=$(mktemp -d)", f"cat > \"$folder/recipe.yaml\" <<'{mark}'\n{text}{mark}"]
        recipe = '"$folder/recipe.yaml"'
    settings = [shlex.quote(setting) for setting in job.settings]
    verb = "compare" if job.compares else "train"
    words = ["ptft", verb, recipe, *settings, "--resume", "auto"]
    if job.minutes is not None:
        words += ["--max-minutes", f"{job.minutes:g}"]
    if job.workers > 1:
        words.append("--worker")
    if job.ranks * job.nodes > 1:
        words = [*_torchrun(job, ranks), "-m", *words]
    if asks:
        # whoever reads what the run says waits for its end alone
        lines.append("python3 -m ptft.launch.notice $$ > /dev/null 2>&1 &")
    lines.append(" ".join(["exec", *words]))
    return "\n".join(lines) + "\n"


def _torchrun(job: LaunchJob, ranks: Ranks) -> list[str]:
    """torch's launcher, whose exit code is the ranks' (:mod:`ptft.launch.ranks`)."""
    words = ["python3", "-m", "ptft.launch.ranks"]
    if not ranks.given:
        words += ["--nproc-per-node", str(job.ranks)]
    if job.nodes == 1:
        words += ["--standalone"]
    elif not ranks.given:
        words += ["--nnodes", str(job.nodes), "--node-rank", ranks.node]
        words += ["--master-addr", ranks.head, "--master-port", str(_PORT)]
        words += ["--rdzv-conf", f"timeout={_MEETING}"]
    seconds = str(job.launch.grace_seconds)
    return [*words, "--signals-to-handle", _SIGNALS, "--shutdown-timeout", seconds]


def _recipe(source: str) -> tuple[str | None, str]:
    """A built-in recipe by its name, which the machine has too; else a file's text."""
    if source in builtin_recipes() and not Path(source).exists():
        return source, ""
    path = find_recipe(source)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror or error}") from None
    if len(text.encode()) > _MOST_BYTES:
        raise RecipeError(
            f"{path}: {len(text.encode()):,} bytes, and it goes along with the job; allowed: at "
            f"most {_MOST_BYTES:,}, so put long lists (class names, say) into a file of the data"
        )
    return None, text


def _placed(job: LaunchJob, loaded: Recipe, runs: str, mounts: str) -> tuple[str, ...]:
    """The overrides, with the run's folder and mirror where they do not say these.

    Workers of a comparison claim its cells in the mirror, which is then the store itself: where it
    is mounted, no machine knows what another is about to write.
    """
    launch, settings = job.launch, list(job.settings)
    mirror = launch.mirror
    if mirror is not None and job.workers == 1 and mounts and (match := re.match(mounts, mirror)):
        mirror = f"{MOUNTED}{mirror[match.end() :]}"
    if loaded.run.dir is None:
        settings.append(f"run.dir={launch.runs or runs}/{loaded.name}")
    if mirror is not None and loaded.run.mirror is None:
        settings.append(f"run.mirror={mirror}/{loaded.name}")
        if launch.grace_seconds != LaunchFile.model_fields["grace_seconds"].default:
            settings.append(f"run.mirror_grace_seconds={launch.grace_seconds / 2:g}")
    return tuple(settings)


def _check_workers(job: LaunchJob, loaded: Recipe, *, shared: bool) -> None:
    """Refuse workers that have no place to share, or one that cannot hold their claims."""
    if job.workers == 1:
        return
    mirror = loaded.run.mirror or job.launch.mirror
    if mirror is None and not shared:
        raise UsageError(
            f"workers: {job.workers}: each has a disk of its own here; allowed: mirror: s3://, "
            "gs:// or az://, in which they claim cells, or workers: 1"
        )
    if mirror is not None and mirror.startswith("hf://"):
        raise UsageError(
            f"mirror: {mirror!r}: {job.workers} workers claim cells by writing a file only where "
            "none is, which this store does not offer; allowed: s3://, gs:// or az://, or "
            "workers: 1"
        )


def _label(name: str) -> str:
    """A recipe's name as a DNS label."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LABEL].strip("-")
    return plain if plain[:1].isalpha() else f"run-{plain}"


def _mark(text: str) -> str:
    """An end of a here-document that no line of the text is."""
    mark = "PTFT_RECIPE"
    while mark in text.splitlines():
        mark += "_"
    return mark
