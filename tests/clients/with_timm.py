"""timm, which knows the image tower and its projection."""

import timm
import torch
from run import Embeddings, Task


def embed(task: Task) -> Embeddings:
    tower = timm.create_model(f"hf_hub:{task.repo}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=tower))
    pixels = torch.stack([transform(picture) for picture in task.pictures])
    return {
        "same_image": tower(torch.from_numpy(task.pixel_values)).numpy(),
        "image": tower(pixels).numpy(),
    }
