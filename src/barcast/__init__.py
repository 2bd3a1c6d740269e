"""barcast: from price bars of many symbols to served, explained and governed predictions."""

import os

# TensorFlow reads this once, when it is first imported; a user's own setting wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

__version__ = "0.1.0"
