"""Registration: an exported SavedModel and its evidence become a numbered version.

SavedModel folder + metadata + files → MLflow run, artifacts, version → `registered` line with the hash of
what was given.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from barcast import names
from barcast.errors import RegistryError
from barcast.evaluation import model_card
from barcast.registry import fingerprint, manifest
from barcast.registry.core import Core
from barcast.registry.fingerprint import Recorded
from barcast.registry.metadata import VersionMetadata, code_version, environment


def register(
    core: Core,
    model_dir: Path,
    symbol: str | None,
    metadata: VersionMetadata | Mapping[str, Any],
    files: Mapping[str, Path | str] | None = None,
    recorded: Recorded | None = None,
    by: str = "pipeline",
) -> int:
    """Make a version of `symbol`'s model from the exported folder `model_dir`.

    Args:
        files: evidence by file name: a `Path` is copied, a `str` is the text itself. `model_card.md` replaces
            the generated card.
        recorded: a request and its in-process answer; None asks the model here.

    Returns:
        The version's number: MLflow's, and that of the served directory.

    Raises:
        RegistryError: the folder is no SavedModel, the metadata is incomplete, or MLflow is away (nothing is
            registered).
    """
    meta = VersionMetadata.of(metadata)
    hashes = manifest.hash_files(model_dir)
    if "saved_model.pb" not in hashes:
        raise RegistryError(
            f"{model_dir} is no SavedModel: saved_model.pb is missing.",
            hint="The export did not finish; export again.",
        )
    digest = manifest.digest(hashes)
    model = core.model_name(symbol)
    recorded = recorded or fingerprint.record(model_dir)
    with tempfile.TemporaryDirectory(prefix="barcast-register-") as temporary:
        evidence = Path(temporary)
        evidence_digest = _collect(evidence, model, meta, hashes, recorded, files or {})
        info = core.tracking.create_version(
            model,
            model_dir,
            parameters={
                **{f"model.{k}": v for k, v in meta.parameters.items()},
                "kind": meta.kind,
                "num_features": len(meta.features),
                "trained_until": meta.trained_until or "",
            },
            metrics={
                **meta.metrics,
                **({} if meta.reliability is None else {"reliability": meta.reliability}),
            },
            tags={
                "barcast.kind": meta.kind,
                "barcast.data_version": meta.data_version,
                "barcast.data_hash": meta.data_hash,
                "barcast.config_hash": meta.config_hash,
                "barcast.code_version": code_version(),
                "barcast.digest": digest,
                "barcast.parent": meta.parent,
                "barcast.num_features": str(len(meta.features)),
            },
            evidence=evidence,
            description=(evidence / "model_card.md").read_text(encoding="utf-8"),
        )
    if manifest.digest(manifest.hash_files(model_dir)) != digest:
        raise RegistryError(
            f"{model_dir} was changed while it was registered; version {info.version} of {model} cannot be "
            f"promoted.",
            hint="Register a folder that nobody writes to.",
        )
    seal = fingerprint.store(core.fingerprint_path(model, info.version), recorded)
    core.ledger.append(
        "registered",
        model=model,
        version=info.version,
        by=by,
        details={
            "digest": digest,
            "evidence_digest": evidence_digest,
            "fingerprint_digest": seal,
            "run_id": info.run_id,
            "kind": meta.kind,
            "data_version": meta.data_version,
            "data_hash": meta.data_hash,
            "config_hash": meta.config_hash,
            "code_version": code_version(),
            "num_features": len(meta.features),
            "parent": meta.parent,
            "num_trials": meta.num_trials,
            "reliability": meta.reliability,
            "metrics": meta.metrics,
            "trained_until": meta.trained_until,
            "evaluated_from": meta.evaluated_from,
            "evaluated_until": meta.evaluated_until,
        },
    )
    return info.version


def _collect(
    folder: Path,
    model: str,
    meta: VersionMetadata,
    hashes: dict[str, str],
    recorded: Recorded,
    files: Mapping[str, Path | str],
) -> str:
    """Write all evidence into `folder`; returns its digest."""
    texts: dict[str, str] = {
        "metadata.json": meta.model_dump_json(indent=1),
        "features.json": json.dumps(list(meta.features), indent=1),
        "environment.json": json.dumps(environment(), indent=1),
        "manifest.json": json.dumps(
            {"files": hashes, "digest": manifest.digest(hashes)}, indent=1, sort_keys=True
        ),
        "fingerprint.json": recorded.to_json(),
        "model_card.md": _card(model, meta, manifest.digest(hashes)),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name, content in files.items():
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise RegistryError(
                f"The evidence name {name!r} leaves its folder.", hint="Use a plain file name."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            if not content.is_file():
                raise RegistryError(
                    f"The evidence file {content} is missing.", hint="Write it before registering."
                )
            shutil.copyfile(content, target)
        else:
            target.write_text(content, encoding="utf-8")
    # manifest.json is the one name that hash_files leaves out; its content is the model's own digest.
    return manifest.digest(manifest.hash_files(folder))


def _card(model: str, meta: VersionMetadata, digest: str) -> str:
    """The model card of a version, from its metadata."""
    symbol = names.symbol_of(model)
    shared = {names.UNIVERSAL: "universal", names.LINEAR: "linear baseline", names.ENSEMBLE: "ensemble"}
    evaluated = (
        f"{meta.evaluated_from:%Y-%m-%d} to {meta.evaluated_until:%Y-%m-%d}, which no fitting saw"
        if meta.evaluated_from and meta.evaluated_until
        else "not recorded"
    )
    fitted = meta.trained_until.isoformat() if meta.trained_until else "not recorded"
    return model_card.render(
        {
            **meta.extra,
            "name": f"{symbol or shared.get(model.rpartition('.')[2], model)} ({model})",
            "kind": meta.kind,
            "symbol": symbol,
            "data": {
                "bars": f"version {meta.data_version}, content hash {meta.data_hash}",
                "fitted on data until": fitted,
                "evaluated on": evaluated,
            },
            "architecture": meta.extra.get("architecture", meta.parameters),
            "metrics": meta.metrics,
            "reliability": meta.extra.get("reliability", meta.reliability),
            "limits": meta.limits,
            "features": meta.features,
            "made": {
                "configuration": meta.config_hash,
                "code": code_version(),
                "files (SHA-256 over all of them)": digest,
                "configurations tried before it": meta.num_trials,
                **({"started from": meta.parent} if meta.parent else {}),
            },
        }
    )
