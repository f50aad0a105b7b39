"""TESLA: markers imputed between the spots, and tissue clustered by histology and markers (METHODS.md card 3.8).

Expression of the markers, log(1 + counts), is interpolated to every superpixel from the spots near in position and
colour. The markers make one meta-gene, and a convolutional network, trained on the section itself, segments the image
of grey and meta-gene. A superpixel's score is the mean meta-gene of its cluster over that of the best cluster; a
spot's, the mean over its superpixels. Hu et al., Cell Systems 2023; jianhuupenn/TESLA 1.2.4.

Deviations
----------
- one definition of colour for spots and superpixels: weights, mean and sd are those of the superpixels. The original
  takes the plain mean of the channels for spots, so that the two are not comparable;
- `step_um`: superpixels of 8 µm, one of them one pixel of the network's image; the original imputes every 50 px and
  stretches its image to 1,000 px on the short side. Clusters are small by their share of the image (`minor_share`);
- the image is the bounding box of the tissue; the original's is the whole slide, black around the tissue, and the black
  pixels of a cluster count in its mean;
- the distance beyond which neighbours are ignored is a quantile over 1,000 evenly spaced superpixels: over all it would
  cost spots times superpixels. The nearest spot is always kept; in the original a superpixel too far from all has 0;
- the original sets the meta-gene to 0 below log 2: a limit for log counts, applied after scaling to [0, 1]. Not done
  here, nor in the release 1.2.2, which its tutorial runs;
- the original swaps height and width where it cuts the window of votes of a small cluster: on the longer side, what
  lies beyond the shorter side's length gets no votes;
- the score is the cluster's ratio itself; the original calls the clusters above 1/2 or 1/3 of the best target.
"""

import logging

import numpy as np

from ctrflow.features.blocks import section_rows
from ctrflow.features.markers import SETS, columns_of
from ctrflow.image.superpixels import discs
from ctrflow.methods import MODALITIES, MethodSpec, Option

logger = logging.getLogger(__name__)

GREY = np.array([0.299, 0.587, 0.114])  # of red, green, blue; ITU-R BT.601, as OpenCV
NEAR = 0.1  # px added to every distance, so that none is 0
SAMPLED = 1000  # superpixels whose distances to all spots give the quantile

SPEC = MethodSpec(
    name="tesla",
    regime="marker_prior",
    modalities=MODALITIES,
    needs=("superpixels", "markers"),
    gpu=True,
    counts=True,
    options={
        "sets": Option(list(SETS), "marker sets to use", SETS),
        "expression": Option("counts", "what is imputed: log(1 + counts), or log-normalised", ("counts", "log")),
        "step_um": Option(8.0, "side of a pixel of the segmented image, a multiple of the superpixel's", above=0),
        "image_px": Option(1_000_000, "maximum pixels of that image; above it, pixels are made larger", least=1),
        "colour_um": Option(25.0, "side of the square of the mean colour; 50 px in the original", above=0),
        "colour_weight": Option(1.0, "weight of a difference in colour against one in position"),
        "neighbours": Option(10, "spots that expression is imputed from", least=1),
        "num_required": Option(1, "how many of the highest markers make the meta-gene", least=1),
        "pooling": Option("min", "pooling of those markers", ("min", "mean")),
        "iterations": Option(30, "maximum iterations of the segmentation", least=1),
        "main_clusters": Option(30, "number of large clusters at which it stops", least=1),
        "minor_share": Option(
            1e-3, "share of the image below which clusters are merged; 1,000 of 1,000 x 1,000 px", most=1
        ),
        "merge_radius": Option(3, "pixels around a small cluster that vote on its merge", least=1),
        "smoothness": Option(5.0, "weight of the difference of neighbouring pixels"),
        "learning_rate": Option(0.1, "SGD, momentum 0.9", above=0),
    },
    presets={"paper": {}, "fast": {"step_um": 32.0, "iterations": 10}},
    reference="TESLA, Hu et al., Cell Systems 2023",
)


class Model:
    """Nothing is learned before the target is seen: the network is trained on each of its sections."""

    def __init__(self, options: dict, seed: int):
        self.options = options
        self.seed = seed

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The method; there are no tensors."""
        return cls(options, seed)

    def score(self, target) -> np.ndarray:
        """Mean over a spot's superpixels of their cluster's meta-gene, (spots,) float64, 1 for the best cluster.

        Raises
        ------
        InputError
            when a section has counts of none of its markers.
        """
        scores = np.empty(target.n_obs)
        for section, rows in section_rows(target.obs["section"]):
            columns = columns_of(target, section, self.options["sets"])
            markers = expression(target[rows, columns], self.options["expression"])
            spots_px, superpixels = target.obsm["spatial"][rows], target.uns["superpixels"][section]
            ratios = self._ratios(spots_px, markers, superpixels, section)
            scores[rows] = discs(superpixels, spots_px) @ ratios
        return scores

    def _ratios(self, spots_px: np.ndarray, markers, superpixels: dict, section: str) -> np.ndarray:
        """(superpixels,)"""
        import torch

        from ctrflow.nets import tesla, training

        pixels, member = binned(superpixels, self.options["step_um"], self.options["image_px"])
        imputed = impute(spots_px, markers, pixels, self.options)
        gene = meta_gene(imputed, self.options["num_required"], self.options["pooling"])
        image = _picture(pixels, gene)
        logger.info("TESLA on %s: %d markers, %d x %d px", section, markers.shape[1], *image.shape[1:])
        device = training.start(self.seed)
        clusters = tesla.segment(torch.from_numpy(image[None]).to(device), self.options, section)
        return cluster_ratios(clusters[pixels["row"], pixels["col"]], gene)[member]


def expression(view, kind: str):
    """What is imputed, CSR (spots x genes): log(1 + counts), which grows with a spot's depth; or log-normalised."""
    return view.X if kind == "log" else view.layers["counts"].log1p()


