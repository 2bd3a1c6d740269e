"""Training: datasets become models that can be saved, exported and compared."""
