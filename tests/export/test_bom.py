"""A model's bill of materials: what the folder says, in the form that CycloneDX has for it."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ptft.artifact import FolderFiles, read_model_info
from ptft.errors import DigestError
from ptft.export.bom import write_bill
from tests.clients.environments import CYCLONEDX, cache_folder, find

VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
sys.exit(str(error) if error else 0)
"""


@pytest.fixture
def folder(classifier_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1764547200")  # else a bill says when it was written
    return Path(shutil.copytree(classifier_folder, tmp_path / "model"))


def read(folder: Path) -> dict[str, Any]:
    return json.loads(write_bill(folder).read_text(encoding="utf-8"))


def test_every_file_stands_in_it_with_its_digest(folder: Path) -> None:
    info = read_model_info(folder)
    bill = read(folder)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    model = bill["metadata"]["component"]
    assert model["type"] == "machine-learning-model" and info.digest in model["bom-ref"]
    told = {
        one["name"]: one["hashes"][0]["content"]
        for one in bill["components"]
        if one["type"] == "file"
    }
    assert told == {name: entry["sha256"] for name, entry in info.files.items()}
    assert read_model_info(folder).digest == info.digest  # the bill is not in what it names
    assert read(folder) == bill


def test_a_folder_that_was_changed_has_no_bill(folder: Path) -> None:
    tokenizer = folder / FolderFiles.TOKENIZER
    tokenizer.write_bytes(tokenizer.read_bytes() + b" ")
    with pytest.raises(DigestError, match=FolderFiles.TOKENIZER):
        write_bill(folder)
    assert not (folder / FolderFiles.BOM).exists()


def test_cyclonedx_takes_it(folder: Path) -> None:
    environment = find(CYCLONEDX, cache_folder())
    if environment is None:
        pytest.skip("no environment of cyclonedx: run python -m tests.clients")
    command = [environment / "bin" / "python", "-c", VALIDATE, write_bill(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
