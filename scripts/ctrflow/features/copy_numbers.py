"""Copy-number changes seen in expression: genes that lie together on a chromosome change together.

The profile is that of inferCNV (Tirosh et al., Science 2016) as infercnvpy computes it: log ratios to a reference,
clipped, averaged over a window of neighbouring genes and centred in each spot.
"""

import numpy as np

from ctrflow.errors import InputError, first_few

AUTOSOMES = tuple(map(str, range(1, 23)))  # X and Y differ with the sex, and X is silenced in part
WINDOW, STEP = 100, 10  # genes in a window and between windows; infercnvpy's defaults
CLIP = 3.0  # of a log ratio, so that no single gene makes a window; infercnvpy's default
LEAST_SHARE = 0.05  # of the spots in which a gene has counts, as CopyKAT's LOW.DR (Gao et al., Nat. Biotechnol. 2021)
# drawn from the genes of 30 HER2ST sections, 2,000 score nearly as well as all (mean AUC 0.81 and 0.82), 1,500 do not
# (0.77), and with so few only chromosome 1 has the three segments that `evidence` compares
LEAST_GENES = 2000
LEAST_SPOTS = 10  # of a class: the noise of the mean of fewer hides any profile
SEGMENT = WINDOW // 2
LEVELS = 20  # classes of expression that `evidence` centres, some hundred genes each
PERMUTATIONS = 200  # the error of the mean and sd of the permuted statistic is then 7 and 5 % of an sd
AT_ONCE = 1024  # spots made dense together: 0.1 GB of 15,000 genes in float64


def placed(genes, positions) -> tuple[np.ndarray, np.ndarray]:
    """The genes on autosomes in their order along them: their columns, and the number of the chromosome of each.

    Parameters
    ----------
    genes : symbols, former ones too, or Ensembl ids with or without a version
    positions : as `gene_names.read` gives it; empty columns if it knows none of the genes
    """
    known: dict[str, tuple[int, int]] = {}
    rows = [
        (names, (AUTOSOMES.index(chromosome), start))
        for chromosome, start, *names in positions[["chromosome", "start", "ensembl", "gene", "other"]].to_numpy()
        if chromosome in AUTOSOMES
    ]
    # today's names first: a former symbol may be another gene's name of today
    for (ensembl, symbol, _), place in rows:
        known.setdefault(ensembl, place)
        known.setdefault(symbol, place)
    for (_, _, former), place in rows:
        for name in filter(None, former.split("|")):
            known.setdefault(name, place)
    found = [known.get(name.partition(".")[0] if name.startswith("ENSG") else name) for name in genes]
    columns = sorted((place, column) for column, place in enumerate(found) if place)
    return np.array([column for _, column in columns], int), np.array([place[0] for place, _ in columns], int)


def usable(X, genes, positions) -> tuple[np.ndarray, np.ndarray]:
    """`placed`, of the genes with counts in at least `LEAST_SHARE` of the spots; X is CSR (spots x genes)."""
    columns, chromosomes = placed(genes, positions)
    counted = np.bincount(X.indices[X.data > 0], minlength=X.shape[1])[columns] >= LEAST_SHARE * X.shape[0]
    return columns[counted], chromosomes[counted]


def require_genes(section: str, found: int, genes) -> None:
    """Raise an InputError if a section has too few genes of known position to see copy numbers."""
    if found >= LEAST_GENES:
        return
    raise InputError(
        f"section {section}: only {found:,} of its {len(genes):,} genes have a known place on a human autosome and "
        f"counts in {LEAST_SHARE:.0%} of the spots; copy numbers need {LEAST_GENES:,}: leave out the methods that need "
        f"positions of genes (a panel has too few), or name genes by human symbols or Ensembl ids, not like "
        f"{first_few(genes, 3)}"
    )


def windows(chromosomes: np.ndarray):
    """Weights of the genes in each window, CSC (genes x windows), columns sum to 1; rows in the order of `placed`.

    A window has `WINDOW` genes of one chromosome, those in its middle weighing most; a chromosome of no more genes is
    one window of equal weights (infercnvpy, `_running_mean`).
    """
    from scipy import sparse

    rising = np.arange(1, WINDOW + 1)
    pyramid = np.minimum(rising, rising[::-1]) / np.minimum(rising, rising[::-1]).sum()
    indices, weights, sizes = [], [], []
    for number in np.unique(chromosomes):
        own = np.flatnonzero(chromosomes == number)
        if len(own) <= WINDOW:
            starts, weight = [0], np.full(len(own), 1 / len(own))
        else:
            starts, weight = range(0, len(own) - WINDOW + 1, STEP), pyramid
        for start in starts:
            indices.append(own[start : start + len(weight)])
            weights.append(weight)
            sizes.append(len(weight))
    ends = np.concatenate([[0], np.cumsum(sizes)])
    return sparse.csc_matrix(
        (np.concatenate(weights), np.concatenate(indices), ends), shape=(len(chromosomes), len(sizes))
    )


