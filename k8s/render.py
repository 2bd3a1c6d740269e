"""Render a kustomization without the kustomize binary: `python k8s/render.py k8s/overlays/production`.

It knows the few features that these folders use (resources, components, namespace, labels, configMapGenerator
from files, literals and .env files without name suffix, images, JSON patches) and refuses any other, so that
`kubectl kustomize` gives the same objects (a test compares both where kubectl is installed).
"""

from __future__ import annotations

import copy
import re
import sys
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]
_KNOWN = {
    "apiVersion", "kind", "namespace", "labels", "resources", "components", "configMapGenerator",
    "generatorOptions", "images", "patches",
}  # fmt: skip
_SECRET = re.compile(r"password|passwd|secret|token|credential|api_?key|private_?key", re.IGNORECASE)
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
    unknown = set(generator) - {"name", "files", "literals", "envs", "options"}
    if unknown:
        raise ValueError(
            f"{folder}: configMapGenerator uses {sorted(unknown)}, which render.py doesn't know."
        )
    data = {Path(name).name: (folder / name).read_text() for name in generator.get("files", [])}
    lines = list(generator.get("literals", []))
    for name in generator.get("envs", []):
        lines += [line for line in (folder / name).read_text().splitlines() if line and line[0] != "#"]
    data |= {key: value for key, _, value in (line.partition("=") for line in lines)}
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
        for manifest in chosen:
            _change(manifest, operation)


def _change(manifest: Manifest, operation: dict[str, Any]) -> None:
    """One operation of a JSON patch (RFC 6902: add, replace, remove), in place."""
    kind, path = operation["op"], operation["path"]
    if kind not in ("replace", "add", "remove"):
        raise ValueError(f"render.py knows add, replace and remove, not {kind!r}.")
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in path.strip("/").split("/")]
    at: Any = manifest
    for part in parents:
        at = at[int(part) if isinstance(at, list) else part]
    if isinstance(at, list):
        if kind == "add":
            at.insert(len(at) if last == "-" else int(last), copy.deepcopy(operation["value"]))
        elif kind == "replace":
            at[int(last)] = copy.deepcopy(operation["value"])
        else:
            del at[int(last)]
        return
    if kind != "add" and last not in at:
        raise ValueError(f"{manifest['metadata']['name']}: nothing to {kind} at {path}.")
    if kind == "remove":
        del at[last]
    else:
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


def secrets(manifests: list[Manifest]) -> list[str]:
    """Places where a secret's value is written down: under a telling name, or inside an address, file or argument."""
    named = ("ServiceAccount", "Role")  # they only name what may be read
    return [
        f"{manifest.get('kind')}/{manifest['metadata']['name']}{place}"
        for manifest in manifests
        if manifest.get("kind") not in named
        for place in ([""] if manifest.get("kind") == "Secret" else _secrets(manifest, ""))
    ]


def _secrets(node: Any, path: str) -> list[str]:
    found = []
    if isinstance(node, dict):
        name = node.get("name")
        if isinstance(name, str) and _SECRET.search(name) and node.get("value"):
            found.append(f"{path}/{name}")
        reference = path.endswith(("secretKeyRef", "secretRef"))
        for key, value in node.items():
            told = isinstance(value, str) and value and not value.startswith("$") and _SECRET.search(key)
            if told and key not in ("secretName", "name") and not reference:
                found.append(f"{path}/{key}")
            else:
                found += _secrets(value, f"{path}/{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            found += _secrets(value, f"{path}/{number}")
    elif isinstance(node, str):
        in_address = re.search(r"://[^/\s:@]+:(?!\$)[^/\s@]+@", node)  # user:password@host
        pairs = re.findall(r"([\w-]+)[ \t]*[:=][ \t]*['\"]?([^\s'\",}]+)", node)
        if in_address or "PRIVATE KEY-----" in node:
            found.append(path)
        found += [f"{path}: {key}" for key, value in pairs if _SECRET.search(key) and value[0] != "$"]
    return found


def main(folder: Path) -> int:
    """Print the objects; 1 where one of them holds a secret."""
    objects = render(folder)
    if found := secrets(objects):
        print("These hold a secret's value, and are not rendered:", *found, sep="\n  ", file=sys.stderr)
        print(
            "Put it into a Secret on the cluster and refer to it by secretKeyRef or secretRef.",
            file=sys.stderr,
        )
        return 1
    yaml.safe_dump_all(objects, sys.stdout, sort_keys=False)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python k8s/render.py FOLDER, e.g. k8s/overlays/local")
    sys.exit(main(Path(sys.argv[1])))
