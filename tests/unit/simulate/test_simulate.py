"""Simulated sections: reproducible, in the vendors' layouts, with the planted signals in both modalities."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from ctrflow.errors import InputError
from ctrflow.simulate import Plan, simulate_section, write_st, write_visium, write_xenium
from ctrflow.simulate.cohort import SECTIONS
from ctrflow.simulate.expression import gene_names, panel, profiles
from ctrflow.simulate.tissue import CANCER_WORDS, KIND, WORDS

GENES = 200


@pytest.fixture(scope="module")
def st():
    return simulate_section("st", 60, GENES, 1)


@pytest.fixture(scope="module")
def visium():
    return simulate_section("visium", 60, GENES, 2)


@pytest.fixture(scope="module")
def xenium():
    return simulate_section("xenium", 40, 100, 3)


@pytest.fixture(scope="module")
def all_platforms(st, visium, xenium):
    return {"st": st, "visium": visium, "xenium": xenium}


def test_same_seed_same_section_other_seed_other_section(visium):
    again = simulate_section("visium", 60, GENES, 2)
    assert (again.image == visium.image).all()
    assert (again.counts != visium.counts).nnz == 0
    pd.testing.assert_frame_equal(again.spots, visium.spots)
    pd.testing.assert_frame_equal(again.cells, visium.cells)
    other = simulate_section("visium", 60, GENES, 3)
    assert other.counts.sum() != visium.counts.sum()


@pytest.mark.parametrize("platform", ["st", "visium", "xenium"])
def test_counts_are_integers_and_spots_lie_in_the_image(all_platforms, platform):
    section = all_platforms[platform]
    counts = section.counts
    assert counts.shape == (len(section.spots), len(section.genes))
    assert counts.data.min() > 0
    assert (counts.data == np.rint(counts.data)).all()
    height, width, channels = section.image.shape
    assert (section.image.dtype, channels) == (np.uint8, 3)
    assert section.spots["x_px"].between(0, width - 1).all()
    assert section.spots["y_px"].between(0, height - 1).all()
    assert section.spots["spot"].is_unique
    assert len(set(section.genes)) == len(section.genes)
    assert set(section.spots["region"]) <= set(WORDS)
    assert set(section.spots["label"]) == {0, 1}


def test_number_of_spots_is_exact_and_labels_follow_the_words(st, visium):
    for section in (st, visium):
        assert len(section.spots) == 60
        assert (section.spots["label"] == section.spots["region"].isin(CANCER_WORDS)).all()


def test_spots_lie_on_the_platforms_lattices(st, visium):
    from scipy.spatial import cKDTree

    for section, pitch, slack in ((st, 200, 25), (visium, 100, 0.01)):
        points = section.spots[["x_px", "y_px"]].to_numpy() * section.um_per_px
        nearest = cKDTree(points).query(points, k=2)[0][:, 1]
        assert np.abs(np.median(nearest) - pitch) < slack
    assert ((visium.spots["row"] + visium.spots["col"]) % 2 == 0).all()


def test_a_cell_is_where_its_nucleus_is_drawn(visium):
    """Haematoxylin absorbs red light: pixels at the cells' centres are darker in red than the tissue on average."""
    dark = visium.cells[visium.cells["type"].isin(["t_cell", "b_cell", "luminal", "invasive", "dcis"])]
    x, y = (np.rint(dark[axis] / visium.um_per_px - 0.5).astype(int) for axis in ("x_um", "y_um"))
    red = visium.image[..., 0].astype(float)
    tissue = visium.image.min(axis=2) < 215
    assert np.median(red[y, x]) < np.median(red[tissue]) - 40


def test_glass_is_white_and_tissue_is_stained(st):
    corner = st.image[:40, :40].reshape(-1, 3)
    assert corner.min() > 215
    stained = (st.image.min(axis=2) < 215).mean()
    assert 0.3 < stained < 0.9


