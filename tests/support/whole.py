"""Tests that take minutes of a slow machine: ``make whole`` and the workflow run them as well."""

import os

import pytest

__all__ = ["WHOLE"]

WHOLE = pytest.mark.skipif(
    os.environ.get("PTFT_TEST_WHOLE") != "1", reason="minutes: make whole (PTFT_TEST_WHOLE=1)"
)
