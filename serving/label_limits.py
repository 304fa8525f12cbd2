"""What a request may ask for of labels and templates, refused before any is written out."""

from collections.abc import Sequence

from serving import schema
from serving.asked import Asked
from serving.inputs import too_many
from serving.labels import expanded_characters
from serving.refusal import Refusal

__all__ = ["check_labels"]


def check_labels(asked: Asked, labels: Sequence[str], templates: Sequence[str]) -> None:
    """Refuse labels in templates that are too many or too long.

    Raises:
        Refusal: 413.
    """
    settings = asked.settings
    prompts = len(labels) * len(templates)
    too_many(prompts, settings, settings.max_prompts, "labels times templates")
    characters, longest = expanded_characters(labels, templates)
    for found, most, what in (
        (longest, schema.MAX_TEXT, "a label in a template"),
        (characters, settings.max_characters, "labels in templates (PTFT_MAX_CHARACTERS)"),
    ):
        if found > most:
            raise Refusal(
                413, "too_many_characters", f"{what}: {found} characters; allowed: at most {most}"
            )
