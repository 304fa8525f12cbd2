"""``python -m tests.clients`` makes the clients' environments in the user's cache folder, or where
XDG_CACHE_HOME is.
"""

import sys

from tests.clients.environments import (
    CYCLONEDX,
    LAUNCHERS,
    MODEL_SIGNING,
    OPENVINO,
    cache_folder,
    make,
)
from tests.clients.harness import ENVIRONMENTS
from tests.clients.http_harness import HTTP_ENVIRONMENT

if __name__ == "__main__":
    for name in (*ENVIRONMENTS, HTTP_ENVIRONMENT, CYCLONEDX, LAUNCHERS, MODEL_SIGNING, OPENVINO):
        sys.stdout.write(f"{make(name, cache_folder())}\n")
