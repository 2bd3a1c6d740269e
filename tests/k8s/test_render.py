"""Rendering without kustomize: each rule against what kustomize's documentation says, the whole against kubectl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import cluster_files as files
import pytest
import yaml

render = files.render_module.render


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("overlay", files.OVERLAYS)
def test_kubectl_kustomize_gives_the_same_objects(overlay: str) -> None:
    folder = files.ROOT / "k8s" / "overlays" / overlay
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

    def by_key(manifests: list[files.Manifest]) -> dict[tuple[str, str], files.Manifest]:
        return {(m["kind"], m["metadata"]["name"]): m for m in manifests}

    assert by_key(render(folder)) == by_key(list(yaml.safe_load_all(done.stdout)))


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_merge_rules_give_the_output_written_by_hand(tmp_path: Path) -> None:
    write(tmp_path, "base/app.yaml", """
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  template:
    spec:
      containers:
        - {name: a, image: "shop/app:1", env: [{name: X, value: "1"}, {name: Y, value: "2"}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: ours}
""")  # fmt: skip
    write(tmp_path, "base/settings.env", "# a comment\nA=1\n\nB=x=y\n")
    write(tmp_path, "base/kustomization.yaml", """
namespace: ours
resources: [app.yaml]
configMapGenerator:
  - {name: settings, envs: [settings.env], literals: [C=3], files: [settings.env]}
generatorOptions: {disableNameSuffixHash: true}
labels: [{pairs: {part-of: shop}}]
""")  # fmt: skip
    write(tmp_path, "part/kustomization.yaml", """
kind: Component
patches:
  - target: {kind: Deployment, name: app}
    patch: |-
      - {op: remove, path: /spec/template/spec/containers/0/env/0}
      - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: Z, value: "3"}}
      - {op: add, path: /metadata/annotations, value: {"a/b": "old"}}
      - {op: replace, path: /metadata/annotations/a~1b, value: new}
""")  # fmt: skip
    write(tmp_path, "top/kustomization.yaml", """
resources: [../base]
components: [../part]
images: [{name: shop/app, newName: registry/app, newTag: "2"}]
""")  # fmt: skip
    labels = {"part-of": "shop"}
    assert render(tmp_path / "top") == [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "app", "labels": labels, "namespace": "ours", "annotations": {"a/b": "new"}},
            "spec": {
                "template": {
                    "spec": {
                        "containers": [
                            {
                                "name": "a",
                                "image": "registry/app:2",
                                "env": [{"name": "Y", "value": "2"}, {"name": "Z", "value": "3"}],
                            }
                        ]
                    }
                }
            },
        },
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ours", "labels": labels}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "labels": labels, "namespace": "ours"},
            "data": {"settings.env": "# a comment\nA=1\n\nB=x=y\n", "A": "1", "B": "x=y", "C": "3"},
        },
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("namePrefix: x-\n", "namePrefix"),
        ("configMapGenerator: [{name: a, literals: [A=1]}]\n", "disableNameSuffixHash"),
        ("configMapGenerator: [{name: a, behavior: merge}]\n", "behavior"),
        ("patches: [{target: {kind: Job}, patch: '[]'}]\n", "does not exist"),
    ],
)
def test_render_refuses_what_it_does_not_know(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, "kustomization.yaml", text)
    with pytest.raises(ValueError, match=message):
        render(tmp_path)


def test_a_patch_with_nothing_to_replace_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "kind: Job\nmetadata: {name: a}\n")
    write(tmp_path, "kustomization.yaml", """
resources: [a.yaml]
patches: [{target: {kind: Job}, patch: '[{op: replace, path: /spec, value: 1}]'}]
""")  # fmt: skip
    with pytest.raises(ValueError, match="nothing to replace"):
        render(tmp_path)
