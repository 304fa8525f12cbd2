"""What a machine runs: every value arrives as it was written, whatever shells lie between."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ptft.errors import RecipeError, UsageError
from ptft.launch import Form, Rendered, System
from ptft.launch.job import program
from ptft.recipe.load import load_recipe, recipe_digest
from tests.launch.parts import FORMS, Recorder, expanded, rendered

SCENES = "pretrain/scenes"
NASTY = (
    "objective.kind=clip",
    "data.style=shaded",
    "evaluate=[{kind: zero_shot, templates: ['$(touch /tmp/ptft-was-here) `id` {} $(HF_TOKEN)']}]",
    'run.dir=runs/it\'s "quoted" \\ $HOME; rm -rf x & (y) *',
)
RECIPE = """\
# $(touch /tmp/ptft-was-here) `id` 'single' "double" \\ end
# $(HF_TOKEN) $$(HF_TOKEN) $$$(HF_TOKEN) $$$
name: mine
model: {name: ViT-B-32}
data: {kind: scenes}
optim: {lr: 1.0e-3, samples_seen: 64, global_batch: 16}
# PTFT_RECIPE
"""


def nodes(made: Rendered, recorder: Recorder) -> list[list[str]]:
    """Words of what each machine's bash is called with, as the system would call it."""
    if made.file.endswith(".sky.yaml"):
        return [["bash", "-c", yaml.safe_load(made.text)["run"]]]
    if made.file.endswith(".yaml"):
        found = []
        for document in yaml.safe_load_all(made.text):
            if (container := _container(document)) is not None:
                words = [*container["command"], *container["args"]]
                found.append([expanded(word, {"HF_TOKEN": "x"}) for word in words])
        return found
    script = recorder.programs.parent / made.file
    script.write_text(made.text)
    if made.file.endswith(".sbatch"):
        return [["bash", str(script)]]
    assert recorder.run("bash", str(script)).returncode == 0
    return [words[words.index("bash") :] for words in recorder.called if words[0] == "hf"]


def _container(document: dict[str, Any]) -> dict[str, Any] | None:
    spec = document["spec"]
    match document["kind"]:
        case "Job":
            return spec["template"]["spec"]["containers"][0]
        case "JobSet":
            job = spec["replicatedJobs"][0]["template"]["spec"]
            return job["template"]["spec"]["containers"][0]
        case "TrainJob":
            return spec["trainer"]
    return None


SRUN = "os.execvp(sys.argv[2], sys.argv[2:])"
READS = "print(open(sys.argv[2]).read() if os.path.exists(sys.argv[2]) else '', end='')"


