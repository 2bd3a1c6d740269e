"""What the server was asked to do: TensorFlow Serving's flags, plus a few of our own, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The server's settings; names and defaults are `tensorflow_model_server`'s unless said otherwise.

    Ours: `bind_address` (TensorFlow Serving listens everywhere, we on this machine only), `xla_*` (TensorFlow
    Serving's XLA is off by default), `allow_partial_start` (open the ports although a model failed to load),
    `ready_fd` (a pipe that is told the bound ports).
    """

    port: int = 8500
    rest_api_port: int = -1  # -1: off; 0: any free port (TensorFlow Serving's 0 means off, see flags.py)
    grpc_socket_path: str = ""
    bind_address: str = "127.0.0.1"
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: Path | None = None
    model_config_file_poll_wait_seconds: float = 0.0
    file_system_poll_wait_seconds: float = 1.0
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    num_load_threads: int = 0
    allow_version_labels_for_unavailable_models: bool = False
    enable_batching: bool = False
    batching_parameters_file: Path | None = None
    enable_per_model_batching_parameters: bool = False
    monitoring_config_file: Path | None = None
    ssl_config_file: Path | None = None
    rest_api_timeout_in_ms: int = 30_000
    rest_api_enable_cors_support: bool = False
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 1
    enforce_session_run_timeout: bool = True
    enable_signature_method_name_check: bool = False
    enable_serialization_as_tensor_content: bool = False
    enable_grpc_healthcheck_service: bool = False
    saved_model_tags: tuple[str, ...] = ("serve",)
    grpc_max_threads: int = 16
    grpc_channel_arguments: tuple[tuple[str, str | int], ...] = ()
    tensorflow_intra_op_parallelism: int = 0
    tensorflow_inter_op_parallelism: int = 0
    xla_cpu_compilation_enabled: bool = True
    xla_batch_sizes: tuple[int, ...] = (1, 8, 32)
    xla_cache_directory: Path | None = None
    allow_partial_start: bool = False
    log_level: str = "warning"
    ready_fd: int = -1

    def address(self, port: int) -> str:
        """`port` on the address it listens on."""
        return address(self.bind_address, port)


def address(host: str, port: int) -> str:
    """host:port; an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
