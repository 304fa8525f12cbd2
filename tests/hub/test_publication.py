"""What is published of a recipe and of a run: no folder of the machine, no user, no key."""

import getpass
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ptft.artifact import FolderFiles, RunFiles, file_sha256, read_model_info, write_json
from ptft.cli import show
from ptft.errors import RecipeError
from ptft.export import export_model
from ptft.model import save_model
from ptft.recipe import load_recipe, recipe_digest
from ptft.recipe.load import dump_recipe, parse_recipe
from ptft.recipe.publication import public_place, public_text, published_recipe
from ptft.recipe.yaml_text import dump_values, read_yaml
from ptft.report.page.page import write_page
from ptft.report.trackers import public_config
from ptft.runs.folder import RunStatus, start_run, write_run
from ptft.verify import Link, verify
from tests.support import tiny
from tests.support.nasty import NASTY
from tests.support.runs import recipe as tiny_run

PLACES = {
    "/home/al/data/x.tar": "x.tar",
    "/data/{noto,blob}/x-{000..003}.tar": "x-{000..003}.tar",
    "/data/{a/x,b/y}.tar": "y.tar",
    "{/d/a,/d/b}-{0..3}.tar": "b-0..3.tar",
    "~/runs/x": "x",
    "~bob/x/": "x",
    "C:\\Users\\bob\\x.tar": "x.tar",
    "c:/users/bob/x.tar": "x.tar",
    "\\\\server\\share\\x": "x",
    "file:///mnt/al/x.tar": "x.tar",
    "FILE:///mnt/al/x.tar": "x.tar",
    "../al/x.tar": "x.tar",
    "a/../../al/x": "x",
    "/": "elsewhere",
    "..": "elsewhere",
    "s3://KEY:SECRET@bucket/x": "s3://***@bucket/x",
}
STAY = (
    *("runs/mine", "data/{a,b}/x-{0..3}.tar", "org/name@v1:train", "laion2b_s34b_b79k", "x.tar"),
    *("s3://bucket/x-{0..1}.tar", "hf://datasets/org/name@rev/x.tar", "a photo of a {}"),
)


@pytest.mark.parametrize(("place", "public"), PLACES.items())
def test_a_place_is_its_last_part(place: str, public: str) -> None:
    assert public_place(place) == public
    assert public_place(public) == public


@pytest.mark.parametrize("text", STAY)
def test_what_is_no_place_of_this_machine_stays(text: str) -> None:
    assert public_place(text) == text


@pytest.mark.parametrize(
    ("said", "public"),
    [
        ("/home/al/data/x.tar: no such file", "x.tar: no such file"),
        ("[Errno 2] No such file: '/home/al/x'", "[Errno 2] No such file: 'x'"),
        ("data.train (file:///mnt/al/x.tar), then", "data.train (x.tar), then"),
        ("C:\\Users\\bob\\x.tar is a folder", "x.tar is a folder"),
        ("at ~al/runs/x now", "at x now"),
        ("from https://u:t@host/a/x?token=abc", "from https://***@host/a/x?***"),
        ("1/2 of a/b at 3 samples/s, and/or", "1/2 of a/b at 3 samples/s, and/or"),
    ],
)
def test_a_sentence_names_no_folder(said: str, public: str) -> None:
    assert public_text(said) == public
    assert public_text(public) == public


def values(place: Path) -> dict[str, Any]:
    """A recipe that names a folder of this machine wherever one can stand."""
    top = str(place)
    data = {"kind": "folder", "train": f"{top}/train", "val": f"{top}/val"}
    return {
        "name": "tiny-run",
        "init": {"from": f"{top}/runs/before"},
        "data": {
            "kind": "mixture",
            "parts": [
                {"data": {**data, "classes": ["/m/01g317", "/m/02"]}},
                {
                    "data": {
                        "kind": "shards",
                        "train": [f"{top}/x-{{0..3}}.tar", "file:///mnt/al/y.tar", "near/z.tar"],
                        "classes": f"{top}/classes.txt",
                        "cache": f"{top}/cache",
                    }
                },
            ],
        },
        "distill": {"from": f"{top}/runs/teacher"},
        "optim": {"samples_seen": 64, "global_batch": 8, "precision": "fp32"},
        "evaluate": [{"kind": "zero_shot", "name": "birds", "data": data}],
        "run": {"dir": f"{top}/run", "cache": f"{top}/features"},
    }


