"""Messages that TensorFlow Serving reads from text files but `tensorflow-serving-api` does not carry.

Built from field lists (names and types as in TensorFlow Serving's .proto files): batching parameters, TLS and
monitoring configuration, and gRPC's health protocol.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

from barcast.errors import ConfigError

_FieldProto = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "int64": _FieldProto.TYPE_INT64,
    "bool": _FieldProto.TYPE_BOOL,
    "string": _FieldProto.TYPE_STRING,
    "enum": _FieldProto.TYPE_INT32,
}
_WRAPPERS = {
    "Int64Value": ".google.protobuf.Int64Value",
    "BoolValue": ".google.protobuf.BoolValue",
    "StringValue": ".google.protobuf.StringValue",
}
_MESSAGES: dict[str, list[str]] = {
    "BatchingParameters": [
        "max_batch_size Int64Value",
        "batch_timeout_micros Int64Value",
        "max_enqueued_batches Int64Value",
        "num_batch_threads Int64Value",
        "thread_pool_name StringValue",
        "allowed_batch_sizes *int64",
        "pad_variable_length_inputs bool",
        "enable_large_batch_splitting BoolValue",
        "max_execution_batch_size Int64Value",
    ],
    "SSLConfig": ["server_key string", "server_cert string", "custom_ca string", "client_verify bool"],
    "PrometheusConfig": ["enable bool", "path string"],
    "MonitoringConfig": ["prometheus_config PrometheusConfig"],
    "HealthCheckRequest": ["service string"],
    "HealthCheckResponse": ["status enum"],
}


def _build() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="barcast/model_server_messages.proto",
        package="barcast.model_server",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, line in enumerate(fields, start=1):
            field_name, _, kind = line.partition(" ")
            repeated = kind.startswith("*")
            kind = kind.removeprefix("*")
            field = message.field.add(name=field_name, number=number)
            field.label = _FieldProto.LABEL_REPEATED if repeated else _FieldProto.LABEL_OPTIONAL
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type = _FieldProto.TYPE_MESSAGE
                field.type_name = _WRAPPERS.get(kind, f".barcast.model_server.{kind}")
    pool = descriptor_pool.DescriptorPool()
    wrappers = descriptor_pb2.FileDescriptorProto()
    wrappers_pb2.DESCRIPTOR.CopyToProto(wrappers)
    pool.Add(wrappers)
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"barcast.model_server.{name}")) for name in _MESSAGES}


CLASSES = _build()


def read_text(kind: str, path: Path) -> Any:
    """The message `kind` parsed from the text-format file at `path`.

    Raises:
        ConfigError: the file is missing or cannot be parsed.
    """
    return parse_text(CLASSES[kind](), path, kind)


def parse_text(message: Any, path: Path, kind: str) -> Any:
    """Fill `message` from the text-format file at `path`; `kind` names it in the error."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Cannot read {kind} file {path}: {error}") from error
    try:
        return text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise ConfigError(f"Error parsing text-format {kind} in {path}: {error}") from error
