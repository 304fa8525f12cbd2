"""The notebook of the docs, run from its first cell to its last."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient


def test_the_notebook_runs(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = os.pathsep.join([str(repo), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", place)
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(repo / "docs" / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs for cell in code), "kept without outputs: they would go stale"
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    last = {key: value for out in code[-1].outputs for key, value in out.get("data", {}).items()}
    assert last["text/plain"].startswith("'sha256:")
    assert "image/png" in {key for out in code[-2].outputs for key in out.get("data", {})}
