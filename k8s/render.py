"""Render a kustomization without the kustomize binary: `python k8s/render.py k8s/overlays/production`.

It knows the few features that these folders use (resources, components, namespace, labels, configMapGenerator
without name suffix, images, JSON patches) and refuses any other, so that `kubectl kustomize` gives the same objects.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
_KNOWN = {
    "apiVersion", "kind", "namespace", "labels", "resources", "components", "configMapGenerator",
    "generatorOptions", "images", "patches",
}  # fmt: skip
_CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding", "PersistentVolume", "StorageClass"}


def render(folder: Path) -> list[Manifest]:
    """All objects of a kustomization, in kustomize's order of files.

    Raises:
        ValueError: the kustomization uses something this renderer doesn't know.
    """
    return _build(folder, [])


def _build(folder: Path, before: list[Manifest]) -> list[Manifest]:
    spec = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(spec) - _KNOWN
    if unknown:
        raise ValueError(f"{folder}/kustomization.yaml uses {sorted(unknown)}, which render.py doesn't know.")
    objects = before
    for entry in spec.get("resources", []):
        path = folder / entry
        objects += _build(path, []) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for entry in spec.get("components", []):
        objects = _build(folder / entry, objects)
    objects += [_config_map(folder, generator) for generator in spec.get("configMapGenerator", [])]
    hashed = not spec.get("generatorOptions", {}).get("disableNameSuffixHash")
    if spec.get("configMapGenerator") and hashed:
        raise ValueError(f"{folder}: set generatorOptions.disableNameSuffixHash.")
    for patch in spec.get("patches", []):
        _patch(objects, patch)
    for image in spec.get("images", []):
        _image(objects, image)
    for pairs in (entry["pairs"] for entry in spec.get("labels", [])):
        for manifest in objects:
            manifest["metadata"].setdefault("labels", {}).update(pairs)
    if "namespace" in spec:
        for manifest in objects:
            if manifest["kind"] not in _CLUSTER_WIDE:
                manifest["metadata"]["namespace"] = spec["namespace"]
    return objects


def _config_map(folder: Path, generator: dict[str, Any]) -> Manifest:
    data = {Path(name).name: (folder / name).read_text() for name in generator["files"]}
    metadata: dict[str, Any] = {"name": generator["name"]}
    if labels := generator.get("options", {}).get("labels"):
        metadata["labels"] = dict(labels)
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _patch(objects: list[Manifest], patch: dict[str, Any]) -> None:
    target = patch["target"]
    chosen = [
        m
        for m in objects
        if m["kind"] == target["kind"] and target.get("name") in (None, m["metadata"]["name"])
    ]
    if not chosen:
        raise ValueError(f"A patch's target {target} does not exist.")
    for operation in yaml.safe_load(patch["patch"]):
        if operation["op"] not in ("replace", "add"):
            raise ValueError(f"render.py knows replace and add, not {operation['op']!r}.")
        *parents, last = operation["path"].strip("/").split("/")
        for manifest in chosen:
            at: Any = manifest
            for part in parents:
                at = at[int(part) if isinstance(at, list) else part]
            if operation["op"] == "replace" and last not in at:
                raise ValueError(
                    f"{manifest['metadata']['name']}: nothing to replace at {operation['path']}."
                )
            at[last] = copy.deepcopy(operation["value"])


def _image(objects: list[Manifest], image: dict[str, str]) -> None:
    def walk(node: Any) -> None:
        if isinstance(node, dict):
            name = node.get("image")
            if isinstance(name, str) and name.partition(":")[0] == image["name"]:
                node["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(objects)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python k8s/render.py FOLDER, e.g. k8s/overlays/local")
    yaml.safe_dump_all(render(Path(sys.argv[1])), sys.stdout, sort_keys=False)
