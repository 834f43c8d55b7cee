"""The results as pictures: one SVG file for each workload, drawn by matplotlib."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.measure import Row
from benchmarks.probes import Findings
from benchmarks.systems import all_specs

__all__ = ["draw", "draw_probes"]

_COLORS = {"raw": "#9aa0a6", "raw_aio": "#9aa0a6", "ours": "#1a73e8"}
_OTHERS = "#e8a33d"


def draw(rows: Iterable[Row], folder: Path) -> dict[str, Path]:
    """Draw a bar for each system, the fastest on top; the paths by workload.

    The pictures have no date in them and always the same ids: equal results give equal files.
    """
    _prepare(folder)
    return {row.workload.key: _chart(row, folder) for row in rows if row.results}


def draw_probes(found: Iterable[Findings], folder: Path) -> dict[str, Path]:
    """The same for the figure of each probe that is meant for it, as the table has the systems."""
    _prepare(folder)
    modules = {spec.name: spec.module for spec in all_specs()}
    drawn = {}
    for findings in found:
        figure = next(figure for figure in findings.probe.figures if figure.chart)
        bars = [(name, findings.median(name, figure.key)) for name in reversed(findings.samples)]
        shown = [(name, value) for name, value in bars if value is not None]
        if shown:
            names, values = [name for name, _ in shown], [value for _, value in shown]
            title = f"{findings.probe.title} [{figure.title}]"
            path = folder / f"{findings.probe.key}.svg"
            labels = [format(value, figure.form) for value in values]
            _bars(path, title, names, values, labels, [modules.get(name, "") for name in names])
            drawn[findings.probe.key] = path
    return drawn


def _prepare(folder: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    # texts stay texts: smaller, searchable, and in the reader's font
    mpl.rcParams.update(
        {"svg.fonttype": "none", "svg.hashsalt": "pyroplug", "font.family": "sans-serif", "font.size": 9}
    )
    folder.mkdir(exist_ok=True)


def _chart(row: Row, folder: Path) -> Path:
    workload = row.workload
    results = sorted(row.results.values(), key=lambda result: -result.micros)
    scale = workload.megabytes or 1.0
    speeds = [1e6 / result.micros * scale for result in results]
    labels = [f"{speed:,.0f}" for speed in speeds]
    for index, result in enumerate(results):
        ratio = row.ratio(result.spec.name, result.spec.peer) if result.spec.peer else None
        if ratio is not None and result.spec.module == "ours":
            labels[index] += f"   ({ratio:.1f} x {result.spec.peer})"
    path = folder / f"{workload.key}.svg"
    title = f"{workload.title} [{'MB/s' if workload.megabytes else 'per second'}, more is better]"
    names = [result.spec.name for result in results]
    _bars(path, title, names, speeds, labels, [result.spec.module for result in results])
    return path


def _bars(path: Path, title: str, names: list[str], values: list[float], labels: list[str], modules: list[str]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.7 + 0.27 * len(names)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names, values, color=[_COLORS.get(module, _OTHERS) for module in modules])
    axes.bar_label(bars, labels, padding=4)
    axes.set_title(title, loc="left")
    axes.margins(x=0.28)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(left=False, bottom=False, labelbottom=False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})
