"""Models: the network, its parts and presets, regimes, calibration, ensembles, and how a SavedModel answers."""
