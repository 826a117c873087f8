"""Vectors of clips: from a run of a clip model to files of vectors with their times."""
