"""ptft as the first process of a container, to which the kernel hands no signal that has no
handler."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys, time
from ptft.cli import main
from ptft.train.part import Stop

def busy():
    {before}
    print("busy", flush=True)
    time.sleep(60)

main.app = busy
main.main()
"""


@pytest.mark.parametrize("before", ["pass", "Stop().__enter__()"], ids=["opening", "in a run"])
def test_sigterm_ends_it_before_there_is_anything_to_save(before: str) -> None:
    outer = ["unshare", "--pid", "--fork", "--kill-child"]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare (util-linux)")
    if subprocess.run([*outer, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to make a namespace of processes")
    command = [*outer, sys.executable, "-c", CODE.format(before=before)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "busy\n"
            (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            subprocess.run(["kill", f"-{signal.SIGTERM:d}", child], check=True)
            assert process.wait(50) == 128 + signal.SIGTERM
        finally:
            process.kill()