@pytest.mark.parametrize(("on", "form"), FORMS, ids=lambda part: str(part))
def test_every_value_arrives_as_it_was_written(on: System, form: Form, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a", srun=SRUN, scontrol="", hf="")
    made = rendered(SCENES, *NASTY, on=on, form=form, gpus=None, hf_jobs={"flavor": "cpu-xl"})
    for words in nodes(made, recorder):
        done = recorder.run(*words, HF_TOKEN="x")
        assert done.returncode == 0, done.stderr
    (called,) = [words for words in recorder.called if words[0] == "ptft"]
    assert called[:7] == ["ptft", "train", SCENES, *NASTY]
    assert called[-2:] == ["--resume", "auto"]
    mirror = "/mirror/runs/scenes" if on is System.SKYPILOT else "s3://bucket/runs/scenes"
    assert f"run.mirror={mirror}" in called
    assert not Path("/tmp/ptft-was-here").exists()


@pytest.mark.parametrize(("on", "form"), FORMS, ids=lambda part: str(part))
def test_a_recipe_file_goes_along_as_it_stands(on: System, form: Form, tmp_path: Path) -> None:
    (tmp_path / "my recipe.yaml").write_text(RECIPE)
    recorder = Recorder(tmp_path / "a", srun=SRUN, scontrol="", hf="", ptft=READS)
    made = rendered(
        str(tmp_path / "my recipe.yaml"),
        *("run.dir=x", "optim.lr=1e-4"),
        **{"on": on, "form": form, "gpus": None, "hf_jobs": {"flavor": "cpu-xl"}, "mirror": None},
    )
    printed = [recorder.run(*words, HF_TOKEN="x").stdout for words in nodes(made, recorder)]
    (called,) = [words for words in recorder.called if words[0] == "ptft"]
    assert called[3:] == [
        *("run.dir=x", "optim.lr=1e-4"),
        *(("run.max_minutes=718",) if on is System.HF_JOBS else ()),
        *("--resume", "auto"),
    ]
    assert printed == [RECIPE]


def test_a_mark_in_the_recipe_does_not_end_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a", ptft=READS)
    job = rendered(SCENES, on=System.SLURM, gpus=None).job
    marked = replace(job, recipe=None, text="a\nPTFT_RECIPE\nb\nPTFT_RECIPE_\n")
    assert recorder.run("bash", "-c", program(marked), HF_TOKEN="x").stdout == marked.text


def test_a_secret_that_is_not_there_ends_it_by_name(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a")
    words = nodes(rendered(SCENES, on=System.SKYPILOT), recorder)[0]
    env = dict.fromkeys(("HF_TOKEN",), "")
    done = recorder.run(*words, **env)
    assert done.returncode != 0
    assert "HF_TOKEN: is not set, and the launch file names it as a secret" in done.stderr
    assert recorder.called == []


@pytest.mark.parametrize(
    ("code", "starts", "again"),
    [(0, 0, 0), (1, 0, 0), (75, 9, 1), (143, 9, 1), (76, 0, 1), (76, 2, 1), (76, 3, 0)],
)
def test_slurm_starts_again_what_saved_and_three_times_what_lost_a_node(
    code: int, starts: int, again: int, tmp_path: Path
) -> None:
    """Of all nodes srun gives one code, so that a node that fails each time looks like one lost."""
    recorder = Recorder(tmp_path / "a", srun=f"sys.exit({code})", scontrol="")
    (words,) = nodes(rendered(SCENES, on=System.SLURM, nodes=2, retries=3), recorder)
    told = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(starts)}
    assert recorder.run(*words, **told).returncode == code
    called = [one for one in recorder.called if one[:2] == ["scontrol", "requeue"]]
    assert called == [["scontrol", "requeue", "7"]] * again


@pytest.mark.parametrize("code", [1, 2, 75, 76, 130, 143])
@pytest.mark.parametrize(("on", "form"), FORMS, ids=lambda part: str(part))
def test_the_system_is_told_the_code_that_the_run_ended_with(
    on: System, form: Form, code: int, tmp_path: Path
) -> None:
    ends = f"sys.exit({code})"
    for gpus in ("a100-80x1", "a100-80x8"):
        programs = {"ptft": ends, "python3": ends, "srun": SRUN, "scontrol": "", "hf": ""}
        place = tmp_path / gpus
        place.mkdir()
        recorder = Recorder(place / "a", **programs)
        (words,) = nodes(rendered(SCENES, on=on, form=form, gpus=gpus), recorder)
        env = {"SLURM_JOB_ID": "1", "JOB_COMPLETION_INDEX": "0", "HF_TOKEN": "x"}
        assert recorder.run(*words, **env).returncode == code


def test_a_spot_machine_of_skypilot_is_asked_whether_it_is_taken_away(tmp_path: Path) -> None:
    """Beside the run, which keeps the process that the watcher was told."""
    told, made = tmp_path / "told", rendered(SCENES, on=System.SKYPILOT, gpus="a100-80x1")
    writes = f"open({str(told)!r}, 'w').write(' '.join(sys.argv[1:]))"
    told.touch()
    waits = (
        "import time\nfor _ in range(6000):\n    time.sleep(0.01 * (not os.path.getsize({!r})))\n"
    )
    waits = waits.format(str(told)) + "print(os.getpid())"
    recorder = Recorder(tmp_path / "a", watcher=writes, ptft=waits)
    (words,) = nodes(made, recorder)
    done = recorder.run(*words, HF_TOKEN="x")
    assert told.read_text() == f"-m ptft.launch.notice {done.stdout.strip()}"
    for on, spot in ((System.SKYPILOT, False), (System.SLURM, False), (System.HF_JOBS, False)):
        assert "notice" not in rendered(SCENES, on=on, spot=spot).text


def test_what_each_system_starts_again() -> None:
    """What the table of codes on the page about GPUs says; HF Jobs starts again whatever failed."""
    again = [75, 143]
    sky = yaml.safe_load(rendered(SCENES, on=System.SKYPILOT).text)
    assert sky["resources"]["job_recovery"]["recover_on_exit_codes"] == again
    assert "case $code in 75|143)" in rendered(SCENES, on=System.SLURM).text
    for form in (Form.JOB, Form.JOBSET):
        text = rendered(SCENES, on=System.KUBERNETES, form=form).text
        (job,) = [one for one in yaml.safe_load_all(text) if one["kind"] in ("Job", "JobSet")]
        spec = job["spec"]
        if form is Form.JOBSET:
            spec = spec["replicatedJobs"][0]["template"]["spec"]
        rules = spec["podFailurePolicy"]["rules"]
        (codes,) = [rule["onExitCodes"] for rule in rules if "onExitCodes" in rule]
        assert codes["values"] == again


@pytest.mark.parametrize("gpus", [1, 8])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("on", "form"), FORMS, ids=lambda part: str(part))
def test_torchrun_is_told_of_ranks_as_the_system_numbers_them(
    on: System, form: Form, gpus: int, count: int, tmp_path: Path
) -> None:
    python = {"python3": ""}
    recorder = Recorder(tmp_path / "a", srun=SRUN, scontrol="print('node1')", hf="", **python)
    made = rendered(SCENES, on=on, form=form, gpus=f"a100-80x{gpus}", nodes=count)
    env = {"SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2", "SKYPILOT_NODE_RANK": "1"}
    env |= {"JOB_COMPLETION_INDEX": "1", "HF_NETWORK_GROUP_PREFIX": "g-", "HF_TOKEN": "x"}
    env |= {"SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "1"}
    for words in nodes(made, recorder):
        done = recorder.run(*words, **env)
        assert done.returncode == 0, done.stderr
    called = [words for words in recorder.called if words[0] in ("ptft", "python3")][-1]
    if gpus * count == 1:
        assert called[:3] == ["ptft", "train", SCENES]
        return
    from torch.distributed.run import parse_args

    assert called[:3] == ["python3", "-m", "ptft.launch.ranks"]
    told = parse_args(called[3:])
    assert told.training_script == "ptft"
    assert told.training_script_args[:2] == ["train", SCENES]
    assert told.shutdown_timeout == 120
    if form is not Form.TRAINJOB:
        assert told.nproc_per_node == str(gpus)
    if count == 1:
        assert told.standalone
    elif form is not Form.TRAINJOB:
        heads = {System.SKYPILOT: "10.0.0.1", System.SLURM: "node1", System.HF_JOBS: "g-node-0"}
        head = "scenes-0.scenes" if form is Form.JOB else "scenes-node-0-0.scenes"
        assert (told.nnodes, told.node_rank) == ("2", 1)
        assert (told.master_addr, told.master_port) == (heads.get(on, head), 29500)
        assert told.rdzv_conf == "timeout=1800"


def test_what_a_system_is_not_told_is_said() -> None:
    told = {on: "\n".join(rendered(SCENES, on=on, nodes=2).notes) for on in System}
    assert "image: " in told[System.SLURM]
    assert "hours: 12.0: not used" in told[System.SKYPILOT]
    assert "spot: True: not used" in told[System.HF_JOBS]
    assert "a disk of its own" in told[System.KUBERNETES]
    none = rendered(SCENES, on=System.KUBERNETES)
    assert none.notes == ()


REFUSED: dict[str, tuple[System, dict[str, Any], str]] = {
    "nodes of a comparison": (System.SLURM, {"nodes": 2}, "nodes: 2: of one run"),
    "workers apart": (System.SKYPILOT, {"workers": 2, "mirror": None}, "workers: 2: each has a"),
    "a bucket without claims": (
        *(System.HF_JOBS, {"workers": 2, "mirror": "hf://buckets/me/runs"}),
        "mirror: 'hf://buckets/me/runs': 2 workers claim",
    ),
    "no image": (System.KUBERNETES, {"image": None}, "image: missing"),
    "no Secret": (System.KUBERNETES, {"kubernetes": {}}, "kubernetes.secret: missing"),
    "no such machine": (System.HF_JOBS, {"gpus": "a100-80x2"}, "gpus: 'a100-80x2': HF Jobs have"),
    "no time left": (System.HF_JOBS, {"hours": 0.03}, "hours: 0.03: grace_seconds: 120"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_system_does_not_have_is_refused(case: str) -> None:
    on, changes, told = REFUSED[case]
    with pytest.raises(UsageError) as raised:
        rendered("compare/scenes", on=on, **changes)
    assert str(raised.value).startswith(told)


def test_workers_are_of_a_comparison(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="workers: 4: of a comparison, which 'pretrain/scenes'"):
        rendered(SCENES, on=System.SLURM, workers=4)
    made = rendered("compare/scenes", on=System.SLURM, workers=4).text
    assert "#SBATCH --array=0-3\n" in made
    assert "--resume auto --worker\n" in made
    (job,) = yaml.safe_load_all(rendered("compare/scenes", on=System.KUBERNETES, workers=4).text)
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (4, 4)
    task = yaml.safe_load(rendered("compare/scenes", on=System.SKYPILOT, workers=4).text)
    assert task["num_nodes"] == 4
    recorder = Recorder(tmp_path / "a", hf="")
    gpu = {"gpus": None, "hf_jobs": {"flavor": "cpu-xl"}}
    for words in nodes(rendered("compare/scenes", on=System.HF_JOBS, workers=4, **gpu), recorder):
        assert recorder.run(*words, HF_TOKEN="x").returncode == 0
    called = [words for words in recorder.called if words[0] == "ptft"]
    assert [words[:3] + words[-1:] for words in called] == [
        ["ptft", "compare", "compare/scenes", "--worker"]
    ] * 4


def test_a_comparison_has_a_mirror_that_workers_share_unmounted() -> None:
    mounted = rendered("compare/scenes", on=System.SKYPILOT)
    assert "run.dir=/tmp/ptft/compare-scenes" in mounted.text
    assert "run.mirror=/mirror/runs/compare-scenes" in mounted.text
    several = rendered("compare/scenes", on=System.SKYPILOT, workers=2)
    assert "run.mirror=s3://bucket/runs/compare-scenes" in several.text
    assert "/mirror" not in several.text
    elsewhere = rendered("compare/scenes", on=System.HF_JOBS)
    assert "run.mirror=s3://bucket/runs/compare-scenes" in elsewhere.text
    assert "--max-minutes 718" in elsewhere.text
    shared = rendered(
        *("compare/scenes",),
        **{"on": System.KUBERNETES, "runs": "/shared", "mirror": None, "workers": 2},
        kubernetes={"secret": "tokens", "claim": "shared", "node_selector": {"pool": "gpu"}},
    )
    assert "run.dir=/shared/compare-scenes" in shared.text
    assert shared.notes == ()


def test_the_last_copy_is_waited_for_less_than_the_grace() -> None:
    assert "mirror_grace" not in rendered(SCENES, on=System.SLURM).text
    assert (
        "run.mirror_grace_seconds=20 " in rendered(SCENES, on=System.SLURM, grace_seconds=40).text
    )


def test_a_recipe_that_is_wrong_is_refused_before_anything_is_rented(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"optim\.learning_rate: unknown key"):
        rendered(SCENES, "optim.learning_rate=1", on=System.SLURM)
    large = tmp_path / "large.yaml"
    large.write_text(RECIPE + "#" * 70_000)
    with pytest.raises(RecipeError, match="it goes along with the job; allowed: at most 65,536"):
        rendered(str(large), on=System.SLURM)


def test_its_digest_does_not_depend_on_where_it_ran() -> None:
    digests = set()
    for on in System:
        made = rendered(SCENES, "optim.lr=1e-4", on=on)
        kept = [one for one in made.job.settings if not one.startswith("run.m")]  # what runs have
        digests.add(recipe_digest(load_recipe(SCENES, kept)))
    assert digests == {recipe_digest(load_recipe(SCENES, ["optim.lr=1e-4"]))}
