"""Counts of drawn cells: the expression of each kind of cell, and how a platform measures it.

Programmes belong to the biology and are the same in every section (fixed seed); a patient shifts the tumour's, a
platform weighs the genes, and a section adds depth and noise.
"""

import zlib

import numpy as np

from ctrflow.errors import InputError
from ctrflow.simulate.tissue import KIND, KINDS

BIOLOGY_SEED = 20250101
GENES_MAX = 2000
PANEL_SIZE = 300

# Genes by programme, with how many times over the other kinds of cell they are expressed.
PROGRAMMES = {
    "epithelium": (4, "EPCAM KRT8 KRT18 KRT19 KRT7 CDH1 CLDN4 CLDN7 MUC1 ELF3 SPINT2 TACSTD2 RAB25 ESRP1 KRT23"),
    "luminal": (7, "KRT15 LTF SCGB2A2 SCGB1D2 PIGR SLPI AZGP1 WFDC2 MMP7 KIT ALDH1A3 SCGB3A1 BBOX1 PIP ELF5"),
    "tumour": (
        2.4,
        "MKI67 TOP2A CCNB1 CDK1 BIRC5 UBE2C TYMS PCNA CCND1 MYC SOX4 S100A11 TFF3 CRABP2 KRT81 FASN TSPAN13 MUCL1 "
        "CEACAM6 BAMBI NUPR1 MIF HSPB1 CD24 XBP1 AGR2 TPD52 STMN1 TUBB H2AZ1",
    ),
    "stroma": (
        9,
        "COL1A1 COL1A2 COL3A1 DCN LUM FN1 SPARC COL6A1 COL6A2 COL6A3 COL5A1 COL5A2 THY1 PDGFRB VCAN BGN AEBP1 CCDC80 "
        "FBLN1 MMP2 SFRP2 SFRP4 IGFBP4 C1S C1R SERPINF1 CFD",
    ),
    "reactive": (5, "POSTN FAP COMP CTHRC1 COL11A1 COL10A1 MMP11 INHBA SULF1 THBS2 TAGLN LRRC15"),
    "fat": (14, "ADIPOQ PLIN1 FABP4 LEP PLIN4 CIDEC LPL ADH1B GPD1 CD36 LIPE G0S2 AQP7 TIMP4 RBP4"),
    "lymphoid": (8, "PTPRC CD52 CORO1A IL7R CXCR4 LTB TRAF3IP3 SELL LCK CCL19 CCL5 ITGB7 CD37"),
    "t_cell": (10, "CD3D CD3E CD2 CD3G TRAC CD8A CD4 GZMK CD247 TRBC1 CD6 FOXP3"),
    "b_cell": (12, "MS4A1 CD79A IGKC CD79B CD19 BANK1 IGHM JCHAIN MZB1 IGHG1 CD22 TCL1A"),
    "macrophage": (11, "CD68 CD163 LYZ CSF1R C1QA C1QB C1QC MRC1 FCER1G TYROBP AIF1 CD14 ITGAX APOE MS4A7"),
    "myoepithelium": (10, "KRT5 KRT14 ACTA2 MYLK KRT17 OXTR TP63 CNN1 DST LAMA3 MYH11 KRT6B SFN"),
    "endothelium": (12, "PECAM1 VWF CDH5 CLDN5 EGFL7 KDR RAMP2 ESAM PLVAP AQP1 EMCN CLEC14A"),
    "her2": (1, "ERBB2 GRB7 STARD3 PGAP3 MIEN1 TCAP"),
    "oestrogen": (1, "ESR1 PGR TFF1 GATA3 FOXA1 GREB1 CA12 SCUBE2"),
    "stress": (1, "VIM CD44 SOX9 EGFR VEGFA LDHA CA9 NDRG1"),
    "housekeeping": (1, "GAPDH ACTB RPLP0 MALAT1 RPS27 RPL13 EEF1A1 B2M TMSB4X FTL UBC PPIA"),
}
KIND_PROGRAMMES = {
    "luminal": ("epithelium", "luminal"),
    "myoepithelial": ("myoepithelium",),
    "fibroblast": ("stroma",),
    "reactive": ("stroma", "reactive"),
    "adipocyte": ("fat",),
    "t_cell": ("lymphoid", "t_cell"),
    "b_cell": ("lymphoid", "b_cell"),
    "macrophage": ("macrophage",),
    "endothelial": ("endothelium",),
    "invasive": ("epithelium", "tumour"),
}
# How far from normal epithelium (0) to the patient's tumour (1) the epithelial kinds express.
MALIGNANCY = {
    "luminal": 0.0,
    "hyperplastic": 0.06,
    "active": 0.6,
    "luminal_like": 0.08,
    "dcis": 0.6,
    "bland": 0.9,
    "invasive": 1.0,
}
SUBTYPES = {
    "her2": {"her2": 9.0},
    "er": {"oestrogen": 7.0},
    "mixed": {"her2": 3.0, "oestrogen": 4.0},
    "basal": {"stress": 4.5},
}
RNA = {
    "invasive": 1.8,
    "bland": 1.5,
    "luminal_like": 1.8,
    "dcis": 1.7,
    "hyperplastic": 1.5,
    "active": 1.4,
    "luminal": 1.3,
}
RNA |= {"adipocyte": 3.0, "t_cell": 0.55, "b_cell": 0.6, "fibroblast": 0.9, "myoepithelial": 0.8, "endothelial": 0.7}
# expected counts, spread of depth (log), counts' extra variance, share of RNA from the whole section's soup
PLATFORMS = {"st": (4200, 0.30, 0.25, 0.24), "visium": (7500, 0.28, 0.20, 0.16), "xenium": (150, 0.40, 0.35, 0.02)}


