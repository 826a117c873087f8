"""Actions in tiny videos: from labeled clips on disk to a trained classifier, its scores and its pictures."""
