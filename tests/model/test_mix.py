"""``ptft mix``: against means written out by hand, and what becomes of the folder it writes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from ptft.artifact import FolderFiles, RunFiles, file_sha256, read_json, read_model_info, write_json
from ptft.cli.main import app
from ptft.errors import ArtifactError, DigestError, ModelError, PtftError, UsageError
from ptft.evaluate import evaluate
from ptft.export import export_model
from ptft.mix import Choice, mix
from ptft.model import DualEncoder, build_model, load_model, save_model
from ptft.model.average import interpolate
from ptft.model.store import WEIGHTS
from ptft.model_record import read_mix
from ptft.recipe import InitSection, Recipe, dump_recipe, load_recipe, recipe_digest
from ptft.recipe.load import parse_recipe
from ptft.runs.folder import RunStatus, start_run, write_run
from tests.support.tiny import arch_section, build, pictures, tokens, towers_section

I2T, T2I = "scenes.i2t_recall@5", "scenes.t2i_recall@5"
ALPHAS = [0.25, 0.5, 0.75]


def recipe(split: str = "val") -> Recipe:
    values = {
        "name": "tiny-run",
        "model": towers_section().model_dump(mode="json"),
        "data": {"kind": "scenes", "size": 32, "train": 8, "val": 40, "test": 8},
        "optim": {"samples_seen": 64, "global_batch": 8, "precision": "fp32"},
        "evaluate": [{"kind": "retrieval", "name": "scenes", "ks": [5], "split": split}],
    }
    return parse_recipe(values, where="test")


def make_run(model: DualEncoder, folder: Path) -> Path:
    """A finished run, as training leaves it."""
    record = start_run(folder, recipe(), device="cpu", total=64)
    save_model(model, folder / RunFiles.FINAL)
    record.status = RunStatus.FINISHED
    record.weights_digest = file_sha256(folder / RunFiles.FINAL / WEIGHTS)
    write_run(folder, record)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``start``, and runs ``one`` and ``two``."""
    made = tmp_path_factory.mktemp("mix")
    save_model(build(towers_section(), seed=1), made / "start")
    for seed, name in ((11, "one"), (4, "two")):
        make_run(build(towers_section(), seed=seed), made / name)
    return made


def state(folder: Path) -> dict[str, torch.Tensor]:
    inner = folder / RunFiles.FINAL
    return load_file((inner if inner.is_dir() else folder) / WEIGHTS)


