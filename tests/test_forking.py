"""A signal to the whole group, as terminals and schedulers send it, is one process's alone."""

import subprocess
import sys
from pathlib import Path


def test_a_forked_process_and_its_server_let_it_pass() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.group_signal"],
        cwd=Path(__file__).parents[1],
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, ["7", "7"]), done.stderr