def profiles(X, chromosomes: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Smoothed log ratios of each spot to the mean of the reference, (spots x windows) float64.

    Parameters
    ----------
    X : log-normalised, CSR (spots x genes), in the order of `placed`
    chromosomes : of the genes
    reference : (spots,) bool, the spots taken for normal
    """
    normal = np.asarray(X[reference].mean(axis=0), np.float64).ravel()
    means = windows(chromosomes).T.tocsr()
    found = np.empty((X.shape[0], means.shape[0]))
    for start in range(0, X.shape[0], AT_ONCE):
        ratios = np.clip(X[start : start + AT_ONCE].toarray() - normal, -CLIP, CLIP)
        found[start : start + AT_ONCE] = (means @ ratios.T).T
    return found - np.median(found, axis=1, keepdims=True)


def likeness(found: np.ndarray, typical: np.ndarray) -> np.ndarray:
    """Correlation of each spot's profile with the mean profile of the `typical` spots, (spots,) in [-1, 1].

    A typical spot is left out of the mean that it is compared with, so that its own noise does not count for it.
    0 where a profile is constant. The correlation with presumed malignant cells of Tirosh et al., Nature 2016.

    Parameters
    ----------
    found : profiles, (spots x windows)
    typical : (spots,) bool, at least two
    """
    centred = found - found.mean(axis=1, keepdims=True)
    total, n = centred[typical].sum(axis=0), typical.sum()
    own, both = np.square(centred).sum(axis=1), centred @ total
    # of the sum without the spot itself; a factor of the mean does not change a correlation
    product = both - typical * own
    length = total @ total - typical * (2 * both - own)
    scale = np.sqrt(np.maximum(own * length, 0))
    return np.divide(product, scale, out=np.zeros(len(found)), where=(scale > 1e-12) & (n > 1))


def evidence(X, genes, positions, called: np.ndarray, seed: int) -> float:
    """How far the difference of called and other spots goes along the chromosomes, in sd of permuted gene orders.

    The t values of the genes, less the median of genes that are expressed alike (depth shifts those together), are
    averaged over segments of `SEGMENT` genes. The statistic is the mean product of the segments before and after each
    segment: copy numbers change over arms, while genes that are next to each other are often regulated together.

    Parameters
    ----------
    X : log-normalised, CSR (spots x genes)
    genes : names of its columns
    positions : as `gene_names.read` gives it
    called : (spots,) bool
    seed : of the permutations

    Returns
    -------
    float
        NaN where a class has fewer than `LEAST_SPOTS` spots, or fewer than `LEAST_GENES` genes are usable
    """
    called = np.asarray(called, bool)
    columns, chromosomes = usable(X, genes, positions)
    if len(columns) < LEAST_GENES or min(called.sum(), (~called).sum()) < LEAST_SPOTS:
        return float("nan")
    values = _difference(X[:, columns], called)
    generator = np.random.default_rng(seed)
    own = _far_products(values[None], chromosomes)[0]
    permuted = np.stack([generator.permutation(values) for _ in range(PERMUTATIONS)])
    chance = _far_products(permuted, chromosomes)
    return float((own - chance.mean()) / chance.std())


def _difference(X, called: np.ndarray) -> np.ndarray:
    """t of each gene between called and other spots, centred among genes of like expression, (genes,) float64."""
    means, errors = [], []
    for rows in (called, ~called):
        part = X[rows].astype(np.float64)
        mean = np.asarray(part.mean(axis=0)).ravel()
        square = np.asarray(part.multiply(part).mean(axis=0)).ravel()
        means.append(mean)
        errors.append(np.maximum(square - mean**2, 0) / rows.sum())
    error = np.sqrt(errors[0] + errors[1])
    t = (means[0] - means[1]) / np.maximum(error, np.median(error))  # a rare gene's own error is unsure
    level = np.asarray(X.mean(axis=0)).ravel()
    for alike in np.array_split(np.argsort(level, kind="stable"), LEVELS):
        t[alike] -= np.median(t[alike])
    return t - t.mean()


def _far_products(values: np.ndarray, chromosomes: np.ndarray) -> np.ndarray:
    """Mean product of segments that have one segment between them, of each row of values (rows x genes)."""
    products = []
    for number in np.unique(chromosomes):
        own = values[:, chromosomes == number]
        count = own.shape[1] // SEGMENT
        if count > 2:
            means = own[:, : count * SEGMENT].reshape(len(own), count, SEGMENT).mean(axis=2)
            products.append(means[:, 2:] * means[:, :-2])
    # few genes may leave no chromosome of three segments
    return np.hstack(products).mean(axis=1) if products else np.full(len(values), np.nan)
