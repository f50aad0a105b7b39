"""Small simulated vendor folders of each platform, version and container, and the expected results of reading them.

`CASES` maps a name to a function that writes into an empty folder and returns (row of the section sheet, Truth). The
layouts follow real folders and the vendors' descriptions; the numbers are the simulator's.
"""

import functools
import gzip
import io
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse

HEADER = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
XENIUM_UM_PER_PX = 0.2125
SIDE, TURN = 16, math.radians(1.5)


@dataclass
class Truth:
    """Expected: ids in the order of the counts, genes, counts (n x genes), positions (n x 2; px, cells: µm)."""

    ids: list[str]
    genes: list[str]
    counts: np.ndarray
    positions: np.ndarray
    um_per_px: float
    spot_um: float
    array: np.ndarray  # row and column, n x 2
    outside: pd.DataFrame  # row, col, x, y of array positions without tissue

    def take(self, order) -> "Truth":
        order = list(order)
        return replace(
            self,
            ids=[self.ids[i] for i in order],
            counts=self.counts[order],
            positions=self.positions[order],
            array=self.array[order],
        )


@functools.cache
def simulated(platform: str):
    """One tiny simulated section per platform, drawn once."""
    from ctrflow import simulate

    return simulate.simulate_section(platform, {"st": 60, "visium": 230, "xenium": 20}[platform], 60, seed=3)


@functools.cache
def truth(platform: str) -> Truth:
    """The simulated section as expected from a reader, before reordering for a vendor's layout."""
    if platform == "visium_hd":
        return grid(8.0, 8.0, 0.4, bin_barcodes)
    section = simulated(platform)
    spots, outside = section.spots, section.outside
    scale = section.um_per_px if platform == "xenium" else 1.0
    return Truth(
        spots["spot"].astype(str).tolist(),
        list(section.genes),
        section.counts.toarray().astype(int),
        spots[["x_px", "y_px"]].to_numpy(float) * scale,
        XENIUM_UM_PER_PX if platform == "xenium" else section.um_per_px,
        55.0 if platform == "xenium" else section.spot_um,
        spots[["row", "col"]].to_numpy(),
        outside[["row", "col", "x_px", "y_px"]].rename(columns={"x_px": "x", "y_px": "y"}),
    )


def grid(pitch_um: float, spot_um: float, um_per_px: float, name) -> Truth:
    """256 spots of a slightly turned square array in a frame without tissue; genes rise along one axis or the other.

    For HD, which is not simulated, and for ST, whose simulated sections of so many spots are large pictures.
    """
    rng = np.random.default_rng(8)
    row, col = (index.ravel() for index in np.indices((SIDE + 2, SIDE + 2)))
    turn = np.array([[math.cos(TURN), math.sin(TURN)], [-math.sin(TURN), math.cos(TURN)]])
    px = np.column_stack([col, row]) * pitch_um / um_per_px @ turn + [500.0, 300.0]
    inside = (row > 0) & (row <= SIDE) & (col > 0) & (col <= SIDE)
    mean = np.where(np.arange(60) % 2, row[inside, None], col[inside, None]) * rng.gamma(1, 0.6, 60)
    array = np.column_stack([row, col])
    outside = pd.DataFrame({"row": row, "col": col, "x": px[:, 0], "y": px[:, 1]})[~inside]
    genes = [f"GENE{n}" for n in range(60)]
    ids = name(array[inside])
    return Truth(ids, genes, rng.poisson(mean), px[inside], um_per_px, spot_um, array[inside], outside)


def bin_barcodes(array: np.ndarray, bin_um: int = 8) -> list[str]:
    """10x's names for bins."""
    return [f"s_{bin_um:03d}um_{row:05d}_{col:05d}-1" for row, col in array]


def st_names(array: np.ndarray) -> list[str]:
    """HER2ST's names for spots: column x row."""
    return [f"{col}x{row}" for row, col in array]


def st_grid() -> Truth:
    """ST spots, enough to detect shuffled ids."""
    return grid(200.0, 100.0, 1.1, st_names)


def shuffled(known: Truth, seed: int = 1) -> Truth:
    """The same section in another order: in real data, matrices and positions differ in order."""
    return known.take(np.random.default_rng(seed).permutation(len(known.ids)))


