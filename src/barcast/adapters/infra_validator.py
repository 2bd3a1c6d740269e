"""TFX's InfraValidator on the cluster: TensorFlow Serving itself, in a pod of its own, loads a candidate and answers.

TFX's runner makes the pod and its client waits for the model; its executor is left out, because it asks whether a
request is answered and the registry asks what is answered. Model folder in, address out, pod gone afterwards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from barcast.errors import ServingError

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@contextmanager
def serving_pod(model_path: Path, *, image: str, load_seconds: float = 300.0) -> Iterator[str]:
    """Address (host:port) of a TensorFlow Serving that has loaded the model.

    Args:
        model_path: `<base>/<model name>/<version>`, on a claim that any node can mount and that this pod mounts too.
        image: `name:tag`.
        load_seconds: time for the pod to start and the model to load.

    Raises:
        ServingError: this is no step of a Kubeflow pipeline, the pod did not run, or the model did not load.
    """
    from tfx.components.infra_validator import serving_bins
    from tfx.components.infra_validator.model_server_runners.kubernetes_runner import KubernetesRunner
    from tfx.proto import infra_validator_pb2

    if "KFP_NAMESPACE" not in os.environ and _NAMESPACE_FILE.is_file():
        os.environ["KFP_NAMESPACE"] = _NAMESPACE_FILE.read_text().strip()  # where TFX looks for it
    name, _, tag = image.rpartition(":")
    spec = infra_validator_pb2.ServingSpec(  # type: ignore[attr-defined]
        model_name=model_path.parent.name
    )
    spec.tensorflow_serving.image_name = name
    spec.tensorflow_serving.tags.append(tag)
    spec.kubernetes.active_deadline_seconds = int(load_seconds) + 600
    (binary,) = serving_bins.parse_serving_binaries(spec)
    try:
        runner = KubernetesRunner(str(model_path), binary, spec)
    except Exception as error:  # no cluster, no pod, no right to look: TFX raises what it met
        raise ServingError(
            f"TensorFlow Serving cannot be started for the infrastructure check: {error}",
            hint="It works in a step of Kubeflow Pipelines; elsewhere use `gate.infrastructure: embedded`.",
        ) from error
    deadline = time.time() + load_seconds
    try:
        try:
            runner.Start()
            runner.WaitUntilRunning(deadline)
            endpoint = runner.GetEndpoint()
            binary.MakeClient(endpoint).WaitUntilModelLoaded(deadline, polling_interval_sec=1)
        except Exception as error:
            raise ServingError(
                f"TensorFlow Serving ({image}) did not load {model_path.parent.name} version {model_path.name}: "
                f"{type(error).__name__}: {error}",
                hint=f"Its log ends: {_log(runner)}",
            ) from error
        yield endpoint
    finally:
        runner.Stop()


def _log(runner: object) -> str:
    try:
        text = runner.GetLogs()  # type: ignore[attr-defined]
    except Exception as error:  # the pod may be gone
        return f"not to be had ({type(error).__name__})"
    return (text or "empty")[-2000:]
