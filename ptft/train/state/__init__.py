"""What learns and what is remembered of it: averages, the best weights, the pull to the start."""