# --- parts ------------------------------------------------------------------------------------------------------------


def write_h5(path: Path, known: Truth, extra: dict[str, str] | None = None, ids=None) -> None:
    """10x's HDF5 layout, with a count of 7 per spot in each `extra` feature (name -> type)."""
    names, kinds, counts = _features(known, extra)
    by_gene = sparse.csc_matrix(counts.T)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as handle:
        matrix = handle.create_group("matrix")
        matrix["barcodes"] = np.array(ids or known.ids, dtype="S")
        matrix["data"] = by_gene.data.astype(np.int32)
        matrix["indices"] = by_gene.indices.astype(np.int64)
        matrix["indptr"] = by_gene.indptr.astype(np.int64)
        matrix["shape"] = np.array(by_gene.shape, np.int32)
        for name, values in {"id": _gene_ids(names), "name": names, "feature_type": kinds}.items():
            matrix[f"features/{name}"] = np.array(values, dtype="S")
        matrix["features/genome"] = np.array(["GRCh38"] * len(names), dtype="S")


def write_mtx(folder: Path, known: Truth, version: int = 3, prefix: str = "", extra=None) -> None:
    """10x's Matrix Market folder: of version 2 (genes.tsv, unpacked) or 3 (features.tsv.gz)."""
    names, kinds, counts = _features(known, extra)
    coo = sparse.coo_matrix(counts.T)
    lines = ["%%MatrixMarket matrix coordinate integer general", "%metadata_json: {}"]
    lines.append(f"{len(names)} {len(known.ids)} {coo.nnz}")
    lines += [f"{i + 1} {j + 1} {v}" for i, j, v in zip(coo.row, coo.col, coo.data, strict=True)]
    columns = [_gene_ids(names), names] + ([kinds] if version > 2 else [])
    texts = {
        "matrix.mtx": lines,
        "barcodes.tsv": known.ids,
        "genes.tsv" if version == 2 else "features.tsv": ["\t".join(cells) for cells in zip(*columns, strict=True)],
    }
    for name, rows in texts.items():
        text = "\n".join(rows) + "\n"
        write(folder / f"{prefix}{name}", text) if version == 2 else write_gz(folder / f"{prefix}{name}.gz", text)


def _features(known: Truth, extra: dict[str, str] | None):
    extra = extra or {}
    names, kinds = [*known.genes, *extra], ["Gene Expression"] * len(known.genes) + list(extra.values())
    return names, kinds, np.column_stack([known.counts, np.full((len(known.ids), len(extra)), 7)])


