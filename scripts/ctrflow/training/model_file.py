"""The model file: metadata of the training, what its sections looked like, and requirements on a section to score."""

import logging
import re
from dataclasses import dataclass

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.features import gene_names
from ctrflow.folds import tables
from ctrflow.sections.crop import why_not_judged

logger = logging.getLogger(__name__)

# metadata of every model file
KEYS = {"method", "variant", "options", "modalities", "seed", "encoder", "encoder_settings", "genes", "library_genes",
        "sections", "patients", "tissues", "platforms", "simulated", "likeness", "depth",
        "least_genes", "gate", "picture", "calibration",
        "code", "versions"}  # fmt: skip
# numbers of the gate and the calibration (results/verdict.py, trust/calibration.py): how many, 0 for a single one
GATE = {"slope": 0, "intercept": 0, "structure": 0, "patients": 0, "tumour": 2, "free": 2, "sections": 2}
CALIBRATION = {"contrast": 0, "level": 0, "intercept": 0}
# and of a model that reads image features
IMAGE_KEYS = {"encoder_digest", "patch_px", "patch_um"}
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # as in the sheet and in study files: it names a folder


def _texts(value) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _numbers(value) -> bool:
    return isinstance(value, list) and all(isinstance(one, float) and np.isfinite(one) for one in value)


def _of_numbers(value, keys: dict[str, int]) -> bool:
    """Whether a value is a dict that has under each key a finite number (0), or a list of so many."""
    if not isinstance(value, dict) or not keys.keys() <= value.keys():
        return False
    lists = [value[key] if count else [value[key]] for key, count in keys.items()]
    lengths = [count or 1 for count in keys.values()]
    return all(
        isinstance(found, list) and len(found) == count and all(map(_number, found))
        for found, count in zip(lists, lengths, strict=True)
    )


def _number(value) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 2**63 if isinstance(value, int) else bool(np.isfinite(value))


