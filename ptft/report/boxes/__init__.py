"""What a detector finds, and what it gets wrong, for the page."""