def binned(superpixels: dict, step_um: float, image_px: int) -> tuple[dict, np.ndarray]:
    """Superpixels joined into the pixels of an image of at most `image_px` pixels.

    Returns
    -------
    pixels : row and col from 0, rgb (mean, float64), centres_px, um_per_px, um (side); only those with tissue
    member : the pixel of every superpixel
    """
    row, col = (superpixels[name].astype(np.int64) - superpixels[name].min() for name in ("row", "col"))
    factor = max(1, round(step_um / superpixels["um"]))
    while (row.max() // factor + 1) * (col.max() // factor + 1) > image_px:
        factor += 1
    width = col.max() // factor + 1
    place, member = np.unique(row // factor * width + col // factor, return_inverse=True)
    size = np.bincount(member)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.column_stack([np.bincount(member, column) for column in values.T]) / size[:, None]

    pixels = {
        "row": place // width,
        "col": place % width,
        "rgb": mean(superpixels["rgb"].astype(np.float64)),
        "centres_px": mean(superpixels["centres_px"]),
        "um": superpixels["um"] * factor,
        "um_per_px": superpixels["um_per_px"],
    }
    return pixels, member


def colours(pixels: dict, colour_um: float) -> np.ndarray:
    """One number for the colour around each pixel: mean of the channels, weighted by their variance; z-scored.

    The mean is over the tissue in a square of `colour_um`, of an odd number of pixels.
    """
    from scipy.ndimage import uniform_filter

    side = max(1, round(colour_um / pixels["um"])) // 2 * 2 + 1
    share = uniform_filter(_grid(pixels, np.ones(len(pixels["row"]))), side, mode="constant")
    sums = [uniform_filter(_grid(pixels, channel), side, mode="constant") for channel in pixels["rgb"].T]
    channels = np.column_stack([(one / np.maximum(share, 1e-9))[pixels["row"], pixels["col"]] for one in sums])
    variance = channels.var(axis=0)
    if variance.sum() < 1e-9:
        return np.zeros(len(channels))
    colour = channels @ variance / variance.sum()
    return (colour - colour.mean()) / max(colour.std(), 1e-9)


def impute(spots_px: np.ndarray, markers, pixels: dict, options: dict) -> np.ndarray:
    """Expression of the markers in every pixel, (pixels x markers) float64, from the spots near in position and colour.

    Weights fall with the square of the distance relative to the nearest spot's. Spots farther than the quantile that
    keeps `neighbours` of them on average are ignored, except the nearest.

    Parameters
    ----------
    markers : CSR (spots x markers)
    """
    from scipy import sparse
    from scipy.spatial import cKDTree

    places = pixels["centres_px"]
    reach = places.std(axis=0).max() * options["colour_weight"]
    colour = colours(pixels, options["colour_um"]) * reach
    of_spot = colour[cKDTree(places).query(spots_px)[1]]
    points, spots = np.column_stack([places, colour]), np.column_stack([spots_px, of_spot])
    n = len(spots)
    k = min(options["neighbours"], n)
    distance, index = cKDTree(spots).query(points, k=list(range(1, k + 1)))
    limit = np.maximum(_quantile(points, spots, k / n), distance[:, 0])
    relative = (distance + NEAR) / (distance[:, :1] + NEAR)
    weights = np.where(distance <= limit[:, None], relative**-2.0, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    table = sparse.csr_matrix((weights.ravel(), index.ravel(), np.arange(0, weights.size + 1, k)), (len(points), n))
    return (table @ markers.astype(np.float64)).toarray()


def meta_gene(expression: np.ndarray, num_required: int, pooling: str) -> np.ndarray:
    """Every marker scaled to [0, 1], then the lowest, or the mean, of the `num_required` highest; scaled to [0, 1]."""
    scaled = _unit(expression)
    highest = np.sort(scaled, axis=1)[:, -num_required:]
    return _unit(highest.min(axis=1) if pooling == "min" else highest.mean(axis=1))


def cluster_ratios(clusters: np.ndarray, gene: np.ndarray) -> np.ndarray:
    """Mean meta-gene of each pixel's cluster over that of the best cluster; all 0 if the meta-gene is 0."""
    _, member = np.unique(clusters, return_inverse=True)
    means = np.bincount(member, gene) / np.bincount(member)
    return (means / (means.max() or 1.0))[member]


def _picture(pixels: dict, gene: np.ndarray) -> np.ndarray:
    """Grey and meta-gene, float32 2 x h x w, each 0 to 1 and 0 around the tissue."""
    grey = _grid(pixels, pixels["rgb"] @ GREY)
    return np.stack([_unit(grey.ravel()).reshape(grey.shape), _grid(pixels, gene)]).astype(np.float32)


def _grid(pixels: dict, values: np.ndarray) -> np.ndarray:
    grid = np.zeros((pixels["row"].max() + 1, pixels["col"].max() + 1))
    grid[pixels["row"], pixels["col"]] = values
    return grid


def _quantile(points: np.ndarray, spots: np.ndarray, share: float) -> float:
    """The distance below which `share` of the pairs of points and spots lie; points evenly sampled."""
    from scipy.spatial.distance import cdist

    sample = points[np.linspace(0, len(points) - 1, min(SAMPLED, len(points))).astype(int)]
    return float(np.quantile(cdist(sample, spots), share))


def _unit(values: np.ndarray) -> np.ndarray:
    """Each column to [0, 1]; a constant one becomes 0."""
    low, span = values.min(axis=0), np.ptp(values, axis=0)
    return (values - low) / np.where(span > 0, span, 1.0)