def _gene_ids(names: list[str]) -> list[str]:
    return [f"ENSG{number:011d}" for number in range(len(names))]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_gz(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def positions(known: Truth) -> pd.DataFrame:
    """Space Ranger's table of all array positions, in the array's order."""
    inside = pd.DataFrame({"barcode": known.ids, "in_tissue": 1, "array_row": known.array[:, 0]})
    inside["array_col"] = known.array[:, 1]
    inside["pxl_row_in_fullres"], inside["pxl_col_in_fullres"] = known.positions[:, 1], known.positions[:, 0]
    outside = known.outside.rename(columns={"row": "array_row", "col": "array_col"})
    outside = outside.rename(columns={"x": "pxl_col_in_fullres", "y": "pxl_row_in_fullres"}).assign(in_tissue=0)
    bins = known.spot_um == 8
    outside["barcode"] = (
        bin_barcodes(known.outside[["row", "col"]].to_numpy(), 8)
        if bins
        else [f"TTTTTTTTTTTT{number:04d}-1" for number in range(len(outside))]
    )
    return pd.concat([inside, outside])[HEADER].sort_values(["array_row", "array_col"]).reset_index(drop=True)


def rounded(known: Truth) -> Truth:
    """Versions 1 and 2 write integer pixels."""
    return replace(known, positions=known.positions.round(), outside=known.outside.round())


def scalefactors(known: Truth, **more) -> str:
    um_per_px = known.um_per_px
    factors = {"spot_diameter_fullres": 65 / um_per_px, "tissue_hires_scalef": 0.2, "tissue_lowres_scalef": 0.06}
    return json.dumps(factors | {"fiducial_diameter_fullres": 105 / um_per_px} | more)


# --- ST ---------------------------------------------------------------------------------------------------------------


def st_her2st(root: Path):
    from ctrflow.simulate import vendors

    vendors.write_st(simulated("st"), root, "A1")
    return _row("st", root / "ST-cnts" / "A1.tsv.gz"), truth("st")


def st_plain(root: Path):
    known = shuffled(st_grid())
    table = pd.DataFrame(known.counts, index=known.ids, columns=known.genes)
    write(root / "ST-cnts" / "A1.tsv", table.to_csv(sep="\t"))
    selection = pd.DataFrame({"x": known.array[:, 1], "y": known.array[:, 0]})
    selection["new_x"], selection["new_y"] = selection["x"], selection["y"]
    selection["pixel_x"], selection["pixel_y"], selection["selected"] = *known.positions.T, 1
    write(root / "ST-spotfiles" / "A1_selection.tsv", selection[::-1].to_csv(sep="\t", index=False))
    return _row("st", root / "ST-cnts" / "A1.tsv"), known


# --- Visium -----------------------------------------------------------------------------------------------------------


def visium_1(root: Path):
    known = rounded(shuffled(truth("visium")))
    write_h5(root / "outs" / "filtered_feature_bc_matrix.h5", known)
    return _visium_1_spatial(root, known)


def visium_1_mtx(root: Path):
    known = rounded(shuffled(truth("visium")))
    write_mtx(root / "outs" / "filtered_feature_bc_matrix", known)
    return _visium_1_spatial(root, known)


def visium_mtx_of_version_2(root: Path):
    known = rounded(shuffled(truth("visium")))
    write_mtx(root / "outs" / "filtered_feature_bc_matrix", known, version=2)
    return _visium_1_spatial(root, known)


def _visium_1_spatial(root: Path, known: Truth):
    table = positions(known).astype(dict.fromkeys(HEADER[1:], int))
    write(root / "outs/spatial/tissue_positions_list.csv", table.to_csv(index=False, header=False))
    write(root / "outs/spatial/scalefactors_json.json", scalefactors(known))
    return _row("visium", root / "outs"), known


def visium_2(root: Path):
    """As written for the demo, including images."""
    from ctrflow.simulate import vendors

    vendors.write_visium(simulated("visium"), root / "outs")
    known = rounded(truth("visium"))
    return _row("visium", root / "outs", image=root / "outs_fullres.tif"), known.take(np.argsort(known.ids))


def visium_2_cytassist(root: Path):
    """Probe-based, with antibodies, the raw probe matrix and the CytAssist image; positions are not integers."""
    from PIL import Image

    known = shuffled(truth("visium"))
    outs = root / "outs"
    write_h5(outs / "filtered_feature_bc_matrix.h5", known, {"CD3": "Antibody Capture"})
    (outs / "raw_probe_bc_matrix.h5").write_bytes(b"not read")
    write(outs / "probe_set.csv", "#probe_set_file_format=1.0\n")
    write(outs / "spatial/tissue_positions.csv", positions(known).to_csv(index=False))
    write(outs / "spatial/scalefactors_json.json", scalefactors(known))
    Image.new("RGB", (300, 320)).save(outs / "spatial/cytassist_image.tiff")
    Image.new("RGB", (300, 320)).save(outs / "spatial/aligned_tissue_image.jpg")
    return _row("visium", outs), known


def visium_3_above_outs(root: Path):
    wanted, known = visium_2_cytassist(root)
    return wanted | {"path": str(root)}, known


def visium_4_parquet(root: Path):
    known = shuffled(truth("visium"))
    write_h5(root / "outs/filtered_feature_bc_matrix.h5", known, {"DEPRECATED_1": "Deprecated"})
    (root / "outs/spatial").mkdir()
    positions(known).to_parquet(root / "outs/spatial/tissue_positions.parquet", index=False)
    write(root / "outs/spatial/scalefactors_json.json", scalefactors(known))
    return _row("visium", root), known


def visium_geo(root: Path):
    """A GEO download: all files in one folder, the sample's name before each, tables gzipped."""
    known = rounded(shuffled(truth("visium")))
    write_h5(root / "GSM7_P1_filtered_feature_bc_matrix.h5", known)
    (root / "GSM7_P1_raw_feature_bc_matrix.h5").write_bytes(b"not read")
    table = positions(known).astype(dict.fromkeys(HEADER[1:], int))
    write_gz(root / "GSM7_P1_tissue_positions_list.csv.gz", table.to_csv(index=False, header=False))
    write_gz(root / "GSM7_P1_scalefactors_json.json.gz", scalefactors(known))
    return _row("visium", root), known


def visium_geo_mtx(root: Path):
    known = rounded(shuffled(truth("visium")))
    write_mtx(root, known, prefix="GSM7_P1_")
    write_gz(root / "GSM7_P1_tissue_positions.csv.gz", positions(known).to_csv(index=False))
    return _row("visium", root), known


# --- Visium HD --------------------------------------------------------------------------------------------------------


def hd_3(root: Path):
    known = _write_bins(root / "outs/binned_outputs/square_008um", shuffled(truth("visium_hd")))
    (root / "outs/binned_outputs/square_016um").mkdir()
    return _row("visium_hd", root / "outs"), known


def hd_3_binned_outputs(root: Path):
    wanted, known = hd_3(root)
    return wanted | {"path": str(root / "outs/binned_outputs"), "spot_um": "8"}, known


def hd_3_one_square(root: Path):
    wanted, known = hd_3(root)
    return wanted | {"path": str(root / "outs/binned_outputs/square_008um")}, known


def hd_4_mtx(root: Path):
    """Version 4 has cells in addition to bins; here the folder above `outs` is given, and 16 µm bins are requested."""
    known = shuffled(truth("visium_hd"))
    ids = bin_barcodes(known.array, 16)
    known = replace(known, ids=ids, um_per_px=2 * known.um_per_px, spot_um=16.0)
    (root / "outs/segmented_outputs").mkdir(parents=True)
    _write_bins(root / "outs/binned_outputs/square_016um", known, mtx=True)
    return _row("visium_hd", root, spot_um=16), known


def _write_bins(folder: Path, known: Truth, mtx: bool = False) -> Truth:
    if mtx:
        write_mtx(folder / "filtered_feature_bc_matrix", known)
    else:
        write_h5(folder / "filtered_feature_bc_matrix.h5", known)
    (folder / "spatial").mkdir()
    table = positions(replace(known, spot_um=8.0))
    table["barcode"] = bin_barcodes(table[["array_row", "array_col"]].to_numpy(), int(known.spot_um))
    table.to_parquet(folder / "spatial/tissue_positions.parquet", index=False)
    more = {"bin_size_um": known.spot_um, "microns_per_pixel": known.um_per_px}
    more["spot_diameter_fullres"] = known.spot_um / known.um_per_px
    write(folder / "spatial/scalefactors_json.json", scalefactors(known, **more))
    return known


# --- Visium HD, cells -------------------------------------------------------------------------------------------------

HD_UM_PER_PX = 0.2637  # a scan at 20x or 40x


def hd_cells(known: Truth) -> Truth:
    """`known` (positions in µm) as cells of Space Ranger 4, numbered from 1."""
    ids = [f"cellid_{number:09d}-1" for number in range(1, len(known.ids) + 1)]
    return replace(known, ids=ids, um_per_px=HD_UM_PER_PX, spot_um=55.0)


def hd_cells_4(root: Path):
    """All of the folder, and the cells that were filtered out: they have polygons and raw counts only."""
    known = hd_cells(shuffled(truth("xenium")))
    inside = root / "outs/segmented_outputs"
    write_h5(inside / "filtered_feature_cell_matrix.h5", known, {"CD3": "Antibody Capture"})
    write_mtx(inside / "filtered_feature_cell_matrix", known)
    (inside / "raw_feature_cell_matrix.h5").write_bytes(b"not read")
    for kind, half_px in (("cell", 12), ("nucleus", 6)):
        for prefix, more in (("", {}), ("graphclust_annotated_", {"classification": {"name": "Cluster-1"}})):
            write_polygons(inside / f"{prefix}{kind}_segmentations.geojson", known, half_px=half_px, **more)
    write(inside / "spatial/scalefactors_json.json", hd_scalefactors(known))
    (root / "outs/barcode_mappings.parquet").write_bytes(b"not read")
    return _row("visium_hd_cells", root / "outs"), known


def hd_cells_mtx(root: Path):
    """The folder itself, without the .h5 and the copies with clusters; ids of the polygons as text."""
    known = hd_cells(shuffled(truth("xenium")))
    inside = root / "segmented_outputs"
    write_mtx(inside / "filtered_feature_cell_matrix", known)
    write_polygons(inside / "cell_segmentations.geojson", known, name="cellid_{:09d}-1".format)
    write(inside / "spatial/scalefactors_json.json", hd_scalefactors(known))
    return _row("visium_hd_cells", inside), known


def hd_cells_geo(root: Path):
    """A GEO download: all files in one folder, the sample's name before each, gzipped."""
    known = hd_cells(shuffled(truth("xenium")))
    write_h5(root / "GSM9_P1_filtered_feature_cell_matrix.h5", known)
    write_polygons(root / "GSM9_P1_cell_segmentations.geojson.gz", known)
    write_gz(root / "GSM9_P1_scalefactors_json.json.gz", hd_scalefactors(known))
    return _row("visium_hd_cells", root), known


def hd_scalefactors(known: Truth) -> str:
    """As in segmented_outputs: no width of a spot or bin."""
    factors = {"microns_per_pixel": known.um_per_px, "tissue_hires_scalef": 0.12, "tissue_lowres_scalef": 0.012}
    return json.dumps(factors | {"fiducial_diameter_fullres": 1206.5, "regist_target_img_scalef": 0.12})


def write_polygons(path: Path, known: Truth, name=int, half_px: float = 12, spare: int = 3, **more) -> None:
    """A square around each cell, and `spare` around cells without counts, in an order of its own; `more` properties."""
    centres = [*(known.positions / known.um_per_px), *np.full((spare, 2), 40.0)]
    numbers = [int(one[7:16]) for one in known.ids]
    numbers += range(max(numbers) + 1, max(numbers) + 1 + spare)
    corners = half_px * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)])
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [(centre + corners).tolist()]},
            "properties": {"cell_id": name(number)} | more,
        }
        for number, centre in zip(numbers, centres, strict=True)
    ]
    _write_text(path, json.dumps({"type": "FeatureCollection", "features": features[::-1]}))


