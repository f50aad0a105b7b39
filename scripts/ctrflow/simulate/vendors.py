"""Writing simulated sections in the vendors' own file layouts.

The layouts were copied from real folders: the ST files of Andersson et al. 2021 (github almaan/her2st), Space Ranger 2
`outs`, and a Xenium Onboard Analysis bundle with its post-run H&E. Nothing in the files depends on the time or place
of writing.
"""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd

from ctrflow.storage import atomic, write_text

JPEG_QUALITY = 85
XENIUM_UM_PER_PX = 0.2125
HIRES_PX, LOWRES_PX = 2000, 600
CONTROLS = 20  # negative control probes of a Xenium panel


def write_st(section, root: Path, name: str) -> None:
    """Write counts, spot file, image and pathologist's table of one section as in the her2st repository."""
    root = Path(root)
    spots = section.spots
    counts = pd.DataFrame(section.counts.toarray().astype(np.int64), index=spots["spot"], columns=section.genes)
    counts.index.name = None
    counts = counts.iloc[_text_order(spots["spot"])]
    _write_gzip(counts.to_csv(sep="\t", lineterminator="\n"), root / "ST-cnts" / f"{name}.tsv.gz")

    pitch_px = section.pitch_um / section.um_per_px
    start = (spots["x_px"] - spots["col"] * pitch_px).mean(), (spots["y_px"] - spots["row"] * pitch_px).mean()
    selection = pd.DataFrame({"x": spots["col"], "y": spots["row"]})
    selection["new_x"] = ((spots["x_px"] - start[0]) / pitch_px).round(3)
    selection["new_y"] = ((spots["y_px"] - start[1]) / pitch_px).round(3)
    selection["pixel_x"], selection["pixel_y"] = spots["x_px"].round(2), spots["y_px"].round(2)
    selection["selected"] = 1
    _write_table(selection, root / "ST-spotfiles" / f"{name}_selection.tsv")

    # as in the original, the pathologist's table is of a half-size image and sorted by the text of its row names
    labels = pd.DataFrame({"x": selection["new_x"], "y": selection["new_y"]})
    labels["pixel_x"], labels["pixel_y"] = (selection["pixel_x"] / 2).round(2), (selection["pixel_y"] / 2).round(2)
    labels["label"] = spots["region"].to_numpy()
    names = [f"{x:.0f}x{y:.0f}" for x, y in labels[["pixel_x", "pixel_y"]].to_numpy()]
    labels.insert(0, "Row.names", names)
    labels = labels.iloc[_text_order(names)]
    _write_table(labels, root / "ST-pat" / "lbl" / f"{name}_labeled_coordinates.tsv")
    _write_image(section.image, root / "ST-imgs" / f"{name}.jpg", quality=JPEG_QUALITY)


def write_visium(section, folder: Path) -> None:
    """Write a Space Ranger 2 `outs` folder, and next to it `<folder>_fullres.tif` and `<folder>_labels.csv`."""
    folder = Path(folder)
    spots = section.spots
    by_barcode = np.argsort(spots["spot"].to_numpy().astype(str), kind="stable")
    barcodes = spots["spot"].to_numpy()[by_barcode].tolist()
    features = _features(section.genes, "GRCh38")
    attributes = {
        "chemistry_description": "Visium V4 - FFPE",
        "filetype": "matrix",
        "software_version": "spaceranger-2.1.0",
    }
    _write_10x(section.counts[by_barcode], barcodes, features, attributes, folder / "filtered_feature_bc_matrix.h5")

    outside = section.outside.assign(spot=_spare_barcodes(len(section.outside), set(barcodes)), in_tissue=0)
    positions = pd.concat([spots.assign(in_tissue=1), outside]).sort_values(["row", "col"], kind="stable")
    table = pd.DataFrame({"barcode": positions["spot"], "in_tissue": positions["in_tissue"]})
    table["array_row"], table["array_col"] = positions["row"], positions["col"]
    table["pxl_row_in_fullres"] = positions["y_px"].round().astype(int)
    table["pxl_col_in_fullres"] = positions["x_px"].round().astype(int)
    spatial = folder / "spatial"
    write_text(table.to_csv(index=False, lineterminator="\n"), spatial / "tissue_positions.csv")

    longest = max(section.image.shape[:2])
    hires, lowres = min(HIRES_PX / longest, 1.0), min(LOWRES_PX / longest, 1.0)
    scales = {
        # Space Ranger's spot diameter is that of a 65 µm disc, not of the 55 µm that are printed
        "spot_diameter_fullres": 65.0 / section.um_per_px,
        "tissue_hires_scalef": hires,
        "fiducial_diameter_fullres": 105.0 / section.um_per_px,
        "tissue_lowres_scalef": lowres,
    }
    write_text(json.dumps(scales), spatial / "scalefactors_json.json")
    _write_image(_shrink(section.image, hires), spatial / "tissue_hires_image.png")
    _write_image(_shrink(section.image, lowres), spatial / "tissue_lowres_image.png")
    _write_tiff(section.image, folder.with_name(f"{folder.name}_fullres.tif"), section.um_per_px)
    labels = spots[["spot", "region"]].iloc[by_barcode].rename(columns={"spot": "Barcode", "region": "Region"})
    write_text(labels.to_csv(index=False, lineterminator="\n"), folder.with_name(f"{folder.name}_labels.csv"))


