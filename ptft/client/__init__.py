"""A client of the service: pictures and texts to embeddings, classes, boxes, scores and rankings.

::

    from ptft.client import ServiceClient

    with ServiceClient("http://localhost:3000") as service:
        found = service.embed_pictures(["cat.jpg", "dog.png"])
        print(found.rows.shape, found.failed)

Long lists are cut into requests of a size that the service takes, which go side by side. A service
that is busy is asked again when its ``Retry-After`` says so. What is wrong comes as
:class:`ptft.errors.ServiceError` and its kin. :class:`AsyncServiceClient` is the same for asyncio.

Neither torch nor the rest of ptft is imported.
"""

from ptft.client.aio import AsyncServiceClient
from ptft.client.answers import (
    EmbeddedItems,
    FoundBox,
    ItemClasses,
    PictureBoxes,
    PictureScores,
    RankedItem,
    ServiceModel,
)
from ptft.client.sync import ServiceClient

__all__ = [
    "AsyncServiceClient",
    "EmbeddedItems",
    "FoundBox",
    "ItemClasses",
    "PictureBoxes",
    "PictureScores",
    "RankedItem",
    "ServiceClient",
    "ServiceModel",
]
