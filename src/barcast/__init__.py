"""barcast: from price bars of many symbols to served, explained and governed predictions."""

import atexit
import gc
import os

# TensorFlow reads this once, when it is first imported; a user's own setting wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# A process that ends needs no last search for cycles: among TensorFlow's graphs it takes a second or two.
atexit.register(gc.freeze)

__version__ = "0.1.0"
