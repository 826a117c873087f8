"""Files of weights: what is published where, fetched, told by their bytes, and read without running code."""
