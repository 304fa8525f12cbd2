"""Shards: members found through an index, near or far, and packed."""