# --- Xenium -----------------------------------------------------------------------------------------------------------

CONTROLS = {"NegControlProbe_1": "Negative Control Probe", "NegControlCodeword_1": "Negative Control Codeword"}


def cell_table(known: Truth, ids=None) -> pd.DataFrame:
    """The columns of all versions, in a different order."""
    table = pd.DataFrame({"cell_id": ids or known.ids})
    table["x_centroid"], table["y_centroid"] = known.positions[:, 0], known.positions[:, 1]
    table["transcript_counts"] = known.counts.sum(axis=1)
    table["control_probe_counts"], table["total_counts"] = 1, table["transcript_counts"] + 1
    table["cell_area"], table["nucleus_area"] = 60.0, 20.0
    return table[::-1].reset_index(drop=True)


def experiment(version: str, **more) -> str:
    about = {"run_name": "simulated", "analysis_sw_version": f"xenium-{version}", "pixel_size": XENIUM_UM_PER_PX}
    return json.dumps(about | more)


def xenium_1_0(root: Path):
    """Integer ids, the cell table as gzipped CSV, blank codewords; `experiment.xenium` with few keys."""
    known = _integer_ids()
    write_h5(root / "cell_feature_matrix.h5", known, CONTROLS | {"BLANK_1": "Blank Codeword"})
    write_gz(root / "cells.csv.gz", cell_table(known).to_csv(index=False))
    write(root / "experiment.xenium", json.dumps({"pixel_size": 0.2125}))
    return _row("xenium", root), known


