"""The rendered release, as far as it goes without a cluster: the real service in the environment
of the server's container, asked by the command of `helm test`.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

from ptft.artifact import read_model_info

from .conftest import CHART, ChartUnderTest, environment

REPOSITORY = CHART.parents[1]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_release_answers_helm_test(
    ptft_chart: ChartUnderTest, classifier_folder: Path, tmp_path: Path
) -> None:
    folder, scratch, port = classifier_folder, tmp_path / "tmp", free_port()
    digest = read_model_info(folder).digest
    scratch.mkdir()
    settings = {"model.path": str(folder), "model.digest": digest, "serving.threads": 1}
    release = ptft_chart.render({**settings, "serving.maxBodyBytes": 33554432})
    given = environment(release.server)
    variables = {
        name: value if name.startswith("PTFT_") else value.replace("/tmp", str(scratch))
        for name, value in given.items()
    }
    variables |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}  # the image's own
    serve = [sys.executable, "-m", "bentoml", "serve", "serving.service:Ptft", "--port", str(port)]
    log = (tmp_path / "log").open("w+")
    with log, subprocess.Popen(serve, env=variables, cwd=REPOSITORY, stdout=log, stderr=log) as run:
        try:
            (container,) = release.get("Pod")["spec"]["containers"]
            _, *arguments, _ = container["command"]
            command = [sys.executable, *arguments, f"http://127.0.0.1:{port}"]
            asked = subprocess.run(command, capture_output=True, text=True, timeout=180)
        finally:
            run.terminate()
        assert run.wait(60) == 0
        log.seek(0)
        assert asked.returncode == 0, asked.stderr + log.read()
    assert f"model {digest}" in asked.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"tmp", "log"}
