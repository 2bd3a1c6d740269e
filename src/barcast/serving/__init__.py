"""From a closed bar to an answer: windows from the online store, the model over gRPC, context, explanation,
log.

Nothing heavy is imported here: names resolve when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from barcast import lazy

if TYPE_CHECKING:
    from barcast.serving.client import ModelClient
    from barcast.serving.predictor import Predictor, open_predictor
    from barcast.serving.types import Prediction

__all__ = ["ModelClient", "Prediction", "Predictor", "open_predictor"]

_HOMES = {
    "ModelClient": "client",
    "Prediction": "types",
    "Predictor": "predictor",
    "open_predictor": "predictor",
}

__getattr__ = lazy.attributes(__name__, _HOMES)
