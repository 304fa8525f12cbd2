"""The head on a vision transformer is transformers' OWL-ViT to the last rounding."""

import torch

from ptft.compat import prepare_torchvision
from ptft.export.owlvit import convert_detector
from ptft.model.detecting import query_embeddings
from tests.support.detectors import lively_detector


def test_logits_and_boxes_are_those_of_transformers() -> None:
    prepare_torchvision()
    from transformers import OwlViTConfig, OwlViTForObjectDetection

    model = lively_detector()
    converted = convert_detector(model)
    assert not isinstance(converted, str), converted
    theirs = OwlViTForObjectDetection(OwlViTConfig(**converted.config)).eval()
    missing, unexpected = theirs.load_state_dict(converted.state, strict=False)
    assert not unexpected
    assert not missing
    images = torch.randn(2, 3, 64, 64)
    classes = ["red circle", "blue square", "a star"]
    tokens = model.spec.tokenizer([f"a {name}" for name in classes])
    ids = torch.from_numpy(tokens).repeat(2, 1)
    with torch.no_grad():
        answer = theirs(input_ids=ids, pixel_values=images, attention_mask=torch.ones_like(ids))
        own = model.detect(images, query_embeddings(model, classes, ["a {}"]))
    assert (answer.logits - own.logits).abs().max() < 1e-5
    assert (answer.pred_boxes - own.boxes).abs().max() < 1e-5
    assert own.logits.std() > 0.05