def xenium_1_1(root: Path):
    """Integer ids in parquet, text in the matrix."""
    known = _integer_ids()
    write_h5(root / "cell_feature_matrix.h5", known, CONTROLS)
    cell_table(known, ids=list(map(int, known.ids))).to_parquet(root / "cells.parquet", index=False)
    write(root / "experiment.xenium", experiment("1.1.0.2"))
    return _row("xenium", root), known


def _integer_ids() -> Truth:
    known = shuffled(truth("xenium"))
    return replace(known, ids=[str(number) for number in range(1, len(known.ids) + 1)])


def xenium_1_3(root: Path):
    """Ids as bytes."""
    known = shuffled(truth("xenium"))
    write_h5(root / "cell_feature_matrix.h5", known, CONTROLS | {"Unassigned_1": "Unassigned Codeword"})
    cell_table(known, ids=[name.encode() for name in known.ids]).to_parquet(root / "cells.parquet", index=False)
    write(root / "experiment.xenium", experiment("1.3.0.6"))
    return _row("xenium", root), known


def xenium_2(root: Path):
    """As written for the demo, next to an H&E image that is rotated and shifted."""
    from ctrflow.simulate import vendors

    vendors.write_xenium(simulated("xenium"), root / "X1")
    cells = pd.read_parquet(root / "X1" / "cells.parquet")
    known = replace(truth("xenium"), positions=cells[["x_centroid", "y_centroid"]].to_numpy())
    return _row("xenium", root / "X1"), known