def gene_names(genes: int = GENES_MAX) -> list[str]:
    """The first `genes` gene names: real symbols of the programmes, a few of each in turn, then invented ones."""
    if not 1 <= genes <= GENES_MAX:
        raise InputError(f"genes={genes}: the simulated genome has 1 to {GENES_MAX} genes")
    lists = [words.split() for _, words in PROGRAMMES.values()]
    names = [words[rank] for rank in range(max(map(len, lists))) for words in lists if rank < len(words)]
    return (names + [f"GENE{number:04d}" for number in range(1, GENES_MAX + 1)])[:genes]


def panel() -> list[str]:
    """The genes of the imaging platform: markers and some others, without the housekeeping genes."""
    housekeeping = set(PROGRAMMES["housekeeping"][1].split())
    return [name for name in gene_names() if name not in housekeeping][:PANEL_SIZE]


def profiles(patient: str, subtype: str) -> np.ndarray:
    """Relative expression of all genes in each kind of cell (kinds x GENES_MAX, rows sum to 1).

    `subtype` names the tumour's own programme (her2, er, mixed, basal); `patient` seeds a shift of many genes that is
    found in this patient's tumour alone.
    """
    names = np.array(gene_names())
    biology = np.random.default_rng(BIOLOGY_SEED)
    base = np.exp(biology.normal(0, 1.1, GENES_MAX))
    marked = sum(len(words.split()) for _, words in PROGRAMMES.values())
    base[:marked] = np.exp(biology.normal(1.1, 0.6, marked))
    base[np.isin(names, PROGRAMMES["housekeeping"][1].split())] *= 12
    texture = biology.normal(0, 0.30, (len(KINDS), GENES_MAX))
    malignant = np.where(np.arange(GENES_MAX) % 7 == 3, biology.normal(0, 0.35, GENES_MAX), 0)
    low = np.log(np.where(_is_marker(names), 0.25, 1.0))
    log = np.log(base) + low + texture
    for kind, programmes in KIND_PROGRAMMES.items():
        for programme in programmes:
            fold, words = PROGRAMMES[programme]
            log[KIND[kind], np.isin(names, words.split())] += np.log(4 * fold)
    own = np.random.default_rng([BIOLOGY_SEED, zlib.crc32(patient.encode())])
    tumour = (
        log[KIND["luminal"]]
        + malignant
        + np.where(own.uniform(size=GENES_MAX) < 0.25, own.normal(0, 0.85, GENES_MAX), 0)
    )
    tumour[np.isin(names, PROGRAMMES["luminal"][1].split())] -= own.uniform(0.3, 1.1)
    words = PROGRAMMES["tumour"][1].split()
    tumour[np.isin(names, words)] += np.log(4 * PROGRAMMES["tumour"][0]) + own.normal(0, 0.7, len(words))
    for programme, fold in SUBTYPES[subtype].items():
        tumour[np.isin(names, PROGRAMMES[programme][1].split())] += np.log(fold)
    normal = log[KIND["luminal"]].copy()
    for kind, share in MALIGNANCY.items():
        private = 0.3 * (log[KIND[kind]] - np.log(base) - low) if kind not in KIND_PROGRAMMES else 0
        log[KIND[kind]] = normal + share * (tumour - normal) + private
    level = np.exp(log)
    return level / level.sum(axis=1, keepdims=True)


def _is_marker(names: np.ndarray) -> np.ndarray:
    """Genes that cells outside their programme hardly express."""
    everywhere = ("housekeeping", "her2", "oestrogen", "stress")
    return np.isin(names, [w for key, (_, words) in PROGRAMMES.items() if key not in everywhere for w in words.split()])


def draw_counts(cells_at, kinds: np.ndarray, platform: str, patient: str, subtype: str, genes: list[str], rng):
    """Counts (CSR float32 of integers, spots x genes).

    Parameters
    ----------
    cells_at
        sparse spots x cells: the share of a cell's RNA that a spot catches.
    kinds
        kind of each cell (codes of `tissue.KINDS`).
    genes
        names out of `gene_names()`.
    """
    from scipy import sparse

    depth, spread, dispersion, soup = PLATFORMS[platform]
    place = {name: number for number, name in enumerate(gene_names())}
    columns = [place[name] for name in genes]
    taste = np.random.default_rng([BIOLOGY_SEED, zlib.crc32(platform.encode())])
    capture = np.exp(taste.normal(0, 0.45, GENES_MAX)) * np.exp(rng.normal(0, 0.12, GENES_MAX))
    profile = profiles(patient, subtype) * capture
    profile = (profile / profile.sum(axis=1, keepdims=True))[:, columns]
    if len(genes) <= PANEL_SIZE:  # a panel's depth is counted on the panel alone
        profile /= profile.sum(axis=1, keepdims=True).mean()
    amount = np.array([RNA.get(kind.name, 1.0) for kind in KINDS])[kinds] * np.exp(rng.normal(0, 0.3, len(kinds)))
    one_hot = sparse.csr_matrix((amount, (np.arange(len(kinds)), kinds)), shape=(len(kinds), len(KINDS)))
    content = np.asarray((cells_at @ one_hot).todense())
    total = content.sum(axis=1)
    mix = np.divide(content, total[:, None], out=np.zeros_like(content), where=total[:, None] > 0)
    everywhere = content.sum(axis=0) / content.sum()
    mix = (1 - soup) * mix + soup * everywhere
    mix[total == 0] = everywhere
    size = (np.maximum(total, 0.05 * np.median(total)) / np.median(total)) ** 0.6
    size = depth * size * np.exp(rng.normal(0, spread, len(total)))
    mean = size[:, None] * (mix @ profile)
    mean *= rng.gamma(1 / dispersion, dispersion, mean.shape)
    return sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
