"""What a model finds nearest, before and after training, for the page."""
