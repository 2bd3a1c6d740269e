"""TensorFlow Serving's batching parameter file, with the defaults of its scheduler."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from barcast.errors import ConfigError
from barcast.serving.model_server.messages import read_text
from barcast.serving.model_server.status import invalid


@dataclass(frozen=True)
class BatchingParameters:
    """How concurrent requests are joined.

    Attributes:
        max_batch_size: rows in one batch at most.
        batch_timeout_micros: longest wait of the first request of a batch that is not full.
        max_enqueued_batches: batches that may wait, per queue; more requests are refused (UNAVAILABLE).
        num_batch_threads: batches that run at the same time.
        allowed_batch_sizes: ascending; a batch is padded to the next one.
        pad_variable_length_inputs: inputs of unlike inner shapes are padded to the largest.
        enable_large_batch_splitting: a request larger than max_batch_size is cut instead of refused.
        max_execution_batch_size: rows in one piece of a cut request; 0 is max_batch_size.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = os.cpu_count() or 1
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0

    @property
    def largest_run(self) -> int:
        """Rows in one run at most."""
        if self.enable_large_batch_splitting and self.max_execution_batch_size:
            return self.max_execution_batch_size
        return self.max_batch_size

    def check(self) -> None:
        """Refuse sizes that contradict one another.

        Raises:
            StatusError: INVALID_ARGUMENT.
        """
        sizes = self.allowed_batch_sizes
        if list(sizes) != sorted(set(sizes)) or any(size < 1 for size in sizes):
            raise invalid(f"allowed_batch_sizes entries must be monotonically increasing, got {list(sizes)}")
        if sizes and sizes[-1] != self.largest_run:
            raise invalid(
                "final entry in allowed_batch_sizes must equal max_batch_size when enable_large_batch_splitting is "
                f"False, or max_execution_batch_size when it is True: {sizes[-1]} != {self.largest_run}"
            )


def read_parameters(path: Path) -> BatchingParameters:
    """The parameters in the text file at `path`.

    Raises:
        ConfigError: missing, not parsable, or a value that cannot be.
    """
    proto = read_text("BatchingParameters", path)
    given: dict[str, int] = {
        name: getattr(proto, name).value
        for name in (
            "max_batch_size",
            "batch_timeout_micros",
            "max_enqueued_batches",
            "num_batch_threads",
            "max_execution_batch_size",
        )
        if proto.HasField(name)
    }
    for name, value in given.items():
        if value < (0 if name == "batch_timeout_micros" else 1):
            raise ConfigError(f"{name} in {path} must be positive, got {value}.")
    return BatchingParameters(
        allowed_batch_sizes=tuple(proto.allowed_batch_sizes),
        pad_variable_length_inputs=proto.pad_variable_length_inputs,
        enable_large_batch_splitting=proto.enable_large_batch_splitting.value,
        **given,
    )
