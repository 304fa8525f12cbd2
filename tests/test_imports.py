"""Every module of ptft is imported where the modules of POSIX alone are absent, as on Windows."""

import subprocess
import sys

PROGRAM = """
import importlib, pkgutil, sys
import filelock  # which has a way of its own there
for name in ("fcntl", "resource"):
    sys.modules[name] = None  # an import of it is an ImportError
import ptft
names = [module.name for module in pkgutil.walk_packages(ptft.__path__, "ptft.")]
names = [name for name in names if not name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_ptft_is_imported_without_the_modules_of_posix() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout.split()[-1]) > 200
