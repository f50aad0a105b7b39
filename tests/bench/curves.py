"""The curves of docs/scale.md, from the table that `bench.py data` prints.

python tests/bench/bench.py data > data.tsv; python tests/bench/curves.py data.tsv docs/images/scale.png
"""

import sys
from pathlib import Path

COLUMNS = ["shape", "spots", "sections", "step", "stored_m", "file_mb", "cpu_s", "peak_mb"]
SHAPES = {"bins": ("8 µm bins, one section", "o-"), "sections": ("sections of 4,000 spots", "s--")}
STEPS = {"build_fold": "#555555", "train linear": "#1b7837", "score linear": "#7fbf7b", "train spacrd": "#762a83",
         "score spacrd": "#af8dc3"}  # fmt: skip
PANELS = (("peak_mb", 1e-3, "peak memory (GB)", (1, 2, 4, 8)), ("cpu_s", 1.0, "CPU seconds", (1, 10, 100)))
THOUSANDS = (25, 50, 100, 200, 400)


def main(table: str, picture: str) -> None:
    """Peak memory and CPU seconds against spots trained on, each step a colour, each shape of data a line style."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [
        dict(zip(COLUMNS, line.split("\t"), strict=True))
        for line in Path(table).read_text().splitlines()
        if line.startswith(tuple(f"{shape}\t" for shape in SHAPES))
    ]
    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for panel, (column, factor, name, ticks) in zip(panels, PANELS, strict=True):
        for shape, (said, style) in SHAPES.items():
            for step, colour in STEPS.items():
                own = sorted((int(row["spots"]), float(row[column]) * factor) for row in rows
                             if row["shape"] == shape and row["step"] == step)  # fmt: skip
                panel.plot(*zip(*own, strict=True), style, color=colour, markersize=4, label=f"{step}, {said}")
        panel.set(xscale="log", yscale="log", xlabel="thousand spots trained on", ylabel=name)
        panel.set_xticks([1000 * spots for spots in THOUSANDS], map(str, THOUSANDS))
        panel.set_yticks(ticks, map(str, ticks))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False
    )
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])
