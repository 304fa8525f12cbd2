"""The run folder: where a run lies, whose it is, what it began with and how far it has come."""
