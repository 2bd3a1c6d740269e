"""One FeatureService per model generation: its rows (training) and its window (serving)."""

from generation import definitions

generation_rows, generation_window = definitions.services
