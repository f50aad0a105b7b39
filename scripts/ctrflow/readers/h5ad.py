"""Any platform, as an AnnData file with raw counts and `obsm["spatial"]` in full-resolution px.

What is believed of its fields, and what contradicts what: docs/reading.md, "AnnData files".
"""

import logging
import re
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.image.h5ad import IMAGES_INSIDE
from ctrflow.readers import bare, describe, genes, libraries
from ctrflow.readers.counts import require_counts, require_finite, require_own_places, stored_values
from ctrflow.readers.kinds import in_hdf5
from ctrflow.readers.platform import Platform
from ctrflow.scale import arrays
from ctrflow.scale.arrays import VISIUM, Array
from ctrflow.scale.settle import (
    Claim,
    Layout,
    number,
    of_diameter,
    of_hexagons,
    of_layout,
    positive,
    settle,
    settle_image_scale,
)

logger = logging.getLogger("ctrflow")

PLATFORM = Platform("an AnnData file")
# of a layer's letters, best first
COUNT_LAYERS = ("counts", "rawcounts", "countsraw", "count", "rawcount", "raw", "umicounts", "umi", "umis")
INSIDE, OUTSIDE = ("1", "1.0", "true", "t", "yes", "in", "in tissue", "tissue"), ("0", "0.0", "false", "f", "no", "out",
                   "not in tissue", "outside", "background")  # fmt: skip
MAX_WIDTH = 1.1  # of a spot, in pitches
PXL = ("pxl_col_in_fullres", "pxl_row_in_fullres")  # x and y, as Space Ranger and HEST-1k name them
TYPES = ("featuretypes", "featuretype", "featurebiotype")
NO_GENE = r"antibody|\badt\b|protein expression|control|crispr|codeword|peaks|multiplex"
GENE = ("gene expression", "gene", "genes", "rna", "gex", "mrna")
# features without a type that are no genes, as 10x, Vizgen and NanoString name them
CONTROLS = re.compile(
    r"(NegControl(Probe|Codeword)|NegPrb|NegProbe|NegativeControl|Negative(?=\d)|SystemControl|FalseCode|"
    r"(Unassigned|Deprecated)Codeword|BLANK|Blank|antisense|Intergenic_Region)[_-]?\d*.*"
)
VISIUM_BARCODE = re.compile(r".*[ACGT]{16}.*")


def recognises(path: Path) -> bool:
    """Whether an HDF5 file has a table of spots."""
    return in_hdf5(path, "obs")


def files(row: dict) -> list[str]:
    """The file."""
    return [row["path"]]


def read(row: dict):
    """Spots. See `ctrflow.readers.read_section`.

    Of several libraries the row names one (column library). Spots that `obs["in_tissue"]` places outside the tissue are
    left out. Column image may name the file itself: CELLxGENE files contain images.
    """
    path = row["path"]
    source, of_several = libraries.chosen(_opened(path), row)
    spots = in_tissue(raw_counts(source, path), path)
    px = spots.obsm["spatial"] = _positions(spots, path)
    array = array_places(spots, path)
    if array is not None:
        require_own_places(array, spots.obs_names, path)
    library = next(iter(libraries.in_uns(spots.uns).values()), {})
    scalefactors = _scalefactors(library, path)
    image, image_scale = _image(row, of_several, library, scalefactors)
    diameter_px = scalefactors.get("spot_diameter_fullres")
    layout = of_layout(px, diameter_px)
    shown, claims = _of_array(array, px, layout)
    if layout.sides == 6 and shown is None and spots.obs_names.str.fullmatch(VISIUM_BARCODE).all():
        shown = VISIUM
    claims = [*_own_claims(spots, scalefactors, layout), *claims, *layout.claims]
    if layout.sides == 6 and layout.array is None:
        claims += of_hexagons(layout, diameter_px, sure=shown is VISIUM)
    elif layout.array is None and shown is VISIUM:
        claims.append(of_diameter(diameter_px))
    scale = settle(row, claims, image, image_scale, layout.about)
    spot_um = _spot_um(row, spots, scalefactors, layout, shown, scale.um_per_px)
    if spot_um is None:
        raise InputError(
            f"{path}: section {row['section']}: the file does not give the width of a spot ({layout.about}); fill "
            "column spot_um of the section sheet (µm)"
        )
    if spot_um > MAX_WIDTH * layout.pitch_px * scale.um_per_px:
        raise InputError(
            f"{path}: section {row['section']}: spots of {spot_um:g} µm would overlap, at {scale.um_per_px:.4g} µm per "
            f"px ({layout.about}); correct columns um_per_px and spot_um, or write positions in full-resolution px: "
            "places of an array, 1 apart, are not"
        )
    return bare(spots, "spatial", describe(row, scale, spot_um, image, image_scale))


