"""Images and texts to arrays, the same in training, export and serving; no torch."""
