"""What the bench ``holding`` opens: honest artefacts, made where they are not there."""

import csv
import io
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

__all__ = ["prepare"]

NAME = "ViT-B-32"
GROUPS, COLUMNS, ROWS = 1000, 50, 1000  # of the parquet
FEW = 20_000  # rows of the CSV; a tenth of it samples of the tar


def prepare(home: Path, *, small: bool) -> Path:
    """The artefacts, made where they are not there."""
    if (home / "made").is_file():
        return home
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    _write_models(home, small)
    groups, rows, few = (10, 10, 100) if small else (GROUPS, ROWS, FEW)
    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    for number in range(COLUMNS):
        values = rng.integers(0, 10_000, groups * rows)
        texts = pyarrow.array([f"a caption of number {n} in column {number}" for n in values])
        columns[f"t{number}"] = (texts, values, values / 7)[min(number % 5, 2)]
    table = pyarrow.table(columns)
    pyarrow.parquet.write_table(table, home / "a.parquet", row_group_size=rows)
    with (home / "a.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [f"t{number}" for number in range(10)])
        writer.writeheader()
        writer.writerows(
            {f"t{n}": f"caption {row}, of {n}" for n in range(10)} for row in range(few)
        )
    with tarfile.open(home / "a.tar", "w") as tar:
        for number in range(few // 10):
            for kind, data in (("png", _picture(rng)), ("txt", f"caption {number}".encode())):
                about = tarfile.TarInfo(f"{number:06d}.{kind}")
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
    (home / "made").touch()
    return home


def _picture(rng: np.random.Generator) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def _write_models(home: Path, small: bool) -> None:
    """A run's folder with a model that was not trained, and the model folder of it, unless
    small."""
    from ptft.export import export_model
    from ptft.model import build_model
    from ptft.recipe import dump_recipe, load_recipe, recipe_digest
    from ptft.runs.finalise import save_final
    from ptft.runs.folder import RunRecord, RunStatus, write_run

    recipe = load_recipe("pretrain/scenes", [] if small else [f"model={{name: {NAME}}}"])
    model = build_model(recipe.model, None, recipe.objective, seed=0).eval()
    folder = home / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    record = RunRecord("bench", recipe_digest(recipe), RunStatus.FINISHED, "", {})
    save_final(folder, model, recipe, record)
    write_run(folder, record)
    if not small:
        export_model(folder, home / "model", precisions=("fp32",), measure=False)