def _opened(path: str):
    from ctrflow.storage import read_h5ad, require_hdf5

    require_hdf5(path)
    _require_names(path)
    try:
        return read_h5ad(path, own=True)
    except InputError:
        raise
    except Exception as error:  # also anndata's own, of encodings that it does not know, as in MuData's files
        raise InputError(
            f"{path}: an HDF5 file, but not an AnnData file ({error}); write it with anndata again"
        ) from error


def _require_names(path: str) -> None:
    """Refuse a file without names of spots or genes: anndata would number them silently."""
    import h5py

    try:
        with h5py.File(path, "r") as handle:
            axes = ["obs", "var", *(["raw/var"] if "raw" in handle else [])]
            missing = [axis for axis in axes if not _has_names(handle.get(axis))]
    except (OSError, RuntimeError, KeyError) as error:
        raise InputError(f"{path}: HDF5 file is damaged ({error}); download it again") from error
    if missing:
        raise InputError(f"{path}: no names in {' and '.join(missing)}; write it with anndata again")


def _has_names(frame) -> bool:
    """Whether a data frame on disk has an index; old files store a record array that includes it."""
    import h5py

    return frame is not None and (not isinstance(frame, h5py.Group) or frame.attrs.get("_index", "_index") in frame)


def raw_counts(source, path: str):
    """AnnData of the raw counts of genes, with the spots that belong to them.

    What is named counts comes before X (a layer, then `.raw`), and more genes before fewer: X may hold whole numbers
    too, such as corrected or binary ones, or only the variable genes. What contradicts the choice is told.
    """
    import pandas as pd
    from anndata import AnnData

    places = [(f"layers['{name}']", source.layers[name], source.var) for name in _count_layers(source)]
    if source.raw is not None:
        var = source.raw.var  # often without the symbols, which var has
        if source.var.index.is_unique:
            var = var.join(source.var[source.var.columns.difference(var.columns)])
        places.append((".raw", source.raw.X, var))
    places += [("X", source.X, source.var)] if source.X is not None else []
    if not places:
        raise InputError(f"{path}: contains no matrix; put the raw counts into X")
    usable = [place for place in places if _is_counts(place[1])]
    if not usable:
        _, matrix, var = places[-1]
        require_counts(AnnData(matrix, obs=source.obs[[]], var=var[[]]), path)  # raises with the cause
        raise InputError(f"{path}: no raw counts in X, layers['counts'] or .raw; put them into X")
    for name, _, _ in places[:-1]:
        if name.startswith("layers") and name not in [one[0] for one in usable]:
            logger.warning("%s: %s holds no whole numbers, so it is not taken for counts", path, name)
    name, matrix, var = max(usable, key=lambda place: place[1].shape[1])  # the first of those with most genes
    logger.info("%s: counts from %s", path, name)
    for other in usable:
        if other[0] != name:
            _compare((name, matrix, var), other, path)
    if name == "X" and "log1p" in source.uns:
        logger.warning("%s: uns['log1p'] says that X was logged, but it holds whole numbers: check that they are raw "
                       "counts", path)  # fmt: skip
    kept = _are_genes(var, path)
    matrix, var = (matrix, var) if kept.all() else (matrix[:, kept], var[kept])
    names = pd.DataFrame(index=genes.symbols(var, path))
    return AnnData(matrix, obs=source.obs, var=names, obsm=dict(source.obsm), uns=dict(source.uns))


