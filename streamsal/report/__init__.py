"""One page about a run: film, timeline, shots, methods."""