def test_a_published_recipe_is_one_and_says_what_it_left_out(tmp_path: Path) -> None:
    recipe = parse_recipe(values(tmp_path), where="test")
    public, changed = published_recipe(recipe)
    text = dump_recipe(public)
    assert str(tmp_path) not in text and "/mnt/al" not in text
    assert "near/z.tar" in text and "x-{0..3}.tar" in text and "/m/01g317" in text
    assert set(changed) >= {
        *("init.from", "distill.from", "data.parts.0.data.train", "data.parts.1.data.train.0"),
        *("data.parts.1.data.train.1", "data.parts.1.data.classes", "data.parts.1.data.cache"),
        *("evaluate.0.data.train", "evaluate.0.data.val", "run.dir", "run.cache"),
    }
    assert published_recipe(public) == (public, [])
    assert public_config(recipe) == public.model_dump(mode="json", by_alias=True)
    plain = parse_recipe({**values(Path("near")), "distill": None}, where="test")
    kept = {"init": plain.init, "optim": plain.optim}
    assert kept["init"] is not None and kept["init"].from_ == "near/runs/before"


@pytest.mark.parametrize(
    "address",
    [
        *("s3://KEY:SECRET@bucket/x.tar", "https://token@host/x", "s3://bucket/x?token=abcd"),
        "hf://datasets/org/" + "hf_" + "a1B2" * 9,
    ],
)
def test_a_recipe_with_a_key_in_it_is_refused(address: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    made = values(Path("near"))
    made["data"]["parts"][1]["data"]["train"] = ["near.tar", address]
    path.write_text(dump_values(made))
    for source, overrides in ((path, ()), ("pretrain/scenes", (f"init.from={address}",))):
        with pytest.raises(RecipeError) as caught:
            load_recipe(source, overrides)
        (line,) = str(caught.value).splitlines()
        assert "holds a" in line and "credentials come from the environment" in line
        assert "SECRET" not in line and "token@" not in line and "abcd" not in line
    assert "data.parts.1.data.train.1: holds" in _refusal(path)


def _refusal(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return str(caught.value)


def trained(place: Path) -> Path:
    """A finished run whose model has a text tower of a folder, as training leaves it."""
    model = tiny.build(tiny.hf_section(tiny.hf_text_folder(place / "private" / "text-tower")))
    model.spec = model.spec.with_(base=f"{place}/runs/before; org/text@v1")
    folder = place / "run"
    record = start_run(folder, parse_recipe(values(place), where="test"), device="cpu", total=64)
    save_model(model, folder / RunFiles.FINAL)
    record.status = RunStatus.FINISHED
    record.weights_digest = file_sha256(folder / RunFiles.FINAL / "model.safetensors")
    record.error = f"{place}/train/1.png: no such file"
    record.notes = [f"features are kept in {place}/cache/features"]
    write_run(folder, record)
    write_json(folder / RunFiles.METRICS, {"birds": {"top1": 0.5}})
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its model folder, ``run`` and ``model``, and what the export said."""
    top = tmp_path_factory.mktemp("publication")
    said: list[str] = []
    export_model(trained(top), top / "model", precisions=(), measure=True, progress=said.append)
    (top / "said.json").write_text(json.dumps(said))
    return top


def test_no_byte_of_a_model_folder_names_a_folder_of_the_machine(place: Path) -> None:
    private = [str(place), str(Path.home()) + "/", str(Path(__file__).parents[2]), "private"]
    if (user := getpass.getuser()) != "root":
        private.append(user)
    for path in (place / "model").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for one in private:
                assert one.encode() not in data, f"{path.name}: {one}"
    card = (place / "model" / FolderFiles.CARD).read_text()
    assert "| started from | before; org/text@v1 |" in card


def test_what_is_left_out_is_said(place: Path) -> None:
    said = json.loads((place / "said.json").read_text())
    (line,) = [line for line in said if line.startswith("recipe.yaml: without the folders")]
    assert "data.parts.1.data.train.0" in line and "init.from" in line


def states(links: list[Link]) -> dict[str, str]:
    return {link.name: link.state for link in links}


def test_the_chain_holds_from_the_recipe_of_the_run_to_the_published_one(place: Path) -> None:
    info = read_model_info(place / "model")
    recipe = load_recipe(place / "run" / RunFiles.RECIPE)
    assert info.recipe_digest == recipe_digest(recipe)
    assert info.published_recipe == recipe_digest(load_recipe(place / "model" / "recipe.yaml"))
    links = verify([str(place / "run"), str(place / "model")], torch=False)
    assert states(links)["recipe"] == states(links)["run"] == "ok"


def test_another_recipe_under_the_runs_digest_is_told(place: Path, tmp_path: Path) -> None:
    """Whoever can write the record can put any recipe beside it; the run's own tells."""
    from dataclasses import replace

    from ptft.artifact import hash_files, write_model_info

    folder = shutil.copytree(place / "model", tmp_path / "model")
    other = load_recipe(folder / "recipe.yaml", ("seed=9",))
    (folder / "recipe.yaml").write_text(dump_recipe(other))
    info = read_model_info(folder)
    write_model_info(folder, replace(info, files=hash_files(folder)))
    assert states(verify([str(folder)], torch=False))["recipe"] == "broken"
    made = replace(info, files=hash_files(folder), published_recipe=recipe_digest(other))
    write_model_info(folder, made)
    links = verify([str(place / "run"), str(folder)], torch=False)
    (link,) = [link for link in links if link.name == "run" and link.target == str(folder)]
    assert link.state == "broken" and "is published; that of" in link.detail


def test_a_model_folder_that_is_exported_again_keeps_both_digests(place: Path) -> None:
    before = read_model_info(place / "model")
    again = export_model(place / "model", place / "again", precisions=(), measure=False)
    assert (again.recipe_digest, again.published_recipe) == (
        before.recipe_digest,
        before.published_recipe,
    )


def test_a_folder_without_anything_to_leave_out_has_no_new_key(place: Path) -> None:
    """So that its digest is what it was before there was one, and older readers read it."""
    from dataclasses import replace

    info = read_model_info(place / "model")
    assert replace(info, published_recipe="").digest != info.digest
    record = json.loads((place / "model" / FolderFiles.INFO).read_text())
    assert record["published_recipe"] == info.published_recipe
    from ptft.artifact import write_model_info

    bare = place / "bare"
    bare.mkdir()
    write_model_info(bare, replace(info, published_recipe="", files={}))
    assert "published_recipe" not in json.loads((bare / FolderFiles.INFO).read_text())


def test_a_runs_page_names_no_folder_of_the_machine(place: Path) -> None:
    write_page(place / "run")
    text = (place / "run" / RunFiles.PAGE).read_text(encoding="utf-8")
    assert str(place) not in text and "/mnt/al" not in text
    assert "1.png: no such file" in text and "near/z.tar" in text
    assert "The folders of" in text and "are in recipe.yaml." in text


def test_show_prints_what_is_published(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(place / "run" / RunFiles.RECIPE)
    show.command(run, published=True)
    shown = capsys.readouterr()
    assert str(place) not in shown.out and read_yaml(shown.out)["init"]["from"] == "before"
    assert "without the folders and keys in" in shown.err
    show.command(run)
    assert str(place) in capsys.readouterr().out  # a recipe to be run, on its own machine


@pytest.mark.parametrize("name", [name for name in NASTY if name not in ("\x00", "\ud800")])
def test_yaml_is_text_on_any_terminal_and_the_same_values(name: str) -> None:
    made = {"a": name, "b": [name, {name: 1}], "long": " ".join([name] * 30)}
    text = dump_values(made)
    assert read_yaml(text) == made
    assert not {c for c in text if ord(c) < 32 or 0x202A <= ord(c) <= 0x2069} - {"\n"}


def test_the_address_of_a_mirror_is_not_published(tmp_path: Path) -> None:
    given = tiny_run(Path("runs/x"), run__mirror="s3://bucket/runs/x")
    made, changed = published_recipe(given)
    assert (made.run.mirror, changed) == (None, ["run.mirror"])
    assert recipe_digest(made) == recipe_digest(given) == recipe_digest(tiny_run(Path("runs/x")))
