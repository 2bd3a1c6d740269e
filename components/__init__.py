"""The pipeline steps: one folder each, a typed kfp signature over one function of `barcast.steps`."""
