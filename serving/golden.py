"""The golden embeddings of a model folder: what this process must give before it may serve.

Digests show that the bytes are the right ones. Golden embeddings show that this onnxruntime, on
this machine, makes of them what the checkpoint did.
"""

from pathlib import Path

import numpy as np

from ptft.artifact import FolderFiles, GoldenKeys
from ptft.errors import ArtifactError
from ptft.golden import TOLERANCE, difference, probabilities, read_golden
from serving.model import Model

__all__ = ["check_golden"]


def check_golden(model: Model, folder: Path) -> None:
    """Encode the golden inputs and compare.

    Raises:
        ArtifactError: the file is absent, or an output is not the recorded one.
    """
    path, golden = folder / FolderFiles.GOLDEN, read_golden(folder)
    tolerance = TOLERANCE[model.precision]
    tokens = model.tokenizer(golden.texts)
    try:
        golden.check_tokens(tokens)
        images = model.encode_images(list(model.preprocess.normalise(golden.pixels)))
        worst = {
            GoldenKeys.IMAGE_EMBEDS: difference(images, golden.image_embeds, "images"),
            GoldenKeys.TEXT_EMBEDS: difference(
                model.encode_texts(list(tokens)), golden.text_embeds, "texts"
            ),
        }
    except ArtifactError as error:
        raise ArtifactError(f"{path}: {error}") from None
    for key, found in worst.items():
        if not found <= tolerance:  # NaN is beyond it too
            raise ArtifactError(
                f"{path}: {key} differs by {found:.2e} from what the checkpoint gave; "
                f"allowed: {tolerance:g}"
            )
    if model.has_head and golden.class_logits is not None:
        wanted = probabilities(golden.class_logits)
        # a logit scale of 100 turns a difference of 1e-4 in an embedding into one of 1e-2
        found = float(np.abs(model.head_probabilities(images) - wanted).max())
        if not found <= 100 * tolerance:
            raise ArtifactError(f"{path}: class probabilities differ by {found:.2e}")
