"""transformers 4 or 5, by its Auto classes; pictures by Pillow, or by torchvision if told."""

import torch
import transformers
from run import Embeddings, Task


def embed(task: Task) -> Embeddings:
    model = transformers.AutoModel.from_pretrained(task.repo).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(task.repo)
    backend = task.options.get("backend", "pil")
    how = {"use_fast": False} if transformers.__version__ < "5" else {"backend": backend}
    processor = transformers.AutoImageProcessor.from_pretrained(task.repo, **how)
    tokens = {name: torch.from_numpy(rows) for name, rows in task.tokens.items()}
    same = model(pixel_values=torch.from_numpy(task.pixel_values), **tokens)
    texts = tokenizer(task.captions, padding="max_length", truncation=True, return_tensors="pt")
    whole = model(**texts, **processor(task.pictures, return_tensors="pt"))
    return {
        "same_image": same.image_embeds.numpy(),
        "same_text": same.text_embeds.numpy(),
        "image": whole.image_embeds.numpy(),
        "text": whole.text_embeds.numpy(),
    }
