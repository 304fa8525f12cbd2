"""The head of a classifier: a linear layer on the image embedding, and a cache beside it or none.

Shape letters: B batch, D width of the joint space, C classes, K keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Classifier"]


class Classifier(nn.Linear):
    """Rows ``weight`` (C, D) and ``bias`` (C,); of a Tip-Adapter (Zhang et al. 2022) also a cache.

    Attributes:
        keys: (K, D), L2-normalised embeddings of pictures that were remembered, or None.
        labels: int64 (K,), their classes, or None.
        alpha: (1,), what the cache's vote counts beside the rows'.
        beta: (1,), how quickly a key's vote falls with the distance to it.
    """

    keys: nn.Parameter | None
    labels: Tensor | None
    alpha: Tensor | None
    beta: Tensor | None

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes)
        self.register_parameter("keys", None)
        for name in ("labels", "alpha", "beta"):
            self.register_buffer(name, None)

    def remember(self, keys: Tensor, labels: Tensor, *, alpha: float, beta: float) -> None:
        """Put a cache of ``keys`` (K, D) and their ``labels`` (K,) beside the rows."""
        device, dtype = self.weight.device, self.weight.dtype
        self.keys = nn.Parameter(keys.to(device, dtype, copy=True))
        self.labels = labels.to(device, torch.int64, copy=True)
        self.alpha = torch.full((1,), alpha, device=device, dtype=dtype)
        self.beta = torch.full((1,), beta, device=device, dtype=dtype)

    def logits(self, image_bd: Tensor, scale: Tensor) -> Tensor:
        """L2-normalised embeddings (B, D) -> logits (B, C).

        scale * (f . W^T) + b, and of a cache also alpha * the sum over its keys of a class of
        exp(-beta * (1 - f . key)).
        """
        logits_bc = self.linear(image_bd, scale)
        if self.keys is None:
            return logits_bc
        assert self.alpha is not None
        return logits_bc + self.alpha * self.votes(image_bd)

    def linear(self, image_bd: Tensor, scale: Tensor) -> Tensor:
        """Logits (B, C) of the rows and the bias alone."""
        return scale * F.linear(image_bd, self.weight) + self.bias

    def votes(self, image_bd: Tensor) -> Tensor:
        """L2-normalised embeddings (B, D) -> the cache's sums (B, C), without alpha."""
        assert self.keys is not None and self.labels is not None and self.beta is not None
        near_bk = torch.exp(-self.beta * (1.0 - F.linear(image_bd, self.keys)))
        # a product, since adding by index is not deterministic on a GPU
        return near_bk @ F.one_hot(self.labels, self.out_features).to(near_bk.dtype)

    @torch.no_grad()
    def divide(self, temperature: float) -> None:
        """Divide the logits by a temperature, in place; the model's scale stays as it is for
        embeddings' other uses, so that rows carry it."""
        for part in (self.weight, self.bias, self.alpha):
            if part is not None:
                part.div_(temperature)