def xenium_3_mtx(root: Path):
    """A download without the .h5, the bundle in `outs`, deprecated codewords."""
    known = shuffled(truth("xenium"))
    write_mtx(root / "outs/cell_feature_matrix", known, extra=CONTROLS | {"OLD": "Deprecated Codeword"})
    cell_table(known).to_parquet(root / "outs/cells.parquet", index=False)
    write(root / "outs/experiment.xenium", experiment("3.0.0.15"))
    return _row("xenium", root), known


def xenium_4(root: Path):
    """Proteins and genomic controls in addition to genes, the cell table unpacked, a prefix before each file name."""
    known = shuffled(truth("xenium"))
    others = {"CD3": "Protein Expression", "I1": "Genomic Control"}
    write_h5(root / "P1_cell_feature_matrix.h5", known, CONTROLS | others)
    write(root / "P1_cells.csv", cell_table(known).to_csv(index=False))
    write(root / "P1_experiment.xenium", experiment("4.0.0.8", xenium_ranger={"version": "xenium-4.0.1"}))
    return _row("xenium", root), known


# --- one file ---------------------------------------------------------------------------------------------------------


def h5ad_plain(root: Path):
    known = shuffled(truth("visium"))
    _adata(known).write_h5ad(root / "section.h5ad")
    return _row("h5ad", root / "section.h5ad"), known


def h5ad_cellxgene(root: Path):
    """Genes by Ensembl id, raw counts in .raw, array and images as in CELLxGENE, labels in obs."""
    known = shuffled(truth("visium"))
    adata = _adata(known)
    adata.var = pd.DataFrame({"feature_name": known.genes}, index=_gene_ids(known.genes))
    adata.obs["cell_type"], adata.obs["in_tissue"] = "malignant cell", 1
    adata.obs["array_row"], adata.obs["array_col"] = known.array.T
    adata.raw = adata
    adata.X = sparse.csr_matrix(np.log1p(known.counts))
    picture = {"hires": np.full((40, 40, 3), 200, np.uint8)}
    factors = {"tissue_hires_scalef": 0.2, "spot_diameter_fullres": 65 / known.um_per_px}
    adata.uns["spatial"] = {"is_single": True, "L1": {"images": picture, "scalefactors": factors}}
    path = root / "section.h5ad"
    adata.write_h5ad(path)
    return _row("h5ad", path, image=path), known


def _adata(known: Truth):
    import anndata

    return anndata.AnnData(
        sparse.csr_matrix(known.counts.astype(np.float32)),
        obs=pd.DataFrame(index=known.ids),
        var=pd.DataFrame(index=known.genes),
        obsm={"spatial": known.positions},
    )


# --- SpatialData ------------------------------------------------------------------------------------------------------


