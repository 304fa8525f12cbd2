"""Fuzzers of everything that reads what a stranger wrote.

A target is files by name, drawn by hypothesis, and what reads them (``harness.Target``).
``tests/test_fuzz.py`` runs a few fixed examples of each; ``python -m tests.fuzz`` runs new ones for
as long as it is told.
"""
