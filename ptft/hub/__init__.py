"""Publish a model folder on the Hub, and fetch it back verified."""

from ptft.hub.kept import pull_kept
from ptft.hub.pull import pull_model
from ptft.hub.push import PushResult, push_model

__all__ = ["PushResult", "pull_kept", "pull_model", "push_model"]
