"""How the embedded model server is started; on a cluster TensorFlow Serving has its own configuration."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from barcast.config.base import Section


class ModelServer(Section):
    """The embedded model server of one machine."""

    bind_address: str = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0 lets other machines in."
    )
    port: int = Field(8500, ge=0, le=65535, description="gRPC port; 0 takes any free one.")
    rest_api_port: int = Field(0, ge=0, le=65535, description="REST and metrics port; 0 is off.")
    config_poll_seconds: float = Field(1.0, gt=0, description="How often models.config is read again.")
    storage_poll_seconds: float = Field(
        1.0, gt=0, description="How often new version folders are looked for."
    )
    max_load_retries: int = Field(2, ge=0, description="Repeats after a version failed to load.")
    load_retry_seconds: float = Field(5.0, ge=0, description="Wait between the repeats.")
    batching: bool = Field(False, description="Join concurrent requests into one run.")
    xla: bool = Field(True, description="Compile each model with XLA when it is loaded.")
    intra_op_threads: int = Field(
        1,
        ge=0,
        description="Threads inside one operation: 1 leaves the other cores to other requests, 0 takes all.",
    )

    def flags(
        self, model_config_file: Path, batch_sizes: tuple[int, ...], cache_directory: Path | None = None
    ) -> dict[str, object]:
        """The flags of `barcast-model-server` for this configuration.

        Args:
            model_config_file: the workspace's models.config.
            batch_sizes: sizes to compile for, as the clients ask (`serving.batch_sizes`).
            cache_directory: where compiled code is kept between starts.
        """
        return {
            "model_config_file": model_config_file,
            "model_config_file_poll_wait_seconds": self.config_poll_seconds,
            "file_system_poll_wait_seconds": self.storage_poll_seconds,
            "bind_address": self.bind_address,
            "port": self.port,
            "rest_api_port": self.rest_api_port,
            "max_num_load_retries": self.max_load_retries,
            "load_retry_interval_micros": int(self.load_retry_seconds * 1e6),
            "allow_version_labels_for_unavailable_models": True,
            "allow_partial_start": True,
            "enable_batching": self.batching,
            "xla_cpu_compilation_enabled": self.xla,
            "xla_batch_sizes": batch_sizes,
            "xla_cache_directory": cache_directory,
            "tensorflow_intra_op_parallelism": self.intra_op_threads,
        }