def write_xenium(
    section, folder: Path, turn_degrees: float = 2.5, shift_um: tuple[float, float] = (180.0, 60.0)
) -> None:
    """Write a Xenium bundle, and next to it `<folder>_he_image.ome.tif`, `_he_imagealignment.csv`, `_cell_types.csv`.

    The H&E is a post-run scan: it must be rotated by `turn_degrees`, then shifted by `shift_um`, to match the bundle.
    """
    from scipy import sparse

    folder = Path(folder)
    rng = np.random.default_rng(len(section.cells))
    spots, cells = section.spots, section.cells
    turn = np.deg2rad(turn_degrees)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    # a turn about the corner moves an edge out of the frame by side * sin; `inward` brings it back
    height_um, width_um = (side * section.um_per_px for side in section.image.shape[:2])
    inward = np.array([height_um * np.sin(max(turn, 0)), width_um * np.sin(max(-turn, 0))])
    offset = np.array(shift_um) + inward
    alignment = np.eye(3)
    alignment[:2, :2] = rotation * section.um_per_px / XENIUM_UM_PER_PX
    alignment[:2, 2] = offset / XENIUM_UM_PER_PX
    placed = spots[["x_px", "y_px"]].to_numpy() @ (rotation * section.um_per_px).T + offset

    controls = rng.binomial(1, 0.001, (len(spots), CONTROLS))
    features = _features(section.genes, "GRCh38")
    features += [
        (f"NegControlProbe_{number:05d}", f"NegControlProbe_{number:05d}", "Negative Control Probe", "Unknown")
        for number in range(1, CONTROLS + 1)
    ]
    counts = sparse.hstack([section.counts, sparse.csr_matrix(controls.astype(np.float32))], format="csr")
    attributes = {"chemistry_description": "Xenium", "filetype": "matrix", "software_version": "xenium-2.0.0"}
    _write_10x(counts, spots["spot"].tolist(), features, attributes, folder / "cell_feature_matrix.h5")

    transcripts = np.asarray(section.counts.sum(axis=1)).ravel().astype(np.int32)
    nucleus = np.pi * cells["long_um"].to_numpy() * cells["short_um"].to_numpy()
    table = pd.DataFrame({"cell_id": spots["spot"].to_numpy()})
    table["x_centroid"], table["y_centroid"] = placed[:, 0], placed[:, 1]
    table["transcript_counts"] = transcripts
    table["control_probe_counts"] = controls.sum(axis=1).astype(np.int32)
    table["control_codeword_counts"] = np.int32(0)
    table["unassigned_codeword_counts"] = np.int32(0)
    table["total_counts"] = transcripts + table["control_probe_counts"]
    table["cell_area"] = nucleus * np.exp(rng.normal(0.9, 0.25, len(table)))
    table["nucleus_area"] = nucleus
    with atomic(folder / "cells.parquet") as part:
        table.to_parquet(part, index=False)
    _write_gzip(table.to_csv(index=False, lineterminator="\n"), folder / "cells.csv.gz")
    write_text(json.dumps(_experiment(section, table), indent=2), folder / "experiment.xenium")

    beside = folder.with_name
    _write_tiff(section.image, beside(f"{folder.name}_he_image.ome.tif"), section.um_per_px, pyramid=True)
    rows = "\n".join(",".join(repr(float(value)) for value in row) for row in alignment)
    write_text(rows + "\n", beside(f"{folder.name}_he_imagealignment.csv"))
    known = rng.uniform(size=len(cells)) > 0.04
    types = pd.DataFrame({"Barcode": table["cell_id"], "Cluster": np.where(known, cells["cluster"], "Unlabeled")})
    write_text(types.to_csv(index=False, lineterminator="\n"), beside(f"{folder.name}_cell_types.csv"))


