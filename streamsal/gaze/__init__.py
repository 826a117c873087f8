"""Where people looked: one table for all sources of gaze data, and who reads which."""