MARKED = {
    "PLIN1": ["adipocyte"],
    "COL1A1": ["fibroblast", "reactive"],
    "CD3D": ["t_cell"],
    "EPCAM": ["invasive", "bland", "luminal_like", "dcis", "luminal", "hyperplastic", "active"],
}


def marker_correlations(section):
    """Rank correlation, over spots, of a marker's share of the counts with the share of its cells in the disc."""
    from scipy.spatial import cKDTree
    from scipy.stats import spearmanr

    counts = section.counts.toarray()
    level = counts / counts.sum(axis=1, keepdims=True)
    centres = (section.spots[["x_px", "y_px"]].to_numpy() + 0.5) * section.um_per_px
    inside = cKDTree(section.cells[["x_um", "y_um"]]).query_ball_point(centres, section.spot_um / 2)
    kinds = section.cells["type"].to_numpy()
    correlations = {}
    for gene, names in MARKED.items():
        share = [np.isin(kinds[cells], names).mean() if cells else 0 for cells in inside]
        correlations[gene] = spearmanr(level[:, section.genes.index(gene)], share).statistic
    return correlations


def test_expression_of_a_spot_is_that_of_its_cells(st):
    correlations = marker_correlations(st)
    assert min(correlations.values()) > 0.3, correlations
    shuffled = np.random.default_rng(0).permutation(len(st.spots))
    wrong = dataclasses.replace(st, counts=st.counts[shuffled])
    assert max(marker_correlations(wrong).values()) < 0.35


def test_look_alikes_differ_in_expression_and_lookalike_expression_in_nuclei():
    """The planted hard cases, checked in the programmes and cells behind images and counts."""
    genes = gene_names()
    tumour = [genes.index(g) for g in ("MKI67", "TOP2A", "CCNB1", "BIRC5", "UBE2C", "MYC")]
    level = np.log(profiles("P1", "her2"))
    step = {name: level[KIND[name], tumour].mean() - level[KIND["luminal"], tumour].mean() for name in KIND}
    assert step["invasive"] > 1
    assert abs(step["hyperplastic"]) < 0.35 * step["invasive"] < step["dcis"]
    assert abs(step["luminal_like"]) < 0.35 * step["invasive"] < step["bland"]
    cells = simulate_section("st", 90, 50, 4, plan=Plan(invasive=0.3, luminal_like=0.4, bland=0.3)).cells
    area = (cells["long_um"] * cells["short_um"]).groupby(cells["type"]).median()
    assert area["luminal_like"] > 1.6 * area["luminal"]
    assert area["bland"] < 1.15 * area["luminal"]
    assert 0.7 < area["hyperplastic"] / area["dcis"] < 1.1


def test_patients_share_their_normal_cells_and_differ_in_their_tumour():
    one, two = profiles("P1", "her2"), profiles("P2", "er")
    genes = gene_names()
    stroma = np.corrcoef(np.log(one[KIND["fibroblast"]]), np.log(two[KIND["fibroblast"]]))[0, 1]
    tumour = np.corrcoef(np.log(one[KIND["invasive"]]), np.log(two[KIND["invasive"]]))[0, 1]
    assert stroma > 0.999
    assert 0.5 < tumour < 0.98
    erbb2, esr1 = genes.index("ERBB2"), genes.index("ESR1")
    assert one[KIND["invasive"], erbb2] > 4 * two[KIND["invasive"], erbb2]
    assert two[KIND["invasive"], esr1] > 3 * one[KIND["invasive"], esr1]
    np.testing.assert_allclose(one.sum(axis=1), 1)


def test_healthy_section_has_no_cancer():
    section = simulate_section("visium", 80, 50, 6, normal=True)
    assert section.spots["label"].sum() == 0
    assert not set(section.spots["region"]) & set(CANCER_WORDS)
    assert not set(section.cells["type"]) & {"invasive", "bland", "luminal_like", "dcis"}
    assert "breast glands" in set(section.spots["region"])