def _whole_number(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _id(value) -> bool:
    return isinstance(value, str) and ID.fullmatch(value) is not None


# key -> whether its value is valid; ids become names of folders
VALID = {
    "method": lambda value: isinstance(value, str),
    "variant": _id,
    "encoder": _id,
    "seed": _whole_number,
    "least_genes": _whole_number,
    "patch_px": _whole_number,
    "options": lambda value: isinstance(value, dict),
    "encoder_settings": lambda value: isinstance(value, dict),
    "modalities": lambda value: _texts(value) and bool(value) and set(value) <= {"image", "gene"},
    "genes": lambda value: _texts(value) and bool(value) and len(set(value)) == len(value),
    "library_genes": _texts,
    "sections": _texts,
    "patients": _texts,
    "tissues": _texts,
    "platforms": _texts,
    "simulated": lambda value: isinstance(value, bool),
    "likeness": _numbers,
    "picture": _numbers,
    "depth": lambda value: _numbers(value) and bool(value),
    "gate": lambda value: value == {} or _of_numbers(value, GATE),
    "calibration": lambda value: value == {} or (_of_numbers(value, CALIBRATION) and _texts(value.get("patients"))),
    "encoder_digest": lambda value: isinstance(value, str),
    "patch_um": lambda value: isinstance(value, list) and all(isinstance(one, list) for one in value),
}

# HER2ST B1, C1, D1, each left out, expression only, short training: with a random half of the genes spacrd keeps its
# AUC (0.87), with a random quarter it falls below 0.6; linear, which z-scores each section, is hardly affected.
# Scaling counts to the measured genes' share of the library in training, instead of 10,000, was worse for both.
LEAST_GENE_SHARE = 0.5

UNMEASURED = {
    False: "counts as unexpressed",
    True: "has no effect on the scores",
}  # by whether a method has `least_genes`
PROFILE = "profile.expression"  # a tensor of the model file that is not the model's own
OTHERS = ("profile.", "level.")  # begin the names of all that are not (trust/picture.py, trust/level.py)
# A section whose genes correlate with the model's training sections by this much less than these, or their tumour-free
# crops, do with each other is flagged. HER2ST: sections 0.82 to 0.90, crops from 0.78; melanoma 0.74 (docs/trust.md).
UNLIKE = 0.02
ALIKE = 0.76  # from here on it is the same tissue, also where the training sections, of one laboratory, are more alike
DEEPER = 4  # as many times more or less counts than in any training section are flagged


def training(train) -> dict:
    """The metadata of a model file about its training table, as plain JSON.

    Parameters
    ----------
    train : training table of a fold

    Returns
    -------
    dict of genes (columns of X), library_genes (over which counts were scaled), sections, patients, likeness (of each
    section and tumour-free crop, see `likeness`), depth (the median counts of a spot, of each section) and, with image
    features, encoder_digest (of the weights, or of the code without weights), patch_px and patch_um (one list for each
    set of widths that occurs, one width per field of view)
    """
    facts = {
        "genes": list(train.var_names),
        "library_genes": list(map(str, train.uns["library_genes"])),
        "sections": list(dict.fromkeys(train.obs["section"])),
        "patients": list(dict.fromkeys(train.obs["patient"])),
        "likeness": _likeness_of_sections(train),
        "depth": [float(np.median(train.obs["total_counts"].to_numpy()[rows])) for _, rows in _by(train, "section")],
    }
    encoder = train.uns.get("encoder")
    if encoder is None:
        return facts
    return facts | {
        "encoder_digest": str(encoder["digest"]),
        "patch_px": int(encoder["patch_px"]),
        "patch_um": np.atleast_2d(encoder["patch_um"]).tolist(),
    }


def profile(train) -> dict[str, np.ndarray]:
    """The mean log-normalised expression of the model's genes, each patient counting the same: a tensor beside the
    model's own, (kinds of spots x genes), of cancer and of other spots, or of all of them without labels."""
    return {PROFILE: _mean_profiles(_profiles(train)).astype(np.float32)}


def own_tensors(tensors: dict) -> dict:
    """The tensors of a model file that its method wrote."""
    return {name: value for name, value in tensors.items() if not name.startswith(OTHERS)}


def _by(train, column: str):
    return [(name, np.flatnonzero(train.obs[column] == name)) for name in dict.fromkeys(train.obs[column])]


def _kinds(train) -> list[np.ndarray]:
    """The kinds of spots that have a profile of their own: cancer and other ones, or all without labels."""
    if "label" not in train.obs:
        return [np.ones(train.n_obs, dtype=bool)]
    labels = train.obs["label"].to_numpy(dtype=float)
    return [labels == kind for kind in (1, 0) if (labels == kind).any()]


def _profiles(train) -> dict[str, np.ndarray]:
    """Patient -> mean expression of each kind of spots (kinds x genes), NaN for a kind that it has not."""
    found = {}
    for name, rows in _by(train, "patient"):
        own = [rows[kind[rows]] for kind in _kinds(train)]
        found[name] = np.array(
            [_mean(train, of) if len(of) else np.full(train.n_vars, np.nan) for of in own], dtype=np.float64
        )
    return found


def _mean(train, rows: np.ndarray) -> np.ndarray:
    return np.asarray(train.X[rows].mean(axis=0)).ravel()


def _mean_profiles(profiles: dict[str, np.ndarray]) -> np.ndarray:
    """The mean over patients, of the kinds that one of them has."""
    values = np.array(list(profiles.values()))
    have = ~np.isnan(values[..., 0])
    return np.array([values[have[:, kind], kind].mean(axis=0) for kind in np.flatnonzero(have.any(axis=0))])


def _likeness_of_sections(train) -> list[float]:
    """The correlation of each section, and of its tumour-free crop, with the profiles of the other patients; [] for a
    single patient."""
    profiles = _profiles(train)
    if len(profiles) < 2:
        return []
    labels = train.obs["label"].to_numpy(dtype=float) if "label" in train.obs else np.full(train.n_obs, np.nan)
    found = []
    for _, rows in _by(train, "section"):
        patient = train.obs["patient"].iloc[rows[0]]
        others = _mean_profiles({name: of for name, of in profiles.items() if name != patient})
        crop = rows[labels[rows] == 0]
        parts = [rows] if why_not_judged(len(crop), len(rows)) else [rows, crop]
        found += [_nearest(_mean(train, part), others) for part in parts]
    return found


def _nearest(mean: np.ndarray, profiles: np.ndarray) -> float:
    """The correlation with the profile that is most alike: a section without tumour need not be like those with one."""
    return max(_correlation(mean, own) for own in np.atleast_2d(profiles))


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    from scipy.stats import spearmanr

    constant = min(np.ptp(first), np.ptp(second)) == 0
    return 0.0 if constant else round(float(spearmanr(first, second).statistic), 4)


@dataclass(frozen=True)
class Likeness:
    """How far a section resembles what a model learned from.

    genes, measured : of the model, and how many of them the section measures
    correlation : rank correlation of the section's mean expression with that of the training spots, over these: of
        cancer or of other spots, whichever is more alike
    among : the same of each training section and tumour-free crop with the other patients
    depth, depths : median counts of a spot, and those of the training sections
    """

    genes: int
    measured: int
    correlation: float
    among: tuple[float, ...]
    depth: float
    depths: tuple[float, ...]

    @property
    def concerns(self) -> list[str]:
        """What speaks against using the model on this section."""
        found = []
        if self.among and self.correlation < min(min(self.among) - UNLIKE, ALIKE):
            found.append(
                f"its genes correlate with those of the training sections by {self.correlation:.2f}, these among each "
                f"other by {min(self.among):.2f} or more: another tissue or platform"
            )
        if not min(self.depths) / DEEPER <= self.depth <= max(self.depths) * DEEPER:
            found.append(
                f"its spots have {self.depth:,.0f} counts, those of the training sections {min(self.depths):,.0f} to "
                f"{max(self.depths):,.0f}"
            )
        return found


def likeness(spots, metadata: dict, expression: np.ndarray) -> Likeness:
    """Compare a section with what a model learned from.

    Parameters
    ----------
    spots : AnnData of raw counts
    metadata : of the model file
    expression : its tensor `PROFILE`
    """
    from ctrflow.folds.genes import log_normalise

    known = set(spots.var_names)
    genes = np.array([gene in known for gene in metadata["genes"]])
    correlation = 0.0
    if genes.sum() > 1:
        library = [gene for gene in metadata["library_genes"] if gene in known]
        table = spots[:, library]
        mean = np.asarray(log_normalise(table.X).mean(axis=0)).ravel()[
            table.var_names.get_indexer(np.array(metadata["genes"])[genes])
        ]
        correlation = _nearest(mean, np.atleast_2d(expression)[:, genes])
    return _compared(len(genes), int(genes.sum()), correlation, np.asarray(spots.X.sum(axis=1)), metadata)


def likeness_of_table(section, metadata: dict, expression: np.ndarray) -> Likeness:
    """The same for a section's part of the target table of a fold, which has all genes of the model."""
    mean = np.asarray(section.X.mean(axis=0)).ravel()
    counts, correlation = section.obs["total_counts"].to_numpy(), _nearest(mean, np.asarray(expression))
    return _compared(len(mean), len(mean), correlation, counts, metadata)


def _compared(genes: int, measured: int, correlation: float, counts: np.ndarray, metadata: dict) -> Likeness:
    among, depths = tuple(metadata["likeness"]), tuple(metadata["depth"])
    return Likeness(genes, measured, correlation, among, float(np.median(counts)), depths)


def least_gene_share(metadata: dict) -> float:
    """The share of a model's genes that a section must measure, unless the task says otherwise."""
    least = metadata["least_genes"]
    return min(least / len(metadata["genes"]), LEAST_GENE_SHARE) if least else LEAST_GENE_SHARE


def encoder_settings(options: dict) -> dict:
    """The options of an encoder that determine its features, for comparison; weights are compared by digest."""
    settings = {"channel_order": "rgb"} | {key: options[key] for key in options if key not in ("weights", "precision")}
    if settings.get("patch_um") is not None:
        settings["patch_um"] = np.atleast_1d(settings["patch_um"]).astype(float).tolist()
    return settings


def require_metadata(metadata: dict) -> None:
    """Raise an InputError, naming the keys but not the file, if metadata are missing or invalid."""
    _require_all(KEYS, metadata)
    invalid = sorted(key for key, valid in VALID.items() if key in metadata and not valid(metadata[key]))
    if invalid:
        raise InputError(f"invalid metadata: {', '.join(invalid)}")
    if "image" in metadata["modalities"] and metadata["encoder"] != "none":
        _require_all(IMAGE_KEYS, metadata)


def _require_all(keys: set[str], metadata: dict) -> None:
    if keys - metadata.keys():
        raise InputError(f"missing metadata: {', '.join(sorted(keys - metadata.keys()))}")


def require_tensors(path: str, tensors: dict, metadata: dict, method) -> None:
    """Check that the tensors of a model fit its method and options, and contain no NaN.

    The networks are built on torch's device `meta`, so that a model needs no more memory than its file, whatever its
    options.

    Parameters
    ----------
    path, tensors, metadata : of the model file
    method : the module of its method (`methods.load`)

    Raises
    ------
    InputError
        if a tensor is missing, unexpected, of another shape, or contains NaN.
    """
    import warnings

    import torch

    cure = "train it again, or copy it again from where it was trained"
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")  # about copying to the device `meta`
            model = method.Model.from_tensors(tensors, metadata["options"], metadata["seed"])
            unexpected = sorted(tensors.keys() - _own_tensors(model, tensors))
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        text = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: its tensors do not fit method {method.SPEC.name} ({text}); {cure}") from error
    if unexpected:
        raise InputError(f"{path}: unexpected tensors for {method.SPEC.name}: {first_few(unexpected)}; {cure}")
    broken = [name for name, value in tensors.items() if value.dtype.kind == "f" and np.isnan(value).any()]
    if broken:
        raise InputError(f"{path}: NaN in {first_few(broken)}: its training diverged; {cure}")


def require_beside(path: str, tensors: dict, metadata: dict) -> None:
    """Check the tensors of a given model that are not its method's: profiles and level, by shape and value.

    Raises
    ------
    InputError
        if one is missing beside its like, has another shape, or holds what is no finite number: its verdict would mean
        nothing, without a word.
    """
    genes, found = len(metadata["genes"]), {name: of for name, of in tensors.items() if name.startswith(OTHERS)}
    level = {"level.weights": (genes,), "level.mean": (genes,), "level.sd": (genes,), "level.intercept": (1,)}
    wanted = level if any(name in found for name in level) else {}
    profile = found.get(PROFILE)
    broken = [name for name, shape in wanted.items() if name not in found or found[name].shape != shape]
    broken += [PROFILE] if profile is not None and (profile.ndim not in (1, 2) or profile.shape[-1] != genes) else []
    broken += [name for name, value in found.items() if not np.isfinite(value).all()]
    broken += ["level.sd"] if "level.sd" in found and not (found["level.sd"] > 0).all() else []
    if broken:
        raise InputError(
            f"{path}: {first_few(dict.fromkeys(broken))} do not fit its {genes:,} genes, or hold what is no finite "
            "number; train it again, or copy it again from where it was trained"
        )


def _own_tensors(model, tensors: dict) -> set[str]:
    """The tensor names of a model; for a network, which accepts no others, those it was given."""
    try:
        return set(model.tensors())
    except NotImplementedError:  # torch cannot copy from the device `meta`
        return set(tensors)


def target_table(view, metadata: dict, path: str, min_gene_share: float | None = None, human=None, expression=None):
    """A section as input of a given model: the model's genes, scaled over those of its library genes it measures.

    Genes that the section does not measure are 0: unexpressed, or, for a method with `least_genes`, without effect.

    Parameters
    ----------
    view : AnnData of raw counts, one section (`folds.tables.target_view`)
    metadata : of the model file
    path : of the model file, for messages
    min_gene_share : of the model's genes that the section must measure, 0 to 1; None: as the method needs
    human : table of human genes (`gene_names.read`), to translate between names; None: as they are
    expression : the tensor `PROFILE` of the model file

    Returns
    -------
    AnnData as `folds.tables.with_genes` gives it; uns["model"]: path, sections (trained on), section, unmeasured (what
    becomes of genes not measured), concerns (see `Likeness`), and genes and measured (how many of them the section
    measures), which a model that reads the image alone does not have

    Raises
    ------
    InputError
        if the section measures too few of the genes, or its image features are of another encoder.
    """
    section = view.obs["section"].iloc[0]
    facts = {"path": str(path), "sections": np.array(metadata["sections"], dtype=str), "section": section}
    facts["unmeasured"] = UNMEASURED[metadata["least_genes"] > 0]
    if "image" in metadata["modalities"]:
        _require_encoder(view, metadata, path, section)
    if "gene" in metadata["modalities"]:
        view, measured, found = examined(view, section, metadata, path, min_gene_share, human, expression)
        facts |= {"genes": len(metadata["genes"]), "measured": measured}
        facts |= _concerns(found)
        view = tables.measured(view, metadata["library_genes"])
        text = "section %s measures %d of the model's %d genes, and %d of the %d of its library size"
        logger.info(text, section, measured, facts["genes"], view.n_vars, len(metadata["library_genes"]))
    table = tables.with_genes(view, metadata["genes"])
    table.uns["model"] = facts
    return table


def examined(view, section: str, metadata: dict, path: str, min_gene_share=None, human=None, expression=None) -> tuple:
    """A section with its genes named as in a model, how many of the model's it measures, and how alike it is.

    Parameters as for `target_table`; the `Likeness` is None without `expression`.

    Raises
    ------
    InputError
        if the section measures too few of the model's genes.
    """
    if human is not None:
        view = gene_names.translated(view, section, [*metadata["genes"], *metadata["library_genes"]], human)
    measured = require_genes(list(view.var_names), metadata, path, section, min_gene_share)
    return view, measured, None if expression is None else likeness(view, metadata, expression)


def _concerns(found: Likeness | None) -> dict:
    """What speaks against the model on a section, for uns["model"]; {} if nothing does."""
    concerns = found.concerns if found else []
    for text in concerns:
        logger.warning("unlike what the model learned from: %s", text)
    return {"concerns": np.array(concerns, dtype=str)} if concerns else {}


def sentences(facts: list[dict]) -> str:
    """For the report, about each of the given models of a task: its training sections, and the genes measured.

    `facts` are uns["model"] of the target tables of one task.
    """
    by_model: dict[str, list[dict]] = {}
    for line in facts:
        by_model.setdefault(line["path"], []).append(line)
    subject = {path: "It" if len(by_model) == 1 else path for path in by_model}
    return " ".join(_sentence(lines, subject[path]) for path, lines in by_model.items())


def _sentence(facts: list[dict], subject: str) -> str:
    trained = f"{subject} was trained on {first_few(facts[0]['sections'], 12)}."
    counted = [line for line in facts if "genes" in line]
    if not counted:
        return trained
    total = f"{counted[0]['genes']:,}"
    lacking = [line for line in counted if line["measured"] < line["genes"]]
    if not lacking:
        return f"{trained} All its {total} genes are measured in each section scored."
    lacking.sort(key=lambda line: line["measured"])
    shares = [
        f"{line['section']} measures {line['measured']:,} ({_percent(line['measured'] / line['genes'])})"
        for line in lacking
    ]
    rest = ", the others all" if len(lacking) < len(counted) else ""
    unmeasured = f"What is not measured {lacking[0]['unmeasured']}."
    return f"{trained} Of its {total} genes {first_few(shares, 12)}{rest}. {unmeasured}"


def require_genes(
    names: list[str], metadata: dict, path: str, section: str, min_gene_share: float | None = None
) -> int:
    """The number of the model's genes that a section with these gene names measures.

    Raises
    ------
    InputError
        if they are less than `min_gene_share` of them, or than the method needs; with a cure.
    """
    least = least_gene_share(metadata) if min_gene_share is None else min_gene_share
    genes, known = metadata["genes"], set(names)
    missing = [gene for gene in genes if gene not in known]
    measured = len(genes) - len(missing)
    share = measured / len(genes)
    if min_gene_share is None and share < LEAST_GENE_SHARE and _other_names(genes, names, share):
        least = LEAST_GENE_SHARE  # the section measures more than this: a few of its names are the model's by chance
    if measured and share >= least:
        return measured
    cure = _other_names(genes, names, share) or (
        "train a model on the genes that both measure (split `transfer`), or lower min_gene_share of the task"
    )
    raise InputError(
        f"{path}: section {section} measures {measured:,} of the model's {len(genes):,} genes ({_percent(share)}), but "
        f"min_gene_share is {_percent(least)}; missing: {first_few(missing)}; {cure}"
    )


def _other_names(genes: list[str], names: list[str], share: float) -> str:
    """How the gene names of a section differ from the model's, with the cure; "" if they do not."""
    ours, theirs = gene_names.kind(genes), gene_names.kind(names)
    if ours != theirs:
        return (
            f"the model has {ours} ({first_few(genes, 3)}), the section {theirs} ({first_few(names, 3)}): use the "
            "model's kind of names in the section (in an .h5ad: var_names, or for symbols a column gene_symbols of var)"
        )
    for what, plain in (
        ("their version number", lambda name: re.sub(r"\.\d+$", "", name)),
        ("upper and lower case, as between species", str.upper),
    ):
        known = set(map(plain, names))
        if np.mean([plain(gene) in known for gene in genes]) > max(2 * share, 0.5):
            return (
                f"names differ in {what} (model: {first_few(genes, 3)}; section: {first_few(names, 3)}): use the "
                "model's names in the section"
            )
    return ""


def _require_encoder(view, metadata: dict, path: str, section: str) -> None:
    """Check that the section's features have the weights or code, and the patch size in px, of the model's."""
    encoder = view.uns["encoder"]
    for key, expected, actual in (
        ("digest", metadata["encoder_digest"], str(encoder["digest"])),
        ("patch_px", metadata["patch_px"], int(encoder["patch_px"])),
    ):
        if expected != actual:
            raise InputError(
                f"{path}: was trained on image features of encoder {metadata['encoder']} with {key} "
                f"{_short(expected)}, but those of section {section} have {_short(actual)}: different weights, or "
                "changed code; configure the weights that the model was trained with, or train it again"
            )
    widths_um = np.atleast_2d(encoder["patch_um"]).tolist()[0]
    if widths_um not in metadata["patch_um"]:
        text = "section %s: patches of %s µm, the model was trained on patches of %s µm (one spot wide in each)"
        logger.info(text, section, _widths(widths_um), " or ".join(map(_widths, metadata["patch_um"])))


def _widths(fields_um: list[float]) -> str:
    return " + ".join(f"{um:g}" for um in fields_um)


def _short(value) -> str:
    return str(value)[:12]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
