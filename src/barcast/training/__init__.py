"""Training: datasets become models that can be saved, exported and compared.

`train_linear`, `train_universal` and `train_symbol` give a TrainedModel; `TrainedModel.predictions` its
answers as a frame, `TrainedModel.export` its served form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from barcast import lazy

if TYPE_CHECKING:
    from barcast.training.answering import ExportedModel, ModelInfo
    from barcast.training.compression import compressed
    from barcast.training.ensemble import train_ensemble
    from barcast.training.inputs import Inputs, fit_inputs
    from barcast.training.settings import PlainSettings, Settings
    from barcast.training.symbol import train_symbol
    from barcast.training.trained import TrainedModel
    from barcast.training.universal import train_linear, train_universal

__all__ = [
    "fit_inputs",
    "Inputs",
    "train_linear",
    "train_universal",
    "train_symbol",
    "train_ensemble",
    "compressed",
    "TrainedModel",
    "ExportedModel",
    "ModelInfo",
    "Settings",
    "PlainSettings",
]

_HOMES = {
    "fit_inputs": "inputs",
    "Inputs": "inputs",
    "train_linear": "universal",
    "train_universal": "universal",
    "train_symbol": "symbol",
    "train_ensemble": "ensemble",
    "compressed": "compression",
    "TrainedModel": "trained",
    "ExportedModel": "answering",
    "ModelInfo": "answering",
    "Settings": "settings",
    "PlainSettings": "settings",
}

__getattr__ = lazy.attributes(__name__, _HOMES)
