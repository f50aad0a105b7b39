"""One small cohort for every method: simulated patients and healthy tissue, with every input a method may need."""

from functools import cache
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow import image, methods, simulate
from ctrflow.encoders import embed_section
from ctrflow.features import copy_numbers, markers
from ctrflow.folds import tables
from ctrflow.image import superpixels
from ctrflow.logs import limit_threads
from ctrflow.simulate.expression import PROGRAMMES
from ctrflow.within import regions, teach
from quick import quick_options
from runs import ROOT
from simulated import add_image, as_spots

SECTIONS = {"P1": "her2", "P2": "er", "P3": "her2", "N1": "", "N2": ""}  # section -> the tumour's kind; "" is healthy
LEARNED = {"labelled": ("P1", "P2"), "normal": ("N1", "N2")}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    limit_threads(1)


def _unmistakable(drawn, parts, folder):
    """Healthy tissue from the training sections on the left, cancer from the training sections on the right.

    The tumour is darker than any other; its own genes are expressed six times as high, the others a tenth.
    """
    left, right = drawn["N1"].image, drawn["P1"].image
    height = max(len(left), len(right))
    pixels = np.full((height, left.shape[1] + right.shape[1], 3), 255, np.uint8)
    pixels[: len(left), : left.shape[1]] = left
    pixels[: len(right), left.shape[1] :] = right * np.array([0.75, 0.6, 0.85])
    healthy, tumour = parts["N1"][0], parts["P1"][0]
    cancer = tumour[parts["P1"][1]["label"].to_numpy() == 1].copy()
    cancer.obsm["spatial"] = cancer.obsm["spatial"] + [left.shape[1], 0]
    own = [gene for name in ("epithelium", "tumour", "her2") for gene in PROGRAMMES[name][1].split()]
    cancer.X = (cancer.X @ sparse.diags(np.where(cancer.var_names.isin(own), 6.0, 0.1))).floor().tocsr()
    both = ad.concat([healthy, cancer], keys=["healthy", "cancer"], index_unique="-")
    add_image(both, "U", pixels, drawn["N1"], folder)
    return both, np.repeat([0.0, 1.0], [healthy.n_obs, cancer.n_obs])


@pytest.fixture(scope="module", autouse=True)
def _few_genes():
    """The sections have 300 genes, fewer than copy numbers need. Of a module: other folders' tests may come after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copy_numbers, "LEAST_GENES", 100)
        yield


def _invented_places(genes) -> pd.DataFrame:
    """The genes, which are invented in part, dealt out along the chromosomes in their order."""
    number = np.arange(len(genes))
    return pd.DataFrame(
        {
            "ensembl": [f"ENSG{n:011d}" for n in number],
            "gene": list(genes),
            "chromosome": [str(1 + n % 22) for n in number],
            "start": 1 + number,
            "end": 2 + number,
            "other": "",
        }
    )


@pytest.fixture(scope="session")
def cohort(tmp_path_factory):
    """`train(name)`, `target(name)`, `unmistakable(name)`: the inputs of a method; the truth of both targets."""
    folder = tmp_path_factory.mktemp("images")
    drawn = {
        name: simulate.simulate_section(
            "st", 60, 300, seed=5, name=name, patient=name, subtype=kind or "her2", normal=not kind
        )
        for name, kind in SECTIONS.items()
    }
    parts = {name: as_spots(section, folder) for name, section in drawn.items()}
    planted, planted_truth = _unmistakable(drawn, parts, folder)
    spots = {name: part[0] for name, part in parts.items()} | {"U": planted}
    features = {name: embed_section(table, "hed", {"model": "hed_texture"}) for name, table in spots.items()}

    @cache
    def views(view, section):
        target = tables.target_view({section: spots[section]}, {section: features[section]})
        if view == "drawn":
            section_alone = tables.train_view({section: spots[section]}, {section: features[section]}, {})
            own = tables.together(tables.build_train(section_alone, n_genes=200))
            truth = planted_truth if section == "U" else parts[section][1]["label"].to_numpy(dtype=float)
            labels = pd.DataFrame({"label": regions.draw(truth, own.obsm["spatial"], 0.2, seed=1)})
            return teach.taught(own, regions.table(spots[section], labels)), own
        if view == "alone":
            return None, tables.with_genes(target, list(target.var_names))
        learned = LEARNED[view]
        labels = {name: parts[name][1] for name in learned} if view == "labelled" else {}
        train = tables.train_view({n: spots[n] for n in learned}, {n: features[n] for n in learned}, labels)
        return tuple(map(tables.together, tables.build_views(train, target, n_genes=200)))

    @cache
    def patches(section, um, px):
        return list(spots[section].obs_names), image.section_patches(spots[section], um, px)

    @cache
    def painted(section):
        return superpixels.arrays(superpixels.cut_superpixels(spots[section]))

    def with_inputs(name, table):
        spec = methods.load(name).SPEC
        given, table = quick_options(name), table.copy()
        sections = list(dict.fromkeys(table.obs["section"]))
        if "patches" in spec.needs:
            size = given["patch_um"], given["patch_px"]
            table = tables.with_patches(table, {section: patches(section, *size) for section in sections})
        if "superpixels" in spec.needs:
            table.uns["superpixels"] = {section: painted(section) for section in sections}
        if "markers" in spec.needs:
            known = markers.read_markers(ROOT / "config" / "markers" / "breast.tsv")
            table.uns["markers"] = dict.fromkeys(sections, known)
        if "positions" in spec.needs:
            table.uns["positions"] = _invented_places(table.var_names)
        if "prior" in spec.needs:
            table.obs["prior"] = np.linspace(-1, 1, table.n_obs)
        return table

    def given(name, section):
        return views(methods.load(name).SPEC.view, section)

    return SimpleNamespace(
        train=lambda name: with_inputs(name, given(name, "P3")[0]),
        target=lambda name: with_inputs(name, given(name, "P3")[1]),
        taught_unmistakable=lambda name: with_inputs(name, given(name, "U")[0]),
        unmistakable=lambda name: with_inputs(name, given(name, "U")[1]),
        truth=parts["P3"][1]["label"].to_numpy(dtype=float),
        planted=planted_truth,
    )
