"""`ptft data pack`: a set written anew as shards, in pieces that a kill does not undo."""