def ptft(*words: object) -> str:
    result = CliRunner().invoke(app, ["mix", *map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_soup_with_its_start_is_the_weighted_mean(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "mixed"
    words = (place / "one", place / "two", out, "--base", place / "start", "--alpha", "0.6")
    assert ptft(*words).strip() == str(out)
    start, one, two = (state(place / name) for name in ("start", "one", "two"))
    floats = {name for name, tensor in one.items() if tensor.is_floating_point()}
    assert floats < set(one), "this tower counts batches"
    mixed = state(out)
    for name in floats:
        wanted = 0.4 * start[name].double() + 0.3 * one[name].double() + 0.3 * two[name].double()
        torch.testing.assert_close(mixed[name].double(), wanted, atol=1e-6, rtol=1e-6)
    record = read_mix(out)
    assert record.weights_digest == file_sha256(out / WEIGHTS)
    assert [parent.share for parent in record.parents] == pytest.approx([0.4, 0.3, 0.3])
    assert [parent.name for parent in record.parents] == ["start", "tiny-run", "tiny-run"]
    assert [parent.weights_digest for parent in record.parents] == [
        file_sha256(path / WEIGHTS)
        for path in (place / "start", place / "one" / "final", place / "two" / "final")
    ]
    digest = recipe_digest(load_recipe(place / "one" / RunFiles.RECIPE))
    assert [parent.recipe_digest for parent in record.parents] == ["", digest, digest]
    assert (record.alpha, record.evaluation, record.grid) == (0.6, {}, [])


def test_a_soup_alone_is_the_mean(place: Path, tmp_path: Path) -> None:
    ptft(place / "one", place / "two", tmp_path / "soup")
    one, two, mixed = state(place / "one"), state(place / "two"), state(tmp_path / "soup")
    name = "text.token_embedding.weight"
    assert torch.equal(mixed[name], ((one[name].double() + two[name].double()) / 2).float())
    assert read_mix(tmp_path / "soup").alpha is None


@pytest.fixture(scope="module")
def found(place: Path) -> dict[float, dict[str, float]]:
    """By share: what the mix measures, each mixed and measured here."""
    start, trained = load_model(place / "start"), load_model(place / "one")
    found = {}
    for alpha in (0.0, *ALPHAS):
        model = interpolate(start, trained, alpha).eval()
        figures = evaluate(model, recipe().evaluate, recipe().data, seed=0, workers=0)["scenes"]
        found[alpha] = {I2T: figures["i2t_recall@5"], T2I: figures["t2i_recall@5"]}
    return found


def test_the_best_share_that_keeps_enough_is_written(
    found: dict[float, dict[str, float]], place: Path, tmp_path: Path
) -> None:
    """By the first run's own recipe; each share measured once."""
    best = max(ALPHAS, key=lambda alpha: (found[alpha][I2T], -alpha))
    shares = {alpha: found[alpha][T2I] / found[0.0][T2I] for alpha in ALPHAS}
    least = shares[best] + 1e-6
    kept = [alpha for alpha in ALPHAS if shares[alpha] >= least]
    assert kept and least <= 1.0, "the bound excludes the best share and leaves others"
    second = max(kept, key=lambda alpha: (found[alpha][I2T], -alpha))

    words = (place / "one", "--base", place / "start", "--alpha", "0.75,0.25,0.5")
    ptft(*words, tmp_path / "free")
    free = read_mix(tmp_path / "free")
    assert free.alpha == best
    assert [row["alpha"] for row in free.grid] == ALPHAS
    assert free.rule == f"the greatest {I2T}"
    for row in free.grid:
        figures = row["evaluation"]["scenes"]
        assert figures["i2t_recall@5"] == found[row["alpha"]][I2T]
    assert free.evaluation["scenes"]["i2t_recall@5"] == found[best][I2T]

    ptft(*words, tmp_path / "held", "--metric", I2T, "--keep", f"{T2I}={least}")
    held = read_mix(tmp_path / "held")
    assert held.alpha == second != best
    assert [row["alpha"] for row in held.grid] == [0.0, *ALPHAS]
    wanted = interpolate(load_model(place / "start"), load_model(place / "one"), second)
    assert all(torch.equal(t, wanted.state_dict()[n]) for n, t in state(tmp_path / "held").items())


def test_of_equal_shares_the_nearest_to_the_start(place: Path, tmp_path: Path) -> None:
    values = recipe().model_dump(mode="json", by_alias=True)
    values["evaluate"][0]["ks"] = [40]  # of 40: everything is found
    chosen = Choice(parse_recipe(values, where="test"))
    mixed = mix(
        [str(place / "one")],
        tmp_path / "out",
        base=str(place / "start"),
        alphas=[0.9, 0.1, 0.5],
        choice=chosen,
    )
    assert mixed.alpha == 0.1


def test_nothing_is_written_where_no_share_keeps_enough(
    found: dict[float, dict[str, float]], place: Path, tmp_path: Path
) -> None:
    far = [alpha for alpha in ALPHAS if found[alpha][T2I] < found[0.0][T2I]]
    assert far, "some share loses"
    out = tmp_path / "out"
    words = ("--base", place / "start", "--alpha", far[0], "--keep", f"{T2I}=1")
    with pytest.raises(UsageError, match=rf"no alpha keeps it .*at {far[0]:g}, less than 1 of"):
        ptft(place / "one", out, *words)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_a_start_and_is_exported(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "mixed"
    ptft(place / "one", out, "--base", place / "start", "--recipe", place / "one" / "recipe.yaml")
    record = read_mix(out)
    assert record.alpha == 0.5, "as WiSE-FT where nothing is chosen"
    assert (record.rule, len(record.grid)) == ("", 1)
    mixed = load_model(out)
    init = InitSection.model_validate({"from": str(out)})
    again = build_model(None, init, recipe().objective, seed=1).eval()
    for ours, theirs in zip(
        mixed(pictures(mixed), tokens(mixed)), again(pictures(mixed), tokens(mixed)), strict=True
    ):
        assert torch.equal(ours, theirs)

    info = export_model(out, tmp_path / "model", name="birds", precisions=())
    assert info.weights_digest == record.weights_digest
    assert FolderFiles.MIX in info.files and read_mix(tmp_path / "model") == record
    assert not (tmp_path / "model" / FolderFiles.RECIPE).exists(), "no recipe makes these weights"
    card = (tmp_path / "model" / FolderFiles.CARD).read_text()
    for parent in record.parents:
        assert f"| {parent.name} | 0.5 | `{parent.weights_digest}` |" in card
    assert "| scenes | i2t_recall@5 |" in card and "## Trained on" not in card
    assert str(place) not in (tmp_path / "model" / FolderFiles.MIX).read_text()
    assert read_model_info(tmp_path / "model").recipe_digest == ""


def test_changed_weights_are_noticed(place: Path, tmp_path: Path) -> None:
    ptft(place / "one", place / "two", out := tmp_path / "soup")
    save_model(load_model(place / "one"), out)
    with pytest.raises(DigestError, match=r"mix\.json records"):
        export_model(out, tmp_path / "model")
    (out / RunFiles.MIX).write_text('{"format": 2}')
    with pytest.raises(ArtifactError, match="format 2; this ptft reads 1"):
        ptft(out, place / "two", tmp_path / "again")


def changed(model: DualEncoder, **changes: Any) -> DualEncoder:
    model.spec = model.spec.with_(**changes)
    return model


@pytest.mark.parametrize("what", ["preprocess.mean", "model.quick_gelu", "tokenizer.clean"])
def test_models_that_read_or_compute_differently_are_refused(what: str, tmp_path: Path) -> None:
    """The shapes of their weights are the same."""
    one, two = build(arch_section(), seed=0), build(arch_section(), seed=1)
    spec = two.spec
    changes: dict[str, Any] = {
        "preprocess.mean": {"preprocess": type(spec.preprocess)(size=(32, 32), mean=(0.1,) * 3)},
        "model.quick_gelu": {"config": {**spec.config, "quick_gelu": False}},
        "tokenizer.clean": {"tokenizer": spec.tokenizer.with_(clean="canonicalize")},
    }[what]
    save_model(one, tmp_path / "one")
    save_model(changed(two, **changes), tmp_path / "two")
    with pytest.raises(ModelError, match=rf"two cannot be mixed: they differ in {what}: "):
        ptft(tmp_path / "one", tmp_path / "two", tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one", "OUT"], "one model is no mix; allowed: several, or one and --base"),
        (["one", "two", "OUT", "--alpha", "0.5"], "--alpha: a share against a start"),
        (["one", "OUT", "--base", "start", "--alpha", "1.5"], "--alpha: 1.5; allowed: 0 "),
        (["one", "OUT", "--base", "start", "--alpha", "0.5,0.5"], "allowed: each once"),
        (["one", "OUT", "--base", "start", "--alpha", "half"], "--alpha: 'half'; allowed: num"),
        (["one", "one", "OUT"], "one: the weights of .*one again"),
        (["one", "two", "start"], "start: something is there already"),
        (["one", "two", "OUT", "--metric", I2T], "--metric: nothing to choose"),
        (["one", "two", "OUT", "--keep", f"{I2T}=0.9"], "--keep: .*of a start; allowed with"),
        (["one", "OUT", "-b", "start", "--keep", f"{I2T}=2"], "more than 0, up to 1"),
        (["one", "OUT", "-b", "start", "--keep", I2T], "--keep: 'scenes.i2t_recall@5'; allowed"),
        (
            ["one", "OUT", "-b", "start", "-a", "0.1,0.2", "-m", "scenes.i2t_recall@1"],
            "--metric: 'scenes.i2t_recall@1'; did you mean 'scenes.i2t_recall@5'",
        ),
        (["start", "OUT", "-b", "one", "-a", "0.1,0.2"], "start: no recipe is recorded"),
        (["one", "OUT", "-b", "start", "-a", "0.1,0.2", "-r", "TEST"], "is of the test split"),
    ],
)
def test_bad_requests_say_what_is_allowed(
    words: list[str], message: str, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "test.yaml").write_text(dump_recipe(recipe("test")))
    paths = {name: place / name for name in ("one", "two", "start")}
    paths |= {"OUT": tmp_path / "out", "TEST": tmp_path / "test.yaml"}
    with pytest.raises(PtftError, match=message) as found:
        ptft(*(paths.get(word, word) for word in words))
    assert found.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_mix_is_written_through_no_link(place: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / ".mixed.partial").symlink_to(victim)
    with pytest.raises(ArtifactError, match="something else is there"):
        mix([str(place / "one"), str(place / "two")], tmp_path / "mixed")
    assert not list(victim.iterdir())


@pytest.mark.parametrize("name", ["model.json", "tokenizer.json", "model.safetensors"])
def test_a_mix_holds_all_that_it_is_opened_from(name: str, place: Path, tmp_path: Path) -> None:
    out = tmp_path / "soup"
    ptft(place / "one", place / "two", out)
    told: list[str] = []
    load_model(out, tell=told.append)
    assert not told
    content = bytearray((out / name).read_bytes())
    content[len(content) // 2] ^= 1
    (out / name).write_bytes(content)
    with pytest.raises(DigestError, match=rf"{name}: .*mix\.json records"):
        load_model(out)


def test_a_mix_from_before_says_what_is_not_held(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "soup"
    ptft(place / "one", place / "two", out)
    values = read_json(out / RunFiles.MIX)
    del values["files"]
    write_json(out / RunFiles.MIX, values)
    told: list[str] = []
    load_model(out, tell=told.append)
    (said,) = told
    assert said.endswith("mix.json records the weights alone; not held: model.json, tokenizer.json")
