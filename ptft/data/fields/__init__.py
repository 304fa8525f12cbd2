"""What the values beside a picture mean: labels and classes, captions, rows of one picture."""
