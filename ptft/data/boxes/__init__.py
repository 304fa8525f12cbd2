"""Pictures with boxes: what a box is, where boxes are read from, and how pictures with boxes are
varied in training."""
