"""Runs a compiled pipeline as Kubeflow's launcher would, without Docker: each step in a place of its own.

`kfp.local` walks the graph; each step's command is the one that the container would run, in an empty folder that holds
only the step's inputs and is gone afterwards. A claim is there only for the steps that mount it.

python pods.py PIPELINE FOLDER   (FOLDER holds arguments.json; mnt/state and mnt/models are the claims' paths)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import yaml

CLAIMS = {"state": "mnt/state", "models": "mnt/models"}
ONE_AT_A_TIME = threading.Lock()  # the claims' paths are the same for all steps


def main() -> None:
    from kfp import components, local
    from kfp.local import subprocess_task_handler

    from barcast.adapters import kubeflow

    name, folder = sys.argv[1], Path(sys.argv[2])
    _, platform = yaml.safe_load_all(kubeflow.compiled(name).read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    mounts = {
        key.removeprefix("exec-").replace("-", "_"): [m["constant"] for m in value.get("pvcMount", [])]
        for key, value in executors.items()
    }

    def run(full_command: list[str], env_vars: dict[str, str] | None = None) -> int:
        with ONE_AT_A_TIME:
            return pod(full_command, folder, mounts)

    subprocess_task_handler.run_local_subprocess = run
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(folder / "artifacts"),
        raise_on_error=True,
    )
    arguments = json.loads((folder / "arguments.json").read_text())
    components.load_component_from_text(kubeflow._tried_once(kubeflow.compiled(name).read_text()))(
        **arguments
    )


def pod(command: list[str], folder: Path, mounts: dict[str, list[str]]) -> int:
    """One step: inputs in, command, outputs out."""
    at = command.index("--executor_input") + 1
    step = command[command.index("--function_to_execute") + 1]
    given = json.loads(command[at])
    mounted = [claim for claim in CLAIMS if claim in mounts[step]]
    for claim in mounted:
        place = folder / CLAIMS[claim]
        place.parent.mkdir(exist_ok=True)
        (folder / f"claim-{claim}").mkdir(exist_ok=True)
        place.symlink_to(folder / f"claim-{claim}")
    home = Path(tempfile.mkdtemp(prefix=f"pod-{step}-"))
    back = stage(given, home)
    inside = [*command[:at], json.dumps(given), *command[at + 1 :]]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BARCAST_")} | {"HOME": str(home)}
    print(f"pod {step}: {', '.join(mounted) or 'no claim'}", flush=True)
    code = subprocess.run(inside, cwd=home, env=environment, check=False).returncode
    for source, target in back:
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                text = source.read_bytes()
                if source.name == "executor_output.json":
                    for inner, outer in back:
                        text = text.replace(f'"{inner}"'.encode(), f'"{outer}"'.encode())
                target.write_bytes(text)
    shutil.rmtree(home)
    for claim, path in CLAIMS.items():
        place = folder / path
        if claim in mounted:
            place.unlink()
        assert not place.exists(), f"{step} wrote to {claim} and does not mount it"
    return code


def stage(given: dict[str, Any], home: Path) -> list[tuple[Path, Path]]:
    """Move every path of an executor input into `home`; what has to go back afterwards, as (inside, outside)."""
    back = []
    for name, listed in given.get("inputs", {}).get("artifacts", {}).items():
        for number, artifact in enumerate(listed["artifacts"]):
            source, inner = Path(artifact["uri"]), home / "in" / f"{name}-{number}"
            inner.parent.mkdir(exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, inner)
            elif source.exists():
                shutil.copy(source, inner)
            artifact["uri"] = str(inner)
    outputs = given["outputs"]
    for name, listed in outputs.get("artifacts", {}).items():
        (home / "out").mkdir(exist_ok=True)
        for artifact in listed["artifacts"]:
            inner = home / "out" / name
            back.append((inner, Path(artifact["uri"])))
            artifact["uri"] = str(inner)
    for name, parameter in outputs.get("parameters", {}).items():
        inner = home / "parameters" / name
        back.append((inner, Path(parameter["outputFile"])))
        parameter["outputFile"] = str(inner)
    inner = home / "executor_output.json"
    back.append((inner, Path(outputs["outputFile"])))
    outputs["outputFile"] = str(inner)
    return back


if __name__ == "__main__":
    main()
