"""How many samples a rank forwards at once."""

from ptft.errors import RecipeError
from ptft.model import DualEncoder, active_batch_norm
from ptft.recipe import OptimSection

__all__ = ["micro_batch"]


def micro_batch(optim: OptimSection, model: DualEncoder, ranks: int) -> int:
    """Samples that a rank forwards at once.

    Raises:
        RecipeError: they do not divide the rank's share of the batch, or a batch norm would see
            each micro batch's statistics in place of the batch's.
    """
    share = optim.global_batch // ranks
    size = optim.micro_batch or share
    if share % size:
        raise RecipeError(
            f"optim.micro_batch: {size}: does not divide a rank's {share} samples "
            f"(optim.global_batch {optim.global_batch} over {ranks} ranks)"
        )
    norm = active_batch_norm(model)
    if size < share and norm is not None:
        raise RecipeError(
            f"optim.micro_batch: {size}: {norm} is a batch norm, which would see {size} samples "
            f"where the batch has {share}; allowed: adapt.freeze_norm: true, adapt.lock of that "
            "tower, or no micro batch"
        )
    return size
