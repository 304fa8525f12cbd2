"""What builds the image, and is not in it."""
