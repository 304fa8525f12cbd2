"""Embed every picture below a folder with the release's own model, as `ptft index` does.

The index takes the place of the one before it as a whole.

It runs inside the service's own image, which has no shell: python -c ... PICTURES INDEX THUMBNAILS.
"""

import logging
import shutil
import sys
from pathlib import Path

from ptft.errors import PtftError
from ptft.index.build import index_pictures
from serving.model import verify_model
from serving.settings import read_settings

pictures, index, thumbnails = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
logging.basicConfig(level=logging.INFO, format="%(message)s")  # what was left out, by name
new, old = index.with_name(f"{index.name}.new"), index.with_name(f"{index.name}.old")
for left in (new, old):  # of a job that was ended
    shutil.rmtree(left, ignore_errors=True)
try:
    settings = read_settings()
    info, _ = verify_model(settings)  # its digest, its signature and what it reads
    made = index_pictures(
        settings.model,
        pictures,
        new,
        precision=settings.precision,
        threads=settings.threads,
        thumbnails=thumbnails,
    )
except PtftError as error:
    sys.exit(str(error))
if index.exists():
    index.rename(old)
new.rename(index)
shutil.rmtree(old, ignore_errors=True)
sys.stdout.write(f"{index}: {made.count} pictures; model {info.digest}\n")
