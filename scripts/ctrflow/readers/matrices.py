"""10x count matrices, HDF5 or Matrix Market: gene expression only, as AnnData, ids x genes by symbol."""

import logging
from pathlib import Path

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.readers.folders import find
from ctrflow.readers.tables import GZIP, read_table, require_file, starts_with

logger = logging.getLogger("ctrflow")

GENES = "Gene Expression"
BLOCK = 20_000_000  # stored values read at a time
PARTS = ("barcodes", "data", "indices", "indptr", "shape", "features/id", "features/name", "features/feature_type")
MTX_PARTS = {"matrix": ["matrix.mtx"], "barcodes": ["barcodes.tsv"], "features": ["features.tsv", "genes.tsv"]}


def read_10x_h5(path: str | Path):
    """Gene-expression counts of a 10x HDF5 matrix (Space Ranger, Xenium).

    Other feature types (control probes, blank codewords, antibodies, proteins) are left out. The values are read in
    blocks into float32 and int32, 8 bytes per stored value instead of 12 on disk, so that a Visium HD matrix fits.

    Source: 10x Genomics, "feature-barcode matrix HDF5 format" (genes x ids, compressed by column).

    Raises
    ------
    InputError
        if the file is incomplete, lacks a part, or its parts disagree.
    """
    import h5py

    from ctrflow.storage import require_hdf5

    if Path(path).is_file() and starts_with(path, GZIP):
        raise InputError(f"{path}: an HDF5 file compressed with gzip; decompress it (gunzip)")
    require_hdf5(path)
    try:
        with h5py.File(path, "r") as handle:
            missing = [f"matrix/{name}" for name in PARTS if f"matrix/{name}" not in handle]
            if missing:
                raise InputError(
                    f"{path}: not a 10x feature-barcode matrix, it lacks {first_few(missing)}; give the vendor's file"
                )
            return _read_matrix(handle["matrix"], path)
    except InputError:
        raise
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError) as error:
        raise InputError(f"{path}: damaged matrix ({error}); download it again") from error


def _read_matrix(group, path):
    from scipy import sparse

    barcodes, names, kinds = (_text(group[name]) for name in ("barcodes", "features/name", "features/feature_type"))
    indptr = group["indptr"][:].astype(np.int64)
    _require_agreement(group, len(barcodes), len(names), len(kinds), indptr, path)
    is_gene = kinds == GENES
    _require_genes(is_gene, kinds, path)
    data, indices, per_id = _stored(group, indptr, is_gene, path)
    starts = np.concatenate([[0], np.cumsum(per_id)])
    starts = starts.astype(np.int32) if starts[-1] < 2**31 else starts
    matrix = sparse.csr_matrix((data, indices, starts), shape=(len(barcodes), int(is_gene.sum())))
    return _as_anndata(matrix, barcodes, names[is_gene])


def _text(dataset) -> np.ndarray:
    return np.array([value.decode() if isinstance(value, bytes) else str(value) for value in dataset[:]], dtype=object)


def _require_agreement(group, n_ids: int, n_features: int, n_kinds: int, indptr: np.ndarray, path) -> None:
    """Refuse a matrix whose parts contradict each other: some ids would get the counts of others."""
    shape = tuple(int(side) for side in group["shape"][:])
    problem = ""
    if shape != (n_features, n_ids) or n_kinds != n_features:
        problem = f"shape {shape} for {n_features:,} features ({n_kinds:,} types) and {n_ids:,} barcodes"
    elif len(indptr) != n_ids + 1:
        problem = f"{len(indptr):,} entries of indptr for {n_ids:,} barcodes"
    elif group["data"].shape != group["indices"].shape or group["data"].ndim != 1:
        problem = f"data of shape {group['data'].shape}, indices of shape {group['indices'].shape}"
    elif indptr[0] != 0 or indptr[-1] != len(group["data"]) or (np.diff(indptr) < 0).any():
        problem = "indptr does not rise from 0 to the number of stored values"
    elif group["data"].dtype.kind not in "iuf" or group["indices"].dtype.kind not in "iu":
        problem = f"data of type {group['data'].dtype}, indices of type {group['indices'].dtype}"
    if problem:
        raise InputError(f"{path}: damaged matrix ({problem}); download it again")


