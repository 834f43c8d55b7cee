"""The results as pictures: one SVG file for each workload, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.measure import Row

__all__ = ["draw"]

_COLORS = {"raw": "#9aa0a6", "ours": "#1a73e8"}
_OTHERS = "#e8a33d"


def draw(rows: Iterable[Row], folder: Path) -> dict[str, Path]:
    """Draw a bar for each system, the fastest on top; the paths by workload.

    The pictures have no date in them and always the same ids: equal results give equal files.
    """
    import matplotlib as mpl

    mpl.use("svg")
    # texts stay texts: smaller, searchable, and in the reader's font
    mpl.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "pyroplug", "font.family": "sans-serif", "font.size": 9}
    )
    folder.mkdir(exist_ok=True)
    return {row.workload.key: _chart(row, folder) for row in rows if row.results}


def _chart(row: Row, folder: Path) -> Path:
    from matplotlib.figure import Figure

    workload = row.workload
    results = sorted(row.results.values(), key=lambda result: -result.micros)
    scale = workload.megabytes or 1.0
    speeds = [1e6 / result.micros * scale for result in results]
    figure = Figure(figsize=(8, 0.7 + 0.27 * len(results)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(
        [result.spec.name for result in results],
        speeds,
        color=[_COLORS.get(result.spec.module, _OTHERS) for result in results],
    )
    labels = [f"{speed:,.0f}" for speed in speeds]
    for index, result in enumerate(results):
        ratio = row.ratio(result.spec.name, result.spec.peer) if result.spec.peer else None
        if ratio is not None and result.spec.module == "ours":
            labels[index] += f"   ({ratio:.1f} x {result.spec.peer})"
    axes.bar_label(bars, labels, padding=4)
    axes.set_title(f"{workload.title} [{'MB/s' if workload.megabytes else 'per second'}, more is better]", loc="left")
    axes.margins(x=0.28)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    path = folder / f"{workload.key}.svg"
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    return path
