"""The error codes of gRPC and the one exception that handlers raise.

Data passes: a handler or the life cycle raises `StatusError`; the gRPC and REST doors turn it into their own answer.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from barcast.errors import ServingError

_LONGEST_MESSAGE = 1024


class Code(IntEnum):
    """gRPC's canonical codes (google.rpc.Code)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class StatusError(ServingError):
    """An answer other than OK: a canonical code and the text the client sees."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> StatusError:
    """An INVALID_ARGUMENT error."""
    return StatusError(Code.INVALID_ARGUMENT, message)


def precondition(message: str) -> StatusError:
    """A FAILED_PRECONDITION error."""
    return StatusError(Code.FAILED_PRECONDITION, message)


def unimplemented(message: str) -> StatusError:
    """An UNIMPLEMENTED error."""
    return StatusError(Code.UNIMPLEMENTED, message)


def not_found(message: str) -> StatusError:
    """A NOT_FOUND error."""
    return StatusError(Code.NOT_FOUND, message)


def deadline(message: str = "Deadline exceeded before the model answered.") -> StatusError:
    """A DEADLINE_EXCEEDED error."""
    return StatusError(Code.DEADLINE_EXCEEDED, message)


def from_exception(error: BaseException) -> StatusError:
    """`error` as a status: TensorFlow's own errors keep their code and message, others become INTERNAL."""
    if isinstance(error, StatusError):
        return error
    code: Any = getattr(error, "error_code", None)
    message: Any = getattr(error, "message", None)
    if isinstance(code, int) and 0 < code <= 16:
        return StatusError(Code(code), str(message or error))
    if isinstance(error, MemoryError):
        return StatusError(Code.RESOURCE_EXHAUSTED, "Out of memory")
    return StatusError(Code.INTERNAL, f"{type(error).__name__}: {error}")


def grpc_text(message: str) -> str:
    """`message` as gRPC carries it: cut at 1024 bytes, since it travels in a header."""
    raw = message.encode(errors="replace")
    if len(raw) <= _LONGEST_MESSAGE:
        return message
    return raw[:_LONGEST_MESSAGE].decode(errors="ignore") + "...TRUNCATED"
