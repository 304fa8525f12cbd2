"""How the service answers with a model folder, on its card."""

from collections.abc import Sequence

from ptft.artifact import ModelInfo
from ptft.export.card_boxes import detector_service
from ptft.export.card_pictures import pictures_service
from ptft.pages.markdown import filled, literal, quoted

__all__ = ["service"]

_SERVICE = """\
From a checkout of ptft, with this folder's path in `PTFT_MODEL`:

```sh
bentoml serve serving.service:Ptft
```

```sh
curl http://localhost:3000/v1/embed/text -H 'Content-Type: application/json' \\
  -d {question}
curl http://localhost:3000/v1/embed/image -F images=@picture.jpg
curl http://localhost:3000/v1/classify {classify}
```
"""


def service(info: ModelInfo, examples: Sequence[str], *, asked: bool) -> list[str]:
    """Commands that ask it, as Markdown.

    Args:
        examples: two texts of the kind that the model knows.
        asked: whether texts are of use.
    """
    texts = ", ".join(map(literal, examples))
    # A model that was trained on classes answers with those, any other has to be told some.
    named = [] if info.classes else examples
    # --form-string, since -F reads a file where a text begins with @ or <
    labels = "".join(f" --form-string {quoted(f'labels={text}')}" for text in named)
    text = f" --form-string {quoted(f'texts={examples[0]}')}"
    classify = {
        "image": f"-F images=@picture.jpg{labels}",
        "text": text.strip(),
        "both": f"-F images=@picture.jpg{text}",
    }[info.reads]
    question = quoted(f'{{"texts": [{texts}]}}')
    shown = filled(_SERVICE, question=question, classify=classify)
    parts = ["### The service\n", shown if asked else pictures_service(classify=bool(info.classes))]
    if info.task == "detect":
        parts.append(detector_service(info))
    return parts
