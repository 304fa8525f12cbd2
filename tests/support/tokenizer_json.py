"""Tokenizer files of small vocabularies, and of libraries of before."""

import json

from tokenizers import Tokenizer

MARKS = [  # special tokens that people write
    "a cat <|endoftext|> dog",
    "a <|startoftext|> cat<|endoftext|>",
    "a cat <end_of_text> dog",
    "a cat<END_OF_TEXT>dog",
    "<START_OF_TEXT>",
    "!<end_of_text>",
    "!<end_of_text><end_of_text><start_of_text> a <end_of_text>",
    "<start_of_text><end_of_text>><end_of_text>",
    "it's<end_of_text> 1<end_of_text>é<end_of_text>·<end_of_text>\u0345<end_of_text>",
    "a &lt;end_of_text&gt; dog &amp;lt;start_of_text&amp;gt;",
    "end of text",
    "<end_of_text>\n_<end_of_text>",
    "<<end_of_text>>",
    "[SEP] [CLS]a[SEP]cat [PAD] [MASK] [sep]",
    "</s> a<s>b</s> <pad> <unk> </S>",
]


def old_json(clip_json: str) -> str:
    """The file as ptft wrote it before the marks had open_clip's names."""
    names = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    values = json.loads(clip_json)
    step = values["normalizer"]["normalizers"].pop()
    assert "_of_text" in step["pattern"]["Regex"]
    text = json.dumps(values, ensure_ascii=False)
    for new, old in names.items():
        text = text.replace(f'"{new}"', f'"{old}"')
    return text.replace('"normalized": true', '"normalized": false')


def bert_json() -> str:
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import BertProcessing

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "photo", "of", "##s", "&", "the", "!"]
    tokenizer = Tokenizer(WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(words[:4])
    return tokenizer.to_str()
