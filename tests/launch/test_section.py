"""The launch file: closed, with near misses, and never part of a recipe."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import JobHardware

from ptft.cards import find_machine, known_cards
from ptft.errors import RecipeError
from ptft.launch import LaunchFile, load_launch
from tests.launch.parts import FULL

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt key": ({"gpu": "h100"}, "gpu: unknown key; did you mean 'gpus'?"),
    "a misspelt key, nested": (
        {"kubernetes": {"secrets": "a"}},
        "kubernetes.secrets: unknown key; did you mean 'secret'?",
    ),
    "a card that is none": ({"gpus": "h10x8"}, "gpus: 'h10x8': no card that is known; did you"),
    "no nodes": ({"nodes": 0}, "nodes: 0: "),
    "a secret's value": (
        {"env": {"HF_TOKEN": "hf_" + "a" * 34}},
        "env.HF_TOKEN: holds a token of the Hub, which is not shown here; allowed: its name alone",
    ),
    "a secret that is no name": ({"secrets": ["HF_TOKEN=x"]}, "secrets.0: "),
    "a directive in a name": ({"slurm": {"partition": "a\n#SBATCH --uid=0"}}, "slurm.partition: "),
    "an image that is two words": ({"image": "a b"}, "image: "),
    "an image that is an option": ({"image": "--privileged"}, "image: "),
    "a mirror of two lines": ({"mirror": "s3://a\nb"}, "mirror: "),
    "a mirror that is everything": ({"mirror": "/"}, "mirror: "),
    "hours that are not": ({"hours": 0}, "hours: "),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_by_key_and_value(case: str, tmp_path: Path) -> None:
    values, told = WRONG[case]
    path = tmp_path / "cloud.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError) as raised:
        load_launch(path)
    assert str(raised.value).startswith(f"{path}: {told}")
    assert "aaaa" not in str(raised.value)


def test_keys_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "cloud.yaml"
    path.write_text(yaml.safe_dump(FULL))
    launch = load_launch(path, ["gpus=h100x4", "kubernetes.queue=team", "image=null"])
    assert (launch.gpus, launch.kubernetes.queue, launch.image) == ("h100x4", "team", None)
    assert launch.machine is not None
    assert launch.machine.count == 4
    assert load_launch(None) == LaunchFile()


@pytest.mark.parametrize("text", ["- a", "a: &a [*a]", "{", "\x00"])
def test_what_is_no_launch_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cloud.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError):
        load_launch(path)
    with pytest.raises(RecipeError, match="No such file"):
        load_launch(tmp_path / "none.yaml")


def test_the_schema_of_a_launch_file_is_one_that_holds_it() -> None:
    import jsonschema

    from ptft.launch import launch_json_schema

    schema = launch_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(FULL, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"gpu": "h100"}, schema)
    undescribed = [
        key for key, value in schema["properties"].items() if "$ref" in json.dumps(value)
    ]
    assert set(undescribed) == {"skypilot", "slurm", "kubernetes", "hf_jobs"}


def test_cards_are_found_by_name_and_number() -> None:
    assert find_machine("H100x8", "gpus").label == "h100x8"
    assert find_machine("a100-80", "gpus").count == 1
    assert find_machine("rtx4090x2", "gpus").card.name == "NVIDIA GeForce RTX 4090"
    with pytest.raises(RecipeError, match="did you mean 'a100-80' or 'a100-40'"):
        find_machine("a100x8", "--on")
    with pytest.raises(RecipeError, match="0 GPUs; allowed: 1 to"):
        find_machine("h100x0", "--on")


def test_every_card_is_plausible_and_says_where_it_is_from() -> None:
    """What a slip of a digit would break: a card's arithmetic in relation to its bandwidth."""
    for key, card in known_cards().items():
        assert len(card.source) > 20, key
        assert 8 <= card.memory_gb <= 400, key
        assert 5 <= card.fp32_tflops <= 200, key
        assert 10 <= 1000 * (card.bf16_tflops or card.fp32_tflops) / card.bandwidth_gb <= 600, key
        assert all(1 <= count <= 16 for count in card.hf_jobs), key


def test_the_flavours_are_those_of_the_client() -> None:
    known = {one.value for one in JobHardware}
    ours = {name for card in known_cards().values() for name in card.hf_jobs.values()}
    assert ours <= known, ours - known
