"""Hold artefacts against each other: recipe, run, model folder, Hub revision, running service."""

from ptft.verify.chain import verify
from ptft.verify.link import Link

__all__ = ["Link", "verify"]
