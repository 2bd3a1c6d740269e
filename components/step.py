"""The one decorator of all steps: our image, nothing installed when a step starts.

Either of `packages_to_install` and `install_kfp_package` would run pip at every task start.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from kfp import dsl

IMAGE = os.environ.get("BARCAST_STEP_IMAGE", "barcast/steps:0.1.0")


def step(function: Callable[..., Any]) -> Any:
    """A lightweight kfp component made of `function`, running in barcast's own image."""
    return dsl.component(base_image=IMAGE, install_kfp_package=False)(function)
