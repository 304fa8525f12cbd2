"""``python -m tests.clients`` makes the clients' environments: under a gigabyte in the user's cache,
elsewhere with XDG_CACHE_HOME."""

from tests.clients.environments import cache_folder, make
from tests.clients.harness import ENVIRONMENTS

if __name__ == "__main__":
    for name in ENVIRONMENTS:
        print(make(name, cache_folder()))
