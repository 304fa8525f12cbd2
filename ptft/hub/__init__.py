"""Publish a model folder on the Hub, and fetch it back verified."""

from ptft.hub.pull import pull_model
from ptft.hub.push import PushResult, push_model

__all__ = ["PushResult", "pull_model", "push_model"]
