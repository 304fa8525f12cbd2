"""Images and texts to arrays, the same in training, export and serving; no torch."""

from ptft.preprocess.clip_vocabulary import clip_bpe_json
from ptft.preprocess.decoding import Reading, decode_image
from ptft.preprocess.images import Augmentation, ImagePreprocess
from ptft.preprocess.texts import TextTokenizer

__all__ = [
    "Augmentation",
    "ImagePreprocess",
    "Reading",
    "TextTokenizer",
    "clip_bpe_json",
    "decode_image",
]
