"""Reads `tensorflow_model_server`'s command line, so that scripts written for the one run the other.

Flags that have no meaning here are accepted with a warning; flags that ask for something we cannot do are refused.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NoReturn

from barcast import __version__
from barcast.errors import ConfigError, did_you_mean
from barcast.serving.model_server.options import Options

_HELP = {
    "port": "gRPC port; 0 takes any free one",
    "rest_api_port": "REST port; 0 is off (as in TensorFlow Serving), `auto` takes any free one",
    "grpc_socket_path": "also listen on this unix socket",
    "bind_address": "(barcast) address to listen on; 0.0.0.0 for all, as TensorFlow Serving does",
    "model_name": "name of the one model, with --model_base_path",
    "model_base_path": "folder of the version folders of the one model",
    "model_config_file": "ModelServerConfig in text format: many models",
    "model_config_file_poll_wait_seconds": "read the configuration file again every so often; 0 never",
    "file_system_poll_wait_seconds": "look for new versions every so often; 0 once",
    "max_num_load_retries": "repeats after a failed load",
    "load_retry_interval_micros": "wait between the repeats",
    "num_load_threads": "loads at the same time; 0 is one after the other",
    "allow_version_labels_for_unavailable_models": "a new label may name a version not loaded yet",
    "enable_batching": "join concurrent requests into one run",
    "batching_parameters_file": "BatchingParameters in text format",
    "enable_per_model_batching_parameters": "read batching_params.pbtxt in each version folder",
    "monitoring_config_file": "MonitoringConfig in text format; Prometheus on the REST port",
    "ssl_config_file": "SSLConfig in text format: TLS for gRPC",
    "rest_api_timeout_in_ms": "longest REST request",
    "rest_api_enable_cors_support": "send CORS headers",
    "enable_model_warmup": "replay assets.extra/tf_serving_warmup_requests before a version answers",
    "num_request_iterations_for_warmup": "times each warm-up request is replayed",
    "enforce_session_run_timeout": "stop work whose client deadline has passed",
    "enable_signature_method_name_check": "a signature answers only its own method",
    "enable_serialization_as_tensor_content": "outputs as raw bytes instead of typed fields",
    "enable_grpc_healthcheck_service": "offer grpc.health.v1.Health",
    "saved_model_tags": "comma-separated tags of the graph to load",
    "grpc_max_threads": "model runs at the same time without batching",
    "grpc_channel_arguments": "comma-separated key=value pairs for the gRPC server",
    "tensorflow_intra_op_parallelism": "threads inside one operation; 0 is all cores",
    "tensorflow_inter_op_parallelism": "operations at the same time; 0 is all cores",
    "xla_cpu_compilation_enabled": "compile signatures with XLA at load (here on by default)",
    "xla_batch_sizes": "(barcast) batch sizes compiled at load; requests are padded to the next one",
    "xla_cache_directory": "(barcast) keep compiled code here, shared by models of one architecture",
    "allow_partial_start": "(barcast) open the ports although a model failed to load",
    "log_level": "(barcast) debug, info, warning or error",
    "ready_fd": "(barcast) file descriptor that is told the ports, once ready",
}
# TensorFlow Serving's flags that change nothing here, and why nothing is lost.
_WITHOUT_EFFECT = (
    "enable_profiler",
    "enable_request_logging",
    "flush_filesystem_caches",
    "grpc_socket_permissions",
    "num_unload_threads",
    "per_process_gpu_memory_fraction",
    "remove_unused_fields_from_bundle_metagraph",
    "rest_api_num_threads",
    "skip_initialize_tpu",
    "tensorflow_session_parallelism",
    "thread_pool_factory_config_file",
    "use_alts_credentials",
)
_REFUSED = (
    "platform_config_file",
    "prefer_tflite_model",
    "mixed_precision",
    "tensorflow_session_config_file",
)


_LEAST = {
    "file_system_poll_wait_seconds": 0,
    "max_num_load_retries": 0,
    "load_retry_interval_micros": 0,
    "num_load_threads": 0,
    "num_request_iterations_for_warmup": 0,
    "rest_api_timeout_in_ms": 1,
    "grpc_max_threads": 1,
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"barcast-model-server: {message}.", hint="See barcast-model-server --help.")


def _boolean(text: str) -> bool:
    if text.lower() in ("1", "true", "t", "yes", "y"):
        return True
    if text.lower() in ("0", "false", "f", "no", "n"):
        return False
    raise argparse.ArgumentTypeError(f"expected true or false, got {text!r}")


def _port(text: str) -> int:
    if text == "auto":
        return 0
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port between 0 and 65535, got {text!r}")
    return number


def _rest_port(text: str) -> int:
    return _port(text) if text == "auto" else (_port(text) or -1)


def _arguments(text: str) -> tuple[tuple[str, str | int], ...]:
    pairs: list[tuple[str, str | int]] = []
    for part in filter(None, text.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"expected key=value, got {part!r}")
        pairs.append((key, int(value) if value.lstrip("-").isdigit() else value))
    return tuple(pairs)


_TYPES: dict[str, Any] = {
    "port": _port,
    "rest_api_port": _rest_port,
    "model_config_file": Path,
    "batching_parameters_file": Path,
    "monitoring_config_file": Path,
    "ssl_config_file": Path,
    "xla_cache_directory": Path,
    "grpc_channel_arguments": _arguments,
    "saved_model_tags": lambda text: tuple(filter(None, text.split(","))),
    "xla_batch_sizes": lambda text: tuple(sorted({int(part) for part in text.split(",") if part})),
}


def _parser() -> _Parser:
    parser = _Parser(prog="barcast-model-server", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"barcast-model-server {__version__}")
    for field in dataclasses.fields(Options):
        flag = f"--{field.name}"
        default: Any = field.default
        if isinstance(default, bool):
            parser.add_argument(
                flag, nargs="?", const=True, default=default, type=_boolean, help=_HELP[field.name]
            )
        else:
            kind = _TYPES.get(field.name, type(default))
            parser.add_argument(flag, default=default, type=kind, help=_HELP[field.name])
    return parser


def _one_dash(argument: str) -> str:
    # TensorFlow's own flag parser accepts --flag only; a single dash is a frequent slip worth accepting.
    return (
        f"-{argument}"
        if argument.startswith("-") and argument[1:2].isalpha() and len(argument) > 2
        else argument
    )


def parse(arguments: list[str]) -> tuple[Options, list[str]]:
    """Options from the command line, and warnings about flags without effect.

    Raises:
        ConfigError: an unknown flag (with the nearest known one), a bad value, or flags that exclude one another.
    """
    parser = _parser()
    known, unknown = parser.parse_known_args([_one_dash(argument) for argument in arguments])
    warnings = []
    for argument in unknown:
        name = argument.lstrip("-").partition("=")[0]
        if name in _REFUSED:
            raise ConfigError(
                f"--{name} is not offered by the embedded server.",
                hint="Use TensorFlow Serving itself for it.",
            )
        if argument.startswith("--") and name in _WITHOUT_EFFECT:
            warnings.append(f"--{name} has no effect in the embedded server")
        elif argument.startswith("--"):
            raise ConfigError(f"Unknown flag --{name}.", hint=did_you_mean(name, _HELP))
        elif not warnings:
            raise ConfigError(f"Unexpected argument {argument!r}.", hint="Flags are written --name=value.")
    options = Options(**vars(known))
    _check(options)
    return options, warnings


def _check(options: Options) -> None:
    if not options.model_base_path and options.model_config_file is None:
        raise ConfigError("No model to serve.", hint="Give --model_base_path or --model_config_file.")
    if options.batching_parameters_file is not None and not options.enable_batching:
        raise ConfigError("--batching_parameters_file was given without --enable_batching.")
    if options.monitoring_config_file is not None and options.rest_api_port < 0:
        raise ConfigError(
            "--monitoring_config_file needs the REST port.",
            hint="Give --rest_api_port, e.g. --rest_api_port=8501.",
        )
    if any(size < 1 for size in options.xla_batch_sizes) or not options.xla_batch_sizes:
        raise ConfigError(f"--xla_batch_sizes must be positive, got {options.xla_batch_sizes}.")
    for name, least in _LEAST.items():
        value = getattr(options, name)
        if not value >= least:
            raise ConfigError(f"--{name} must be at least {least}, got {value}.")