def _count_layers(source) -> list[str]:
    place = {name: re.sub(r"[^a-z]|spatial|rna|^x_", "", name.casefold()) for name in source.layers}
    return sorted(
        (name for name in place if place[name] in COUNT_LAYERS), key=lambda name: COUNT_LAYERS.index(place[name])
    )


def _is_counts(matrix) -> bool:
    values = stored_values(matrix)
    return bool(
        values.dtype.kind in "biuf" and values.any() and np.isfinite(values).all() and values.min() >= 0
        and (values == np.rint(values)).all()
    )  # fmt: skip


def _compare(taken, other, path: str) -> None:
    """Tell if another matrix of whole numbers has other totals in the genes that both have."""
    (name, matrix, var), (its_name, its_matrix, its_var) = taken, other
    if not var.index.equals(its_var.index):  # else no copies: the matrices may be large
        columns = var.index.get_indexer(its_var.index) if var.index.is_unique else np.arange(matrix.shape[1])
        both = columns >= 0
        if not both.any() or len(columns) != its_matrix.shape[1]:
            return
        matrix, its_matrix = matrix[:, columns[both]], its_matrix[:, both]
    totals = [np.asarray(part.sum(axis=1)).ravel() for part in (matrix, its_matrix)]
    if not np.allclose(*totals):
        logger.warning(
            "%s: %s and %s both hold whole numbers, but not the same: %.0f and %.0f counts of the same genes in the "
            "median spot; using %s", path, name, its_name, *(np.median(one) for one in totals), name,
        )  # fmt: skip


def _are_genes(var, path: str) -> np.ndarray:
    """Which features are genes: by their type where the file has one, else by the names that vendors give controls."""
    plain = {re.sub(r"[^a-z]", "", str(name).casefold()): name for name in var.columns}
    columns = [plain[name] for name in TYPES if name in plain]
    typed_by = {name: var[name].astype(str).str.casefold().str.replace(r"[_. ]+", " ", regex=True) for name in columns}
    column = next((name for name in columns if typed_by[name].isin(GENE).any()), next(iter(columns), None))
    types = var[column].astype(str) if column else None
    kept = ~var.index.astype(str).str.fullmatch(CONTROLS)
    if types is not None and (typed := typed_by[column].isin(GENE).to_numpy()).any():
        kept = typed
    elif types is not None and types.str.contains(NO_GENE, case=False).any():
        raise InputError(
            f"{path}: no feature of type 'Gene Expression' in var['{column}'] (it has {first_few(types.unique())}); "
            "give the file with the genes"
        )
    if not kept.all():
        which = types[~kept] if types is not None and len(set(types)) > 1 else var.index[~kept]
        logger.warning("%s: %d of %d features are no genes and are left out: %s", path, (~kept).sum(), len(kept),
                       first_few(dict.fromkeys(which)))  # fmt: skip
    return np.asarray(kept)


def in_tissue(spots, path: str):
    """`spots` without those that `obs["in_tissue"]` places outside the tissue.

    Raises
    ------
    InputError
        for a word that is neither, and if no spot is inside.
    """
    if "in_tissue" not in spots.obs:
        return spots
    words = spots.obs["in_tissue"].astype(str).str.strip().str.casefold().str.replace("_", " ")
    inside, known = words.isin(INSIDE).to_numpy(), words.isin((*INSIDE, *OUTSIDE)).to_numpy()
    if not known.all():
        raise InputError(
            f"{path}: obs['in_tissue'] has {first_few(words[~known].unique())}, in {int((~known).sum()):,} spots; "
            "write 1 or 0 in each, or delete that column"
        )
    if inside.all():
        return spots
    if not inside.any():
        raise InputError(f"{path}: no spot has obs['in_tissue'] = 1; correct or delete that column")
    logger.info("%s: %d spots outside the tissue left out", path, (~inside).sum())
    return spots[inside].copy()


# --- positions --------------------------------------------------------------------------------------------------------


