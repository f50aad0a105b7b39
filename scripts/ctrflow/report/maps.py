"""The interactive maps of the report: the data of each section and the empty plots that show them.

The plots are Bokeh's, described once and filled by `page_script.js` when a section is opened. Numbers are embedded as
base64 of little-endian arrays: scores as float32, calls and labels as int8.
"""

import base64

import numpy as np

from ctrflow import plots
from ctrflow.report import words
from ctrflow.results import metrics
from ctrflow.scale import lattice

HISTOGRAM_BINS = 40
KINDS = (("other", 0), ("cancer", 1), ("unknown", -1))


def plot_items() -> dict:
    """The map and the histogram as Bokeh JSON items, without data; the script looks up their parts by name."""
    from bokeh.embed import json_item

    return {"map": json_item(_map()), "histogram": json_item(_histogram())}


def scripts() -> list[str]:
    """Bokeh's JavaScript, for embedding."""
    from bokeh.resources import Resources

    return Resources(mode="inline", minified=True, components=["bokeh", "bokeh-gl"], log_level=None).js_raw


def palettes() -> dict[str, list[str]]:
    """The colours of scores and of their sd over seeds, low to high, as in the figures."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return {
        kind: [to_hex(colour) for colour in colormaps[name](np.linspace(0, 1, 256))]
        for kind, name in (("score", plots.SCORE_MAP), ("probability", plots.SCORE_MAP), ("sd", plots.SD_MAP))
    }


def geometry(entry: dict) -> dict:
    """A section's spots and picture for the script, in µm from the corner of the image.

    Parameters
    ----------
    entry : a section of `page.write_report`; `spots` and `regions` (the pathologist's region of each spot) are
        optional
    """
    xy_um = np.asarray(entry["spatial_px"], dtype=float) * entry["um_per_px"]
    spots = entry.get("spots")
    labels = entry["labels"]
    return {
        "section": entry["section"],
        "spots": list(map(str, range(len(xy_um)) if spots is None else spots)),
        "x": packed(xy_um[:, 0], "<f4"),
        "y": packed(xy_um[:, 1], "<f4"),
        "spot_um": float(entry["spot_um"]),
        "cell_mm2": lattice.spot_area_mm2(entry["spatial_px"], entry["um_per_px"]),
        "picture": _picture(entry),
        "labels": None if labels is None else packed(_class(labels), "i1"),
        "regions": _regions(entry.get("regions")),
    }


def run_data(entry: dict, run: dict, table=None) -> dict:
    """A run's scores and calls on a section, for the script.

    Parameters
    ----------
    table : frame (variant, metric, mean, sd) of this section, task and encoder, or None
    """
    scores, judged = np.asarray(run["scores"], dtype=float), entry.get("judged")
    fitted = run["threshold"] or {}
    sd, likely = (
        None if values is None else packed(np.asarray(values, dtype=float), "<f4")
        for values in (run.get("sd"), run.get("probability"))
    )
    return {
        "variant": run["variant"],
        "score": packed(scores, "<f4"),
        "call": packed(_class(run["calls"]), "i1"),
        "sd": sd,
        "probability": likely,
        "threshold": fitted.get("threshold"),
        "branch": fitted.get("branch", ""),
        "limits": plots.score_limits(scores),
        "sd_limits": None if sd is None else plots.sd_limits(run["sd"]),
        "judged": None if judged is None else packed(_class(judged), "i1"),
        "histogram": _bins(scores, entry["labels"] if judged is None else judged),
        "facts": _facts(run["variant"], table),
    }


def packed(values, kind: str) -> str:
    """Values as base64 of an array of this dtype."""
    return base64.b64encode(np.asarray(values).astype(kind).tobytes()).decode("ascii")


def _class(values) -> np.ndarray:
    """1 and 0 unchanged, NaN as -1."""
    values = np.asarray(values, dtype=float)
    return np.where(np.isnan(values), -1, values)


def _picture(entry: dict) -> dict | None:
    if entry["thumbnail"] is None:
        return None
    um_per_thumbnail_px = entry["um_per_px"] / entry["thumbnail_scale"]
    height, width = entry["thumbnail"].shape[:2]
    return {
        "uri": data_uri(plots.jpeg(entry["thumbnail"])),
        "width_um": width * um_per_thumbnail_px,
        "height_um": height * um_per_thumbnail_px,
    }


def _regions(regions) -> dict | None:
    """The distinct names of regions and, for each spot, the index of its region."""
    if regions is None:
        return None
    regions = ["" if name is None or name != name else str(name) for name in regions]
    names = sorted(set(regions))
    place = {name: number for number, name in enumerate(names)}
    return {"words": names, "place": packed([place[name] for name in regions], "<u2")}


def _bins(scores, labels) -> dict:
    """The distribution of the scores: edges, and counts of other, cancer and unlabelled spots."""
    finite = np.isfinite(scores)
    low, high = (scores[finite].min(), scores[finite].max()) if finite.any() else (0.0, 1.0)
    if high <= low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, HISTOGRAM_BINS + 1)
    known = _class(np.full(len(scores), np.nan) if labels is None else labels)
    counts = {name: np.histogram(scores[finite & (known == value)], edges)[0].tolist() for name, value in KINDS}
    return {"edges": [float(f"{edge:.7g}") for edge in edges], **counts}


def _facts(variant: str, table) -> list[list[str]]:
    """The metrics of this run on this section: title and value as text."""
    if table is None:
        return []
    rows = table[table["variant"] == variant].set_index("metric")
    facts = []
    for metric in metrics.METRICS:
        if metric.on_maps and metric.name in rows.index and np.isfinite(rows.loc[metric.name, "mean"]):
            mean, sd = rows.loc[metric.name, ["mean", "sd"]]
            facts.append([metric.title, words.mean_sd(mean, sd)])
    return facts


def data_uri(image: bytes) -> str:
    """An image as a data URI."""
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


def _map():
    """H&E, spots on top and a scale bar; no borders, so that the script can keep x and y at equal scale."""
    from bokeh.models import (
        ColumnDataSource,
        HoverTool,
        Metric,
        PanTool,
        Range1d,
        ScaleBar,
        WheelZoomTool,
    )

    figure = _figure("map", Range1d(0, 1), Range1d(1, 0))
    picture = ColumnDataSource({"url": [], "width": [], "height": []})
    figure.image_url(
        url="url", x=0, y=0, w="width", h="height", anchor="top_left", source=picture, name="picture", level="image"
    )
    columns = ("x", "y", "spot", "score", "probability", "call", "label", "sd", "colour", "rim", "fill")
    spots = ColumnDataSource({name: [] for name in columns})
    circles = figure.circle(
        x="x", y="y", radius=1, source=spots, name="spots",
        fill_color="colour", fill_alpha="fill", line_color="rim", line_alpha=1.0, line_width=1.4,
    )  # fmt: skip
    figure.add_layout(
        ScaleBar(
            range=figure.x_range, unit="µm", dimensional=Metric(base_unit="m"), orientation="horizontal",
            location="bottom_left", background_fill_alpha=0.8, label_location="above",
            bar_length=0.15, padding=6, margin=8,
        )
    )  # fmt: skip
    pan, wheel = PanTool(), WheelZoomTool(modifiers={"ctrl": True}, zoom_on_axis=False)
    # the script replaces the tooltips: what they show depends on the section
    figure.add_tools(pan, wheel, HoverTool(renderers=[circles], tooltips=[("spot", "@spot")], name="hover"))
    figure.toolbar.active_drag, figure.toolbar.active_scroll = pan, wheel
    return figure


def _histogram():
    """Counts of spots by score, cancer on top of other where there are labels, and the threshold."""
    from bokeh.models import ColumnDataSource, Range1d, Span

    figure = _figure("histogram", Range1d(0, 1), Range1d(0, 1))
    figure.xaxis.visible = True
    figure.xaxis.axis_label = "score"
    figure.min_border_left = figure.min_border_right = 4
    bars = ColumnDataSource({name: [] for name in ("left", "right", "bottom", "top", "colour")})
    figure.quad(
        left="left", right="right", bottom="bottom", top="top", source=bars, name="bars",
        fill_color="colour", line_color=None,
    )  # fmt: skip
    figure.add_layout(Span(name="threshold", dimension="height", line_color=plots.INK, line_dash=[4, 2], line_width=2))
    return figure


def _figure(name: str, x_range, y_range):
    """A Bokeh figure without axes that fills its container."""
    from bokeh.plotting import figure

    plot = figure(
        name=name, tools="", toolbar_location=None, x_range=x_range, y_range=y_range, min_border=0,
        sizing_mode="stretch_both", outline_line_color=None, background_fill_color="white", border_fill_color=None,
    )  # fmt: skip
    plot.xgrid.visible = plot.ygrid.visible = plot.xaxis.visible = plot.yaxis.visible = False
    return plot