def test_the_demo_has_three_st_patients_a_healthy_section_and_a_panel_of_known_genes():
    assert [name for name, platform, *_ in SECTIONS if platform == "st"] == ["A1", "B1", "C1"]
    plans = {name: plan for name, _, _, _, plan in SECTIONS}
    assert plans["N1"].invasive == plans["N1"].in_situ == 0
    assert len(panel()) == 300
    assert set(panel()) < set(gene_names())
    assert not {"GAPDH", "ACTB"} & set(panel())


def test_st_layout(st, tmp_path):
    from PIL import Image

    write_st(st, tmp_path, "A1")
    counts = pd.read_csv(tmp_path / "ST-cnts" / "A1.tsv.gz", sep="\t", index_col=0)
    selection = pd.read_csv(tmp_path / "ST-spotfiles" / "A1_selection.tsv", sep="\t")
    labels = pd.read_csv(tmp_path / "ST-pat" / "lbl" / "A1_labeled_coordinates.tsv", sep="\t")
    assert list(selection) == ["x", "y", "new_x", "new_y", "pixel_x", "pixel_y", "selected"]
    assert list(labels) == ["Row.names", "x", "y", "pixel_x", "pixel_y", "label"]
    assert list(counts) == st.genes
    kept = counts.loc[st.spots["spot"]]
    assert (kept.to_numpy() == st.counts.toarray()).all()
    names = selection["x"].astype(str) + "x" + selection["y"].astype(str)
    assert set(names) == set(counts.index)
    rounded = labels["x"].round().astype(int).astype(str) + "x" + labels["y"].round().astype(int).astype(str)
    words = dict(zip(rounded, labels["label"], strict=True))
    assert words == dict(zip(st.spots["spot"], st.spots["region"], strict=True))
    by_new = set(zip(selection["new_x"], selection["new_y"], strict=True))
    assert by_new == set(zip(labels["x"], labels["y"], strict=True))
    slope = np.polyfit(selection["x"], selection["pixel_x"], 1)[0]
    assert slope == pytest.approx(200 / st.um_per_px, rel=0.01)
    with Image.open(tmp_path / "ST-imgs" / "A1.jpg") as image:
        assert image.size == st.image.shape[1::-1]


def test_visium_layout(visium, tmp_path):
    import scanpy as sc
    import tifffile

    write_visium(visium, tmp_path / "V1")
    adata = sc.read_10x_h5(tmp_path / "V1" / "filtered_feature_bc_matrix.h5")
    order = [visium.spots["spot"].tolist().index(barcode) for barcode in adata.obs_names]
    assert list(adata.var_names) == visium.genes
    assert (visium.counts[order] != adata.X).nnz == 0
    spatial = tmp_path / "V1" / "spatial"
    positions = pd.read_csv(spatial / "tissue_positions.csv")
    columns = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
    assert list(positions) == columns
    assert positions["barcode"].is_unique
    inside = positions[positions["in_tissue"] == 1]
    assert len(inside) == 60 < len(positions)
    assert set(inside["barcode"]) == set(adata.obs_names)
    assert inside["barcode"].tolist() != adata.obs_names.tolist()
    at = inside.set_index("barcode").loc[visium.spots["spot"]]
    assert np.abs(at["pxl_col_in_fullres"].to_numpy() - visium.spots["x_px"].to_numpy()).max() <= 0.5
    assert np.abs(at["pxl_row_in_fullres"].to_numpy() - visium.spots["y_px"].to_numpy()).max() <= 0.5
    scales = json.loads((spatial / "scalefactors_json.json").read_text())
    assert scales["spot_diameter_fullres"] == pytest.approx(65 / visium.um_per_px)
    with tifffile.TiffFile(tmp_path / "V1_fullres.tif") as file:
        assert file.pages[0].is_tiled
        full = file.asarray()
    assert full.shape == visium.image.shape
    assert np.abs(full.astype(float) - visium.image).mean() < 6
    from PIL import Image

    with Image.open(spatial / "tissue_hires_image.png") as image:
        assert image.size[0] == round(visium.image.shape[1] * scales["tissue_hires_scalef"])
    labels = pd.read_csv(tmp_path / "V1_labels.csv").set_index("Barcode")["Region"]
    assert labels.loc[visium.spots["spot"]].tolist() == visium.spots["region"].tolist()