def _positions(spots, path: str) -> np.ndarray:
    """Centres (x, y); what columns are named is believed: `obs["pxl_col_in_fullres"]` is x, "..row.." y."""
    named = _numbers(spots.obs, PXL, path)
    if "spatial" not in spots.obsm:
        if named is not None:
            return named
        raise InputError(
            f"{path}: no obsm['spatial'] (it has {first_few(spots.obsm) or 'no obsm'}); "
            "put the spot centres there as (x, y) in full-resolution px"
        )
    stored = spots.obsm["spatial"]
    try:
        positions = np.asarray(stored, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: obsm['spatial'] is not numeric ({error}); put (x, y) in px there") from error
    if positions.ndim != 2 or positions.shape[1] < 2:
        raise InputError(f"{path}: obsm['spatial'] has shape {positions.shape}; expected (spots, 2): x and y in px")
    if hasattr(stored, "columns"):
        x_and_y = _x_and_y([str(name) for name in stored.columns], path)
        rest = [n for n, name in enumerate(stored.columns) if str(name).casefold().startswith("z")]
        positions = positions[:, [*x_and_y, *rest]]
    if positions.shape[1] > 2 and len(np.unique(positions[:, 2])) > 1:
        raise InputError(
            f"{path}: obsm['spatial'] has a third coordinate of {len(np.unique(positions[:, 2])):,} values, as a stack "
            "of sections has; write one file per section, with x and y"
        )
    positions = positions[:, :2].copy()
    require_finite(positions, spots.obs_names, path)
    if named is None or np.allclose(named, positions, rtol=0, atol=1):  # rounded to px
        return positions
    how = "exchanges x and y against" if np.allclose(named[:, ::-1], positions, rtol=0, atol=1) else "contradicts"
    logger.warning(
        "%s: obsm['spatial'] %s obs['%s'] and obs['%s']: spot %s is at (%.6g, %.6g) there and at (%.6g, %.6g) here; "
        "using the columns, whose names say what they are", path, how, *PXL, spots.obs_names[0], *positions[0],
        *named[0],
    )  # fmt: skip
    return named


def _x_and_y(columns: list[str], path: str) -> list[int]:
    """The places of x and y among named columns."""
    bare_names = [re.sub("pxl|pixels?|px|index|axis|array", "", name.casefold()) for name in columns]
    kinds = [re.findall(r"x|y|col|row", name) for name in bare_names]
    x, y = ([n for n, kind in enumerate(kinds) if kind[:1] in ([a], [b])] for a, b in (("x", "col"), ("y", "row")))
    if len(x) != 1 or len(y) != 1:
        raise InputError(
            f"{path}: obsm['spatial'] is a table with the columns {first_few(columns)}, which do not "
            "tell x from y; name them x and y"
        )
    return [x[0], y[0]]


def array_places(spots, path: str) -> np.ndarray | None:
    """Row and column of the array, n x 2; None if the file does not have them."""
    return _numbers(spots.obs, ("array_row", "array_col"), path)


def _numbers(obs, names: tuple, path: str) -> np.ndarray | None:
    """Columns as numbers, n x 2; None where there are none, or, which is told, where a spot has none."""
    import pandas as pd

    if not set(names) <= set(obs.columns):
        return None
    values = np.column_stack([pd.to_numeric(obs[name].astype(str), errors="coerce") for name in names])
    bad = ~np.isfinite(values).all(axis=1)
    if not bad.any():
        return values.astype(np.float64)
    spot = obs.index[bad][0]
    logger.warning("%s: obs['%s'] and obs['%s'] are not used: %d spots have no number there, such as %s: %s", path,
                   *names, bad.sum(), spot, first_few(str(obs.at[spot, name]) for name in names))  # fmt: skip
    return None


# --- scale ------------------------------------------------------------------------------------------------------------


def _scalefactors(library: dict, path: str) -> dict[str, float]:
    """Space Ranger's scale factors of a library, without those that are no positive number, which is told."""
    stated = library.get("scalefactors")
    factors = {str(name): positive(value) for name, value in stated.items()} if isinstance(stated, dict) else {}
    wrong = [f"{name} = {stated[name]!r}" for name, value in factors.items() if value is None]
    if wrong:
        logger.warning("%s: scale factors that are no positive numbers are not used: %s", path, first_few(wrong))
    return {name: value for name, value in factors.items() if value is not None}


def _own(spots) -> dict:
    """`uns["section"]`, if the file was written by this workflow; else {}."""
    own = spots.uns.get("section")
    return own if isinstance(own, dict) else {}


def _bin_um(spots) -> float | None:
    """The width of the bins of Visium HD, by their barcodes (`s_008um_00001_00002-1`)."""
    found = spots.obs_names.str.extract(r"s_(\d{3})um_\d+_\d+", expand=False).astype(float)
    return positive(found[0]) if len(set(found)) == 1 else None


def _own_claims(spots, scalefactors: dict, layout: Layout) -> list[Claim]:
    """What the file states in so many words."""
    bin_um = _bin_um(spots) if layout.sides == 4 else None
    stated = [
        (bin_um and bin_um / layout.pitch_px, f"pitch of bins of {bin_um or 0:g} µm by their barcodes"),
        (positive(_own(spots).get("um_per_px")), "uns['section']"),
        # of Visium HD: its `spot_diameter_fullres` is the width of a bin
        (scalefactors.get("microns_per_pixel"), "Space Ranger's microns_per_pixel"),
    ]
    return [Claim(value, source, sure=True) for value, source in stated]


def _of_array(array: np.ndarray | None, px: np.ndarray, layout: Layout) -> tuple[Array | None, list[Claim]]:
    """The array that the layout shows, or rows and columns do, and its pitch by all spots.

    Row and column of Visium's hexagonal array have an even sum; of a square one half of the sums are odd.
    """
    shown = layout.array
    if array is None:
        return shown, []
    even = (array.sum(axis=1) % 2 == 0).all()
    if not even and (shown is None or shown.sides != 4):
        return shown, []
    on_slide = arrays.visium_array_um(*array.T) if even else arrays.square_array_um(*array.T, shown.pitch_um)
    um_per_px = arrays.lattice_um_per_px(on_slide, px)
    if um_per_px is None:
        return shown, []
    shown = VISIUM if even else shown
    return shown, [Claim(um_per_px, f"array pitch of {shown.pitch_um:g} µm", sure=True)]


def _spot_um(row: dict, spots, scalefactors: dict, layout: Layout, shown: Array | None, um_per_px: float):
    """The width of a spot (µm; None if unknown): as stated, of the array that is shown or of this pitch, or of bins."""
    pitch_um = layout.pitch_px * um_per_px
    bin_um = scalefactors.get("bin_size_um")  # stays in files whose bins were summed into cells or larger squares
    if bin_um and not abs(pitch_um / bin_um - 1) < arrays.MAX_STRETCH:
        logger.warning("%s: bin_size_um of %g is not used: %s", row["path"], bin_um, layout.about)
        bin_um = None
    stated = (number(row, "spot_um"), positive(_own(spots).get("spot_um")), bin_um)
    array = shown or arrays.array_of_pitch(layout.sides, pitch_um)
    by_layout = (_bin_um(spots), array and array.spot_um, layout.filled and pitch_um)
    return next((value for value in (*stated, *by_layout) if value), None)


def _image(row: dict, of_several: str, library: dict, scalefactors: dict) -> tuple[str, float]:
    """The section's image, and its px per full-resolution px; of the file itself, the one `image.open_image` reads."""
    image = row.get("image") or ""
    if not image or Path(image).resolve() != Path(row["path"]).resolve():
        return image, settle_image_scale(row, image, scalefactors)
    inside = library["images"] if isinstance(library.get("images"), dict) else {}
    scales = {"fullres": 1.0} | {kind: scalefactors.get(f"tissue_{kind}_scalef") for kind in IMAGES_INSIDE[1:]}
    kind = next((kind for kind in IMAGES_INSIDE if kind in inside and scales[kind]), None)
    if kind is None and not number(row, "image_scale"):
        raise InputError(
            f"{image}: section {row['section']}: column image names the section's own file, but that holds no image of "
            f"known scale in uns['spatial'] (it has {first_few(inside) or 'none'}; it needs fullres, or hires "
            "with tissue_hires_scalef); give an image file or leave the column empty"
        )
    return f"{image}#{of_several}" if of_several else image, number(row, "image_scale") or scales[kind]
