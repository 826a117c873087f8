"""How well maps predict gaze: metrics, baselines, and one pass over a run."""