def _experiment(section, table: pd.DataFrame) -> dict:
    return {
        "major_version": 6,
        "minor_version": 0,
        "run_name": "simulated",
        "region_name": section.name,
        "preservation_method": "ffpe",
        "num_cells": len(table),
        "transcripts_per_cell": int(table["transcript_counts"].median()),
        "panel_name": "simulated breast panel",
        "panel_organism": "Human",
        "panel_tissue_type": "Breast",
        "panel_num_targets_predesigned": len(section.genes),
        "pixel_size": XENIUM_UM_PER_PX,
        "instrument_sw_version": "2.0.0",
        "analysis_sw_version": "xenium-2.0.0",
        "xenium_explorer_files": {"cell_features_zarr_filepath": "cell_feature_matrix.h5"},
    }


def _features(genes: list[str], genome: str) -> list[tuple[str, str, str, str]]:
    """Identifier, name, type and genome of each gene; the identifiers only look like Ensembl's."""
    return [(f"ENSG{number:011d}", gene, "Gene Expression", genome) for number, gene in enumerate(genes, start=1)]


def _write_10x(counts, barcodes: list[str], features, attributes: dict, path: Path) -> None:
    """A 10x v3 HDF5 matrix: genes x barcodes, compressed by column."""
    import h5py

    counts = counts.tocsr()
    counts.sort_indices()
    with atomic(path) as part, h5py.File(part, "w") as file:
        file.attrs.update(attributes | {"version": np.int32(2), "library_ids": np.array([b"simulated"])})
        matrix = file.create_group("matrix")
        values = {
            "barcodes": np.array(barcodes, dtype="S"),
            "data": counts.data.astype(np.int32),
            "indices": counts.indices.astype(np.int64),
            "indptr": counts.indptr.astype(np.int64),
            "shape": np.array(counts.shape[::-1], dtype=np.int32),
        }
        for name, column in zip(("id", "name", "feature_type", "genome"), zip(*features, strict=True), strict=True):
            values[f"features/{name}"] = np.array(column, dtype="S")
        values["features/_all_tag_keys"] = np.array([b"genome"])
        for name, array in values.items():
            matrix.create_dataset(name, data=array, compression="gzip", compression_opts=4)


def _spare_barcodes(count: int, taken: set[str]) -> list[str]:
    """Barcodes of positions without tissue, none of them in use."""
    rng = np.random.default_rng(count)
    letters = np.array(list("ACGT"))
    spare: dict[str, None] = {}
    while len(spare) < count:
        barcode = "".join(letters[rng.integers(0, 4, 16)]) + "-1"
        if barcode not in taken:
            spare[barcode] = None
    return list(spare)


def _write_tiff(image: np.ndarray, path: Path, um_per_px: float, pyramid: bool = False) -> None:
    """A tiled JPEG-compressed TIFF; with `pyramid` an OME-TIFF with half-size copies as SubIFDs."""
    import tifffile

    options = {
        "tile": (256, 256),
        "compression": "jpeg",
        "compressionargs": {"level": JPEG_QUALITY},
        "photometric": "rgb",
    }
    options |= {"resolution": (1e4 / um_per_px, 1e4 / um_per_px), "resolutionunit": "CENTIMETER", "software": "ctrflow"}
    levels = 0
    while pyramid and max(image.shape[:2]) / 2**levels > 1024:
        levels += 1
    metadata = {
        "axes": "YXS",
        "PhysicalSizeX": um_per_px,
        "PhysicalSizeY": um_per_px,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeYUnit": "µm",
        "UUID": "00000000-0000-0000-0000-000000000000",  # a random one would differ from run to run
    }
    with atomic(path) as part, tifffile.TiffWriter(part, ome=pyramid) as writer:
        writer.write(image, subifds=levels or None, metadata=metadata if pyramid else None, **options)
        for level in range(1, levels + 1):
            small = _shrink(image, 0.5**level)
            writer.write(small, subfiletype=1, metadata=None, **options)


def _shrink(image: np.ndarray, scale: float) -> np.ndarray:
    from PIL import Image

    size = [max(round(side * scale), 1) for side in image.shape[1::-1]]
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _write_image(image: np.ndarray, path: Path, **options) -> None:
    from PIL import Image

    with atomic(path) as part:
        Image.fromarray(image).save(part, **options)


def _write_gzip(text: str, path: Path) -> None:
    """gzip without time and name, so that equal content is an equal file."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=6, mtime=0, filename="") as stream:
        stream.write(text.encode())
    with atomic(path) as part:
        part.write_bytes(packed.getvalue())


def _write_table(frame: pd.DataFrame, path: Path) -> None:
    write_text(frame.to_csv(sep="\t", index=False, lineterminator="\n"), path)


def _text_order(names) -> np.ndarray:
    return np.argsort(np.asarray(names, dtype=str), kind="stable")
