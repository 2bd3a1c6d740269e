"""TensorFlow Serving's compiled messages, loaded without importing TensorFlow.

`tensorflow_serving.apis.predict_pb2` imports `tensorflow.core.framework.tensor_pb2`, and with it all of
TensorFlow (5 s, 500 MB). The messages need nothing of it: while they load, empty stand-in packages whose
`__path__` points at the real folders replace the packages' own `__init__`; afterwards the stand-ins are
taken out again, so that a later `import tensorflow` finds a clean table. protobuf's pool accepts the same
file twice.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

from barcast.errors import ServingError

_ROOTS = ("tensorflow", "tensorflow_serving")
_PACKAGES = (
    "tensorflow",
    "tensorflow.core",
    "tensorflow.core.framework",
    "tensorflow.core.protobuf",
    "tensorflow.core.example",
    "tensorflow_serving",
    "tensorflow_serving.apis",
    "tensorflow_serving.config",
    "tensorflow_serving.util",
)
_lock = threading.Lock()
_loaded: dict[str, ModuleType] = {}


def _belongs(name: str) -> bool:
    return name.partition(".")[0] in _ROOTS


def _stand_ins() -> list[str]:
    """Put the stand-in packages in place; the names put there."""
    for name in _PACKAGES:
        parent, _, leaf = name.rpartition(".")
        search = list(sys.modules[parent].__path__) if parent else None
        spec = PathFinder.find_spec(leaf if not parent else name, search)
        if spec is None or not spec.submodule_search_locations:
            if name in _ROOTS:
                raise ServingError(
                    f"The package {name} is not installed.",
                    hint="Install the pinned requirements (make run).",
                )
            continue
        module = ModuleType(name)
        module.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = module
    return [name for name in sys.modules if _belongs(name)]


def load(name: str) -> Any:
    """The compiled message module `name`, e.g. "tensorflow_serving.apis.predict_pb2"; loaded once.

    Raises:
        ServingError: TensorFlow or tensorflow-serving-api is not installed.
    """
    with _lock:
        if name not in _loaded:
            if "tensorflow" in sys.modules:
                _loaded[name] = importlib.import_module(name)
            else:
                try:
                    _stand_ins()
                    _loaded[name] = importlib.import_module(name)
                finally:
                    for made in [module for module in sys.modules if _belongs(module)]:
                        del sys.modules[made]
        return _loaded[name]


predict_pb2 = load("tensorflow_serving.apis.predict_pb2")
tensor_pb2 = load("tensorflow.core.framework.tensor_pb2")
types_pb2 = load("tensorflow.core.framework.types_pb2")
get_model_status_pb2 = load("tensorflow_serving.apis.get_model_status_pb2")
get_model_metadata_pb2 = load("tensorflow_serving.apis.get_model_metadata_pb2")
model_server_config_pb2 = load("tensorflow_serving.config.model_server_config_pb2")