def write_store(path: Path, platform: str, known: Truth, zarr: int = 3) -> None:
    """A store as spatialdata-io's readers lay it out: circles (bins: squares) and the table that annotates them."""
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    adata = _adata(known)
    name = {"visium_hd": "S1_square_008um", "xenium": "cell_circles"}.get(platform, "S1")
    adata.obs["region"], adata.obs["spot_id"] = pd.Categorical([name] * len(known.ids)), np.arange(len(known.ids))
    if platform == "xenium":
        px = Scale([1 / known.um_per_px] * 2, axes=("x", "y"))
        systems = {"global": px}
    else:
        adata.obs["array_row"], adata.obs["array_col"] = known.array.T
        systems = {"S1": Identity()}
        for kind, factor in (("hires", 0.2), ("lowres", 0.06)):
            systems[f"S1_downscaled_{kind}"] = Scale([factor, factor], axes=("x", "y"))
    adata.obs["label"] = "tumour"
    radius = known.spot_um / known.um_per_px / 2
    order = np.random.default_rng(5).permutation(len(known.ids))
    index = adata.obs["spot_id"].iloc[order].copy()
    circles = known.positions[order]
    shapes = ShapesModel.parse(circles, geometry=0, radius=radius, index=index, transformations=systems)
    if platform == "visium_hd":
        import geopandas

        squares = geopandas.GeoDataFrame(geometry=shapes.buffer(radius, cap_style=3))
        shapes = ShapesModel.parse(squares, transformations=systems)
    table = TableModel.parse(adata, region=name, region_key="region", instance_key="spot_id")
    tables = {"square_008um" if platform == "visium_hd" else "table": table}
    SpatialData(shapes={name: shapes}, tables=tables).write(path, sdata_formats=_zarr_formats(zarr))


def _zarr_formats(zarr: int):
    from spatialdata._io import format as formats

    if zarr == 3:
        return None
    return [formats.SpatialDataContainerFormatV01(), formats.ShapesFormatV02(), formats.TablesFormatV01()]


def store(platform: str, zarr: int):
    """A case: a store of a platform, of Zarr 2 or 3."""

    def case(root: Path):
        known = shuffled(st_grid() if platform == "st" else truth(platform))
        write_store(root / "section.zarr", platform, known, zarr)
        return _row(platform, root / "section.zarr"), known

    return case


def _row(platform: str, path, **more) -> dict[str, str]:
    return {"section": "S1", "platform": platform, "path": str(path)} | {key: str(value) for key, value in more.items()}


CASES = {
    "st her2st": st_her2st,
    "st plain": st_plain,
    "visium 1 h5": visium_1,
    "visium 1 mtx": visium_1_mtx,
    "visium mtx of version 2": visium_mtx_of_version_2,
    "visium 2": visium_2,
    "visium 2 CytAssist": visium_2_cytassist,
    "visium 3 above outs": visium_3_above_outs,
    "visium 4 parquet": visium_4_parquet,
    "visium GEO h5": visium_geo,
    "visium GEO mtx": visium_geo_mtx,
    "visium_hd 3": hd_3,
    "visium_hd 3 binned_outputs": hd_3_binned_outputs,
    "visium_hd 3 one square": hd_3_one_square,
    "visium_hd 4 mtx, 16 um": hd_4_mtx,
    "visium_hd_cells 4": hd_cells_4,
    "visium_hd_cells 4 mtx": hd_cells_mtx,
    "visium_hd_cells GEO": hd_cells_geo,
    "xenium 1.0": xenium_1_0,
    "xenium 1.1": xenium_1_1,
    "xenium 1.3": xenium_1_3,
    "xenium 2": xenium_2,
    "xenium 3 mtx": xenium_3_mtx,
    "xenium 4": xenium_4,
    "h5ad plain": h5ad_plain,
    "h5ad CELLxGENE": h5ad_cellxgene,
    "st zarr 3": store("st", 3),
    "visium zarr 2": store("visium", 2),
    "visium zarr 3": store("visium", 3),
    "visium_hd zarr 2": store("visium_hd", 2),
    "visium_hd zarr 3": store("visium_hd", 3),
    "xenium zarr 2": store("xenium", 2),
    "xenium zarr 3": store("xenium", 3),
}


# --- damage -----------------------------------------------------------------------------------------------------------


def png() -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.new("RGB", (4, 4)).save(content, "PNG")
    return content.getvalue()


def cut_in_half(path: Path, rng) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_at_the_end(path: Path, rng) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def emptied(path: Path, rng) -> None:
    path.write_bytes(b"")


def a_picture(path: Path, rng) -> None:
    path.write_bytes(png())


