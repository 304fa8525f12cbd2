"""What a step takes before a run is begun: memory predicted, seconds measured."""
