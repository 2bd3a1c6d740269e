"""What every request has in common: the spec of an answer, inputs checked and decoded, outputs chosen."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numpy.typing import NDArray
from tensorflow_serving.apis import model_pb2

from barcast.serving.model_server.servable import Servable
from barcast.serving.model_server.status import invalid, unimplemented
from barcast.serving.model_server.tensors import decode

DEFAULT_SIGNATURE = "serving_default"


@lru_cache(maxsize=1024)
def spec_bytes(name: str, version: int, signature: str) -> bytes:
    """The serialized ModelSpec of an answer."""
    spec = model_pb2.ModelSpec(name=name, signature_name=signature)
    spec.version.value = version
    return bytes(spec.SerializeToString())


def fill_spec(target: Any, servable: Servable, signature: str = "") -> None:
    """Name the version that answered: always its number, never a label."""
    target.name = servable.name
    target.version.value = servable.version
    target.signature_name = signature


def _check_names(wanted: Any, defaults: Any, given: Any) -> None:
    extra, missing = sorted(set(given) - set(wanted)), sorted(set(wanted) - set(given) - set(defaults))
    if len(given) > len(wanted) or (len(given) < len(wanted) and missing and not defaults):
        missing = sorted(set(wanted) - set(given))
        raise invalid(
            f"input size does not match signature: {len(given)}!={len(wanted)} len({{{','.join(sorted(given))}}}) != "
            f"len({{{','.join(sorted(wanted))}}}). Sent extra: {{{','.join(extra)}}}. "
            f"Missing but required: {{{','.join(missing)}}}."
        )
    for alias in missing:
        raise invalid(
            f"Signature input alias: {alias}(feed name: {wanted[alias].name}) not found in request and no default "
            f"value provided. Inputs expected to be in the request {{{','.join(sorted(wanted))}}}, or default input "
            f"alias set: {{{','.join(sorted(defaults))}}}"
        )
    if extra:
        raise invalid(
            f"Inputs contains invalid name. Used request inputs: {{{','.join(sorted(set(given) & set(wanted)))}}}, "
            f"request input: {{{','.join(sorted(given))}}}"
        )


def decode_inputs(signature: Any, given: Any) -> dict[str, NDArray[Any]]:
    """The request's tensors as arrays, the signature's defaults where allowed.

    Args:
        signature: the SignatureDef.
        given: TensorProtos by alias.

    Raises:
        StatusError: INVALID_ARGUMENT naming what is missing, surplus or unreadable.
    """
    wanted, defaults = signature.inputs, signature.defaults
    if len(given) != len(wanted) or not all(alias in given for alias in wanted):
        _check_names(wanted, defaults, given)
    arrays = {}
    for alias, info in wanted.items():
        if info.WhichOneof("encoding") != "name":
            raise unimplemented(
                f"Input {alias} is sparse or composite; the embedded server takes dense tensors"
            )
        arrays[alias] = decode(given[alias] if alias in given else defaults[alias], alias)
    return arrays


def select_outputs(signature: Any, output_filter: Any) -> list[str]:
    """The output aliases asked for; all of them for an empty filter.

    Raises:
        StatusError: INVALID_ARGUMENT for an unknown or repeated alias.
    """
    known = sorted(signature.outputs)
    chosen: list[str] = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{','.join(known)}}}."
            )
        if alias in chosen:
            raise invalid(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    chosen = chosen or known
    for alias in chosen:
        if signature.outputs[alias].WhichOneof("encoding") != "name":
            raise unimplemented(
                f"Output {alias} is sparse or composite; the embedded server gives dense tensors"
            )
    return chosen
