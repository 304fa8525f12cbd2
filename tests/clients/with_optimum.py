"""optimum-onnx, with the tokenizer and the image processor of transformers."""

import torch
from optimum.onnxruntime import ORTModelForCustomTasks
from run import Embeddings, Task
from transformers import AutoImageProcessor, AutoTokenizer


def embed(task: Task) -> Embeddings:
    text, vision = (
        ORTModelForCustomTasks.from_pretrained(
            task.repo, subfolder="onnx", file_name=f"{name}_model.onnx"
        )
        for name in ("text", "vision")
    )
    tokenizer = AutoTokenizer.from_pretrained(task.repo)
    processor = AutoImageProcessor.from_pretrained(task.repo, use_fast=False)
    texts = tokenizer(task.captions, padding="max_length", truncation=True, return_tensors="pt")
    tokens = {name: torch.from_numpy(rows) for name, rows in task.tokens.items()}
    pixels = torch.from_numpy(task.pixel_values)
    return {
        "same_image": vision(pixel_values=pixels)["image_embeds"].numpy(),
        "same_text": text(**tokens)["text_embeds"].numpy(),
        "image": vision(**processor(task.pictures, return_tensors="pt"))["image_embeds"].numpy(),
        "text": text(**texts)["text_embeds"].numpy(),
    }
