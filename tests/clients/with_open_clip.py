"""open_clip, from the Hub (``hf-hub:``) or from a folder (``local-dir:``)."""

import open_clip
import torch
from run import Embeddings, Task


def embed(task: Task) -> Embeddings:
    local = task.options["scheme"] == "local-dir"
    name = f"local-dir:{task.folder}" if local else f"hf-hub:{task.repo}"
    model, transform = open_clip.create_model_from_pretrained(name)
    model.eval()
    tokens = open_clip.get_tokenizer(name)(task.captions)
    pixels = torch.stack([transform(picture) for picture in task.pictures])
    return {
        "same_image": model.encode_image(torch.from_numpy(task.pixel_values)).numpy(),
        "same_text": model.encode_text(torch.from_numpy(task.tokens["input_ids"])).numpy(),
        "image": model.encode_image(pixels).numpy(),
        "text": model.encode_text(tokens).numpy(),
    }
