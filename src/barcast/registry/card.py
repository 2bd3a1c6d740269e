"""The model card: one page of Markdown that every registered version carries."""

from __future__ import annotations

from barcast import names
from barcast.registry.metadata import VersionMetadata, code_version


def title(model: str) -> str:
    """A model's name in words: the symbol, "universal" or "linear baseline"."""
    tail = model.rpartition(".")[2]
    if tail == names.LINEAR:
        return "linear baseline"
    return names.symbol_of(model) or "universal"


def render(model: str, meta: VersionMetadata, digest: str) -> str:
    """The card of a version of `model` in Markdown."""
    spoken = title(model)
    purpose = {
        "universal": "Answers for every symbol that has no model of its own.",
        "linear baseline": "The baseline every network must beat, and the fallback when none can be loaded.",
    }.get(spoken, f"Answers for {spoken} only.")
    span = (
        f"{meta.evaluated_from:%Y-%m-%d} to {meta.evaluated_until:%Y-%m-%d}"
        if meta.evaluated_from and meta.evaluated_until
        else "not recorded"
    )
    lines = [
        f"# Model card: {spoken} ({model})",
        "",
        f"{purpose} Kind: {meta.kind}. Output: probabilities of SELL, HOLD, BUY over the configured "
        "horizon, with confidence, expected return and size. It is no advice; read the limits below.",
        "",
        "## Data",
        "",
        f"- Bars: version {meta.data_version}, content hash `{meta.data_hash}`",
        f"- Fitted on data until: {meta.trained_until.isoformat() if meta.trained_until else 'not recorded'}",
        f"- Evaluated on: {span}, which no fitting saw",
        "",
        "## Architecture and training",
        "",
        *([f"- {name}: {value}" for name, value in sorted(meta.parameters.items())] or ["- not recorded"]),
        *([f"- Started from: {meta.parent}"] if meta.parent else []),
        f"- Configurations tried before it: {meta.num_trials}",
        "",
        "## Results on the evaluation window",
        "",
        *(
            [
                "| metric | value |",
                "|---|---|",
                *(f"| {k} | {v:.6g} |" for k, v in sorted(meta.metrics.items())),
            ]
            if meta.metrics
            else ["No metrics were recorded."]
        ),
        "",
        f"Reliability index (0..1): {'not computed' if meta.reliability is None else f'{meta.reliability:.3f}'}",
        "",
        "## Limits",
        "",
        *[f"- {limit}" for limit in meta.limits],
        "- The past it was scored on need not repeat; a regime that it never saw is outside its evidence.",
        "- Costs in the evaluation are the configured ones; a larger size moves the market more than they "
        "say.",
        "",
        "## What made it",
        "",
        f"- Configuration: `{meta.config_hash}`",
        f"- Code: `{code_version()}`",
        f"- Files (SHA-256 over all of them): `{digest}`",
        "",
        "## Features",
        "",
        f"{len(meta.features)} raw features in a fixed order; normalisation and selection are inside the "
        f"model.",
        "",
        ", ".join(f"`{name}`" for name in meta.features),
        "",
    ]
    return "\n".join(lines)
