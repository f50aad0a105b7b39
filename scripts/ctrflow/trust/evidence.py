"""What a model knows about target sections beside their scores: probability, level, and whether it applies to them."""

import numpy as np

from ctrflow.features import copy_numbers
from ctrflow.features.blocks import section_rows
from ctrflow.folds.genes import log_normalise
from ctrflow.results.verdict import LEAST_STRUCTURE, Facts, Gate
from ctrflow.training import model_file
from ctrflow.trust import calibration, level, picture

# Of a given model's genes, for its level to apply: scaled over fewer genes, all of them are higher. A crop of HER2ST
# without a random fifth of its genes can be taken for tumour (docs/trust.md).
LEAST_GENES = 0.85
MOST_SPOTS = 20_000  # whose copy numbers are looked at, spread evenly: more would need the memory of all counts


def gather(
    target,
    scores: np.ndarray,
    tensors: dict,
    metadata: dict,
    kind: str,
    platforms: dict[str, str],
    spots: dict,
    positions=None,
) -> tuple:
    """The probability of every spot, and the facts about every section.

    Parameters
    ----------
    target : target table of the fold
    scores : (spots,) of the method
    tensors, metadata : of the model file; without a level if the method learned from no labels
    kind : of threshold
    platforms : section -> its platform
    spots : section -> AnnData of raw counts of all genes, for copy numbers; X may be left in its file; {} without them
    positions : places of genes on chromosomes, as `gene_names.read` gives them

    Returns
    -------
    (probability, facts): (spots,), NaN without a calibration; section -> Facts
    """
    sections = target.obs["section"].to_numpy().astype(str)
    names = list(dict.fromkeys(sections))
    probability = np.full(target.n_obs, np.nan)
    if level.NAMES[0] not in tensors:
        return probability, dict.fromkeys(names, Facts())
    values, structure = level.score(target, tensors)
    if metadata["calibration"]:
        probability = calibration.probability(metadata["calibration"], scores, sections, values, kind)
    gate = gate_of(metadata)
    tops = level.peaks(target, values)
    facts = {}
    for name, rows in section_rows(sections):
        unlike = [
            *_unlike(target[rows], tensors, metadata),
            *_unstructured(structure[name], tops[name], gate),
        ]
        elsewhere = _elsewhere(platforms.get(name, ""), metadata)
        found = _copy_numbers(spots.get(name), positions, target.obs["spot"].to_numpy()[rows], scores[rows])
        noted = picture.concern(target[rows], tensors, metadata["picture"])
        facts[name] = Facts(tops[name], gate, *map(tuple, (unlike, elsewhere, noted)), found)
    return probability, {name: facts[name] for name in names}


def _copy_numbers(spots, positions, names: np.ndarray, scores: np.ndarray) -> float | None:
    """`copy_numbers.evidence` of the third of the spots with the highest scores against the others; None if too few
    genes have a place."""
    if spots is None:
        return None
    place, step = spots.obs_names.get_indexer(names), -(-len(names) // MOST_SPOTS)
    drawn = np.argsort(place)[::step]  # in the order of the file, from which X is read
    X, called = log_normalise(spots.X[place[drawn]]), scores > np.quantile(scores, 2 / 3)
    z = copy_numbers.evidence(X, list(spots.var_names), positions, called[drawn], seed=0)
    return None if np.isnan(z) else round(z, 2)


def gate_of(metadata: dict) -> Gate | None:
    """The gate of a model file."""
    return Gate.from_dict(metadata["gate"]) if metadata["gate"] else None


def _unlike(section, tensors: dict, metadata: dict) -> list[str]:
    """What is unlike the training sections; for a given model the target table says so already."""
    given = section.uns.get("model")
    if given is not None:
        return [*map(str, given.get("concerns", ())), *_few_genes(given)]
    if "gene" not in metadata["modalities"]:
        return []
    return model_file.likeness_of_table(section, metadata, tensors[model_file.PROFILE]).concerns


def _few_genes(given: dict) -> list[str]:
    genes, measured = int(given["genes"]), int(given["measured"])
    if measured >= LEAST_GENES * genes:
        return []
    return [f"it measures {measured:,} of the model's {genes:,} genes: too few to say whether there is a tumour"]


def _unstructured(structure: float, peak: float, gate: Gate | None) -> list[str]:
    """Shuffled positions or values: as cancer-like as a tumour, but neighbours are not alike."""
    if gate is None or gate.chance(peak) < 0.5 or structure >= LEAST_STRUCTURE * gate.structure:
        return []
    return [
        f"its neighbouring spots are not alike (Moran's I {structure:.2f}, training sections with tumour "
        f"{gate.structure:.2f} or more): check that positions and counts belong together"
    ]


def _elsewhere(platform: str, metadata: dict) -> list[str]:
    known = metadata["platforms"]
    if not platform or not known or platform in known:
        return []
    return [f"it is {platform}, the model learned from {', '.join(known)}"]
