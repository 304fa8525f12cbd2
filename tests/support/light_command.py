"""``ptft``, which then says what of the heavy libraries it imported."""

import sys

from ptft.cli.main import main

HEAVY = {"torch", "torchvision", "open_clip", "timm", "transformers", "onnxruntime", "matplotlib"}

if __name__ == "__main__":
    try:
        main()
        code: str | int = 0
    except SystemExit as stop:
        code = stop.code or 0
    loaded = sorted({name.partition(".")[0] for name in sys.modules} & HEAVY)
    sys.stderr.write(" ".join(["loaded:", *loaded]) + "\n")
    sys.exit(code)