def ids_shuffled(path: Path, rng) -> None:
    """Shuffle ids against the rest of the file, keeping its format."""
    edit_ids(path, lambda ids: ids[rng.permutation(len(ids))])


def rows_shuffled(path: Path, rng) -> None:
    """Shuffle complete rows: the content stays the same."""
    table = read_loose(path)
    write_loose(path, table.iloc[rng.permutation(len(table))])


BREAKS = {"cut in half": cut_in_half, "cut at the end": cut_at_the_end, "empty": emptied, "a picture": a_picture}


def edit_ids(path: Path, edit) -> None:
    """Replace the ids (or whatever assigns the rows) of a matrix or a table."""
    if path.name.endswith("matrix.h5"):
        with h5py.File(path, "r+") as handle:
            handle["matrix/barcodes"][:] = edit(handle["matrix/barcodes"][:])
        return
    if path.suffix == ".h5ad":
        with h5py.File(path, "r+") as handle:
            handle["obsm/spatial"][:] = edit(handle["obsm/spatial"][:])
        return
    table = read_loose(path)
    columns = list(table.columns[:2]) if "selection" in path.name else list(table.columns[:1])
    rows = table.index if path.suffix == ".parquet" or _headless(path) else table.index[1:]
    if "tissue_positions" in path.name:  # the others have no counts
        rows = rows[table.loc[rows].iloc[:, 1].astype(str) == "1"]
    table.loc[rows, columns] = edit(table.loc[rows, columns].to_numpy())
    write_loose(path, table)


def parts_of(path: Path) -> list:
    """The removable parts of a file: columns, data sets, keys."""
    if path.suffix in (".h5", ".h5ad"):
        names = []
        with h5py.File(path) as handle:
            handle.visit(names.append)
        return names
    if path.suffix == ".parquet":
        return list(pd.read_parquet(path).columns)
    if "scalefactors" in path.name or path.suffix == ".xenium":
        return list(json.loads(_text(path)))
    if ".geojson" in path.name:
        return ["features", "geometry", "properties"]
    if "cnts" in str(path) or "matrix.mtx" in path.name:
        return [0]  # a table of one gene less is still a table
    return list(range(read_loose(path).shape[1]))


def drop_part(path: Path, part) -> None:
    if path.suffix in (".h5", ".h5ad"):
        with h5py.File(path, "r+") as handle:
            del handle[part]
    elif path.suffix == ".parquet":
        pd.read_parquet(path).drop(columns=part).to_parquet(path, index=False)
    elif "scalefactors" in path.name or path.suffix == ".xenium":
        content = json.loads(_text(path))
        del content[part]
        _write_text(path, json.dumps(content))
    elif ".geojson" in path.name:
        content = json.loads(_text(path))
        for holder in [content] if part in content else content["features"]:
            del holder[part]
        _write_text(path, json.dumps(content))
    elif "matrix.mtx" in path.name:
        lines = _text(path).splitlines()
        _write_text(path, "\n".join(line for line in lines if len(line.split()) != 3 or line[0] == "%") + "\n")
    else:
        table = read_loose(path)
        write_loose(path, table.drop(columns=table.columns[part]))


def read_loose(path: Path) -> pd.DataFrame:
    """Any table, unparsed; in text files every line is a row, including the header."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    rows = [line.split(_separator(path)) for line in _text(path).splitlines()]
    return pd.DataFrame(rows, dtype=object)


def write_loose(path: Path, table: pd.DataFrame) -> None:
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
        return
    header = [] if _headless(path) else [0]
    rows = table.loc[[*header, *(place for place in table.index if place not in header)]]
    _write_text(path, "".join(_separator(path).join(map(str, row)) + "\n" for row in rows.to_numpy()))


def _headless(path: Path) -> bool:
    return (
        "tissue_positions_list" in path.name or "barcodes" in path.name or path.name.startswith(("features", "genes"))
    )


def _separator(path: Path) -> str:
    return "," if ".csv" in path.name else "\t"


def _text(path: Path) -> str:
    content = path.read_bytes()
    return (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode()


def _write_text(path: Path, text: str) -> None:
    write_gz(path, text) if path.name.endswith(".gz") else write(path, text)
