"""From samples to batches: order, decoding, workers, faults, kept features."""