def _stored(group, indptr: np.ndarray, is_gene: np.ndarray, path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values (float32), gene indices (int32) and their number per id, for genes only."""
    place = np.where(is_gene, np.cumsum(is_gene) - 1, -1).astype(np.int32)
    all_genes = bool(is_gene.all())
    total = int(indptr[-1])
    data, indices = np.empty(total, np.float32), np.empty(total, np.int32)
    per_id = np.diff(indptr)
    if not all_genes:
        per_id = np.zeros(len(per_id), np.int64)
    filled = 0
    for start in range(0, total, BLOCK):
        stop = min(start + BLOCK, total)
        index, value = group["indices"][start:stop], group["data"][start:stop]
        # negative indices stored as unsigned are large ones
        if (index.size and index.max() >= len(is_gene)) or index.min() < 0:
            raise InputError(
                f"{path}: damaged matrix (feature indices from {index.min()} to {index.max()}, "
                f"{len(is_gene):,} features); download it again"
            )
        if not all_genes:
            kept = is_gene[index]
            # which id each stored value belongs to
            owner = np.searchsorted(indptr, np.arange(start, stop)[kept], side="right") - 1
            per_id += np.bincount(owner, minlength=len(per_id))
            index, value = index[kept], value[kept]
        data[filled : filled + len(value)] = value
        indices[filled : filled + len(value)] = place[index]
        filled += len(value)
    return data[:filled], indices[:filled], per_id


def _require_genes(is_gene: np.ndarray, kinds, path) -> None:
    if not is_gene.any():
        raise InputError(f"{path}: no feature of type '{GENES}'; give the gene-expression matrix")
    others = sorted(set(kinds[~is_gene]))
    if others:
        logger.info("%s: %d features left out: %s", path, (~is_gene).sum(), first_few(others))


def _as_anndata(matrix, ids, genes):
    import pandas as pd
    from anndata import AnnData

    matrix.sort_indices()
    return AnnData(
        matrix,
        obs=pd.DataFrame(index=pd.Index(ids, dtype=object)),
        var=pd.DataFrame(index=pd.Index(genes, dtype=object)),
    )


# --- Matrix Market ----------------------------------------------------------------------------------------------------


def mtx_files(folder: str | Path) -> list[Path]:
    """The matrix, the barcodes and the features (version 2: genes) of a folder; the newest name if one is missing.

    Source: 10x Genomics, "feature-barcode matrices"; since version 3 the files are gzipped.
    """
    folder = Path(folder)
    return [find([folder], names, f"files {names[0]}") or folder / f"{names[0]}.gz" for names in MTX_PARTS.values()]


def read_10x_mtx(folder: str | Path):
    """Gene-expression counts of a 10x Matrix Market folder, of version 2 (genes.tsv) or later (features.tsv.gz).

    Raises
    ------
    InputError
        if a file is missing, incomplete, or disagrees with the others.
    """
    matrix_path, barcodes_path, features_path = mtx_files(folder)
    missing = [path.name for path in (matrix_path, barcodes_path, features_path) if not path.is_file()]
    if missing:
        raise InputError(
            f"{folder}: cannot be read as a 10x matrix folder, it has no {', '.join(missing)}; it needs matrix.mtx.gz, "
            "barcodes.tsv.gz and features.tsv.gz, or give the matrix as .h5"
        )
    for path in (matrix_path, barcodes_path, features_path):
        _require_last_line(path)
    matrix = _read_market(matrix_path)
    barcodes = read_table(barcodes_path, header=None).iloc[:, 0].str.strip().to_numpy(object)
    features = read_table(features_path, header=None, quoting=3)
    for path, found, side in ((features_path, features, 0), (barcodes_path, barcodes, 1)):
        if len(found) != matrix.shape[side]:
            raise InputError(
                f"{path}: {len(found):,} rows, but {matrix_path.name} has {matrix.shape[side]:,}; "
                "get both again from one run"
            )
    if features.shape[1] < 2 or GENES in set(features.iloc[:, 1]):
        raise InputError(f"{features_path}: its columns are not id, symbol and type of each feature; download it again")
    kinds = features.iloc[:, 2].to_numpy(object) if features.shape[1] > 2 else np.full(len(features), GENES, object)
    is_gene = kinds == GENES
    _require_genes(is_gene, kinds, features_path)
    genes = features.iloc[:, 1].to_numpy(object)
    return _as_anndata(matrix.T.tocsr()[:, is_gene], barcodes, genes[is_gene])


def _read_market(path: Path):
    """A Matrix Market file of coordinates as float32 COO.

    Not by scipy.io.mmread: a truncated gzip stream crashes it, and the process with it.
    """
    import gzip
    import zlib

    require_file(path)
    try:
        with gzip.open(path, "rb") if starts_with(path, GZIP) else open(path, "rb") as handle:
            return _parse_market(handle)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        raise InputError(f"{path}: not a complete Matrix Market file ({error}); download it again") from error


def _parse_market(handle):
    import pandas as pd
    from scipy import sparse

    head = handle.readline(200).lower().split()
    if head[:3] != [b"%%matrixmarket", b"matrix", b"coordinate"] or head[4:] != [b"general"]:
        raise ValueError("the first line is not the header of a sparse matrix")
    line = handle.readline()
    while line.startswith(b"%"):
        line = handle.readline()
    height, width, total = map(int, line.split())
    row, column, value = np.empty(total, np.int32), np.empty(total, np.int32), np.empty(total, np.float32)
    filled = 0
    types = {0: np.int32, 1: np.int32, 2: np.float32}
    for part in pd.read_csv(handle, sep=r"\s+", header=None, dtype=types, chunksize=BLOCK // 4) if total else ():
        stop = filled + len(part)
        if part.shape[1] != 3 or stop > total:
            raise ValueError(f"not {total:,} lines of row, column and value")
        row[filled:stop], column[filled:stop], value[filled:stop] = (part[place] for place in range(3))
        filled = stop
    if filled != total:
        raise ValueError(f"{filled:,} of {total:,} values")
    if total and (min(row.min(), column.min()) < 1 or row.max() > height or column.max() > width):
        raise ValueError(f"indices outside {height:,} x {width:,}")
    return sparse.coo_matrix((value, (row - 1, column - 1)), shape=(height, width))


def _require_last_line(path: Path) -> None:
    """Refuse a text file whose last line is unterminated (a truncated gzip file fails to decompress anyway)."""
    if starts_with(path, GZIP):
        return
    with open(path, "rb") as handle:
        handle.seek(max(path.stat().st_size - 1, 0))
        if handle.read(1) != b"\n":
            raise InputError(f"{path}: the last line is incomplete, so the file was cut short; download it again")


# --- either -----------------------------------------------------------------------------------------------------------


def read_10x(path: str | Path):
    """`read_10x_h5` of a file, `read_10x_mtx` of a folder."""
    return read_10x_mtx(path) if Path(path).is_dir() else read_10x_h5(path)


def files_10x(path: str | Path) -> list[Path]:
    """The files that `read_10x(path)` opens."""
    return mtx_files(path) if Path(path).is_dir() else [Path(path)]