def test_xenium_layout_and_alignment(xenium, tmp_path):
    import scanpy as sc
    import tifffile

    write_xenium(xenium, tmp_path / "X1")
    folder = tmp_path / "X1"
    adata = sc.read_10x_h5(folder / "cell_feature_matrix.h5", gex_only=False)
    assert set(adata.var["feature_types"]) == {"Gene Expression", "Negative Control Probe"}
    genes = adata[:, adata.var["feature_types"] == "Gene Expression"]
    assert list(genes.var_names) == xenium.genes
    assert (xenium.counts != genes.X).nnz == 0
    cells = pd.read_parquet(folder / "cells.parquet")
    assert cells["cell_id"].tolist() == adata.obs_names.tolist()
    assert (cells["transcript_counts"].to_numpy() == np.asarray(xenium.counts.sum(axis=1)).ravel()).all()
    assert (cells["nucleus_area"] < cells["cell_area"] * 2).all()
    pd.testing.assert_frame_equal(cells, pd.read_csv(folder / "cells.csv.gz"), check_dtype=False)
    pixel_um = json.loads((folder / "experiment.xenium").read_text())["pixel_size"]
    assert pixel_um == 0.2125

    matrix = np.loadtxt(tmp_path / "X1_he_imagealignment.csv", delimiter=",")
    assert matrix[2].tolist() == [0, 0, 1]
    scale = np.sqrt(np.linalg.det(matrix[:2, :2]))
    assert scale == pytest.approx(xenium.um_per_px / pixel_um)
    places = np.column_stack([cells["x_centroid"], cells["y_centroid"], np.full(len(cells), pixel_um)]) / pixel_um
    back = places @ np.linalg.inv(matrix).T
    np.testing.assert_allclose(back[:, :2], xenium.spots[["x_px", "y_px"]], atol=1e-6)
    unturned = places[:, :2] * pixel_um / xenium.um_per_px
    assert np.abs(unturned - back[:, :2]).max() > 100  # px: ignoring the alignment must be noticed
    assert (places > 0).all()

    with tifffile.TiffFile(tmp_path / "X1_he_image.ome.tif") as file:
        assert file.is_ome
        assert f'PhysicalSizeX="{xenium.um_per_px}"' in file.ome_metadata
        sizes = [level.shape[0] for level in file.series[0].levels]
    assert sizes[0] == xenium.image.shape[0]
    assert all(small == round(sizes[0] / 2**k) for k, small in enumerate(sizes))
    types = pd.read_csv(tmp_path / "X1_cell_types.csv")
    assert types["Barcode"].tolist() == cells["cell_id"].tolist()
    assert {"Invasive_Tumor", "Stromal", "Unlabeled"} <= set(types["Cluster"])


def test_files_are_the_same_bytes_each_time(st, visium, xenium, tmp_path):
    for part in ("one", "two"):
        write_st(st, tmp_path / part, "A1")
        write_visium(visium, tmp_path / part / "V1")
        write_xenium(xenium, tmp_path / part / "X1")
    first = {p.relative_to(tmp_path / "one"): p.read_bytes() for p in (tmp_path / "one").rglob("*") if p.is_file()}
    second = {p.relative_to(tmp_path / "two"): p.read_bytes() for p in (tmp_path / "two").rglob("*") if p.is_file()}
    assert len(first) == 4 + 7 + 7
    assert [path for path in first if first[path] != second[path]] == []


def test_bad_arguments_are_rejected():
    with pytest.raises(InputError, match="choose one of st, visium, xenium"):
        simulate_section("slideseq")
    with pytest.raises(InputError, match="1 to 2000"):
        simulate_section("st", 20, 2001)
