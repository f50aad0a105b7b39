"""The methods, one module each: every module of this package is a method.

A method file holds a `SPEC` (what the method is and takes) and a class `Model` with

- `fit(train, options, seed) -> Model` (classmethod), for methods that learn from a training view;
- `score(target) -> (n,) float array`, higher = more cancer-like;
- `tensors() -> dict[str, array]` and `from_tensors(tensors, options, seed) -> Model` (classmethod), so that training
  and inference are separate steps;
- `losses`, after `fit`, where it trains by steps: a list of dict(stage, epoch from 1, term, value), see `losses.table`;
  the stage of two networks against each other, whose loss is not to fall, is named `contest`;
- `pretrain(train, options, seed) -> (tensors, losses)` (classmethod), where its SPEC names options under `pretrain`:
  `fit` then also takes these tensors as `pretrained`; without them it runs `pretrain` itself.

The `Model` of a method with a trained network is a `nets.model.NetworkModel`, which has `tensors`, `from_tensors` and
`losses`. Beside `fit` and `score` it defines

- `network(tensors, options)` (staticmethod), an untrained network with the shapes of a model file's tensors;
- `kept`, the names of the arrays that the model file has beside the weights, if any; their values are `self.parts`.

Beside the arrays of every view (`folds.tables.with_genes`), a view has those that the SPEC lists under `needs`:

- `patches`: `obsm["patches"]`, uint8 (spots x px x px x 3), squares of the options `patch_um` and `patch_px`;
- `superpixels`: `uns["superpixels"]`, section -> dict of arrays, see `superpixels.cut_superpixels`;
- `markers`: `uns["markers"]`, section -> frame (gene, set, source), see `markers.read_markers`;
- `positions`: `uns["positions"]`, the places of human genes on chromosomes, see `gene_names.read`;
- `prior`: obs["prior"], the scores of a model from elsewhere, see `within.teach.prior`.

A method of the regime `drawn`, or with `taught`, can learn from what is drawn in the section that it scores (split
`within`): its training view is that section, obs["label"] is 1 or 0 where something is drawn, obs["weak"] is true where
a model stands in for a class that is not, and obs["prior"] is there, in both views, if the task builds on a model from
elsewhere.

Importing a method file imports NumPy only; torch and scikit-learn are imported inside.
"""

import difflib
import importlib
import math
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, field

from ctrflow.errors import InputError

REGIMES = {
    "labelled_source": "labelled",
    "normal_reference": "normal",
    "drawn": "drawn",
    "marker_prior": "alone",
    "control": "alone",
}  # regime -> the view it gets
VIEWS = (*dict.fromkeys(REGIMES.values()), "pretrained")
MODALITIES = ("image", "gene")


@dataclass(frozen=True)
class Option:
    """One option of a method: its default, what it means, and its allowed values.

    choices : the allowed values, where they can be listed
    least, most, above : limits of a number; `least` and `most` are inclusive, `above` is exclusive
    """

    default: object
    help: str
    choices: tuple = ()
    least: float = 0
    most: float = math.inf
    above: float = -math.inf


MAX_REFERENCE_SPOTS = Option(0, "maximum number of reference spots to learn from, drawn at random; 0 for all")
# of every method of normal tissue that reads genes, see `MethodSpec`; the steps apply it to what `fit` and `score` get
EQUAL_DEPTH = Option(0, "counts that each spot of reference and target is thinned to, at most; 0 for all its counts")


@dataclass(frozen=True)
class MethodSpec:
    """What a method is and takes.

    regime : which labels it may use (METHODS.md section 0), and so which view it gets
    modalities : what it reads by default; an option `modalities` can narrow it
    needs : inputs beyond those of every view: patches, superpixels, markers, positions, prior; `truth` for the oracle
    taught : whether a method that learns from labelled sections can also learn from what is drawn in the target
    counts : whether it reads the raw counts, layers["counts"]
    options : its own; a method of normal tissue that reads genes has `equal_depth` beside them
    minutes, memory_mb : requests to a scheduler for training at full settings on one CPU core; for scoring, if the
        method trains while it scores
    dense : dense copies of a whole view (spots x genes and image features, float32) that it holds at its peak; 0 for a
        method that reads views in blocks, or keeps genes sparse
    seeded : False when its scores do not depend on the seed: it is then run once
    gpu : whether it gains from a GPU
    presets : named sets of option values, chosen with the option `preset`; the first is the default, and `fast` keeps
        the architecture and cuts epochs or reference spots
    pretrain : the options that determine the weights pretrained on the view's patches alone, which are shared by all
        folds and variants with the same reference
    least_genes : for a method to which a gene that a section does not measure is unknown, not zero: how many of a given
        model's genes a section must measure; 0 for other methods, which need half of them
    partial : the options with which it also learns from sections without a picture, whose image features are NaN
    threshold : how scores become calls: `mixture` of two Gaussians; `map_em`, for which scores are in sd above the mean
        of its normal reference; or `zero`
    """

    name: str
    regime: str
    modalities: tuple[str, ...]
    reference: str
    options: dict[str, Option] = field(default_factory=dict)
    presets: dict[str, dict] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    pretrain: tuple[str, ...] = ()
    least_genes: int = 0
    partial: dict = field(default_factory=dict)
    threshold: str = "mixture"
    minutes: int = 240
    memory_mb: int = 6000
    seeded: bool = True
    counts: bool = False
    dense: float = 0
    gpu: bool = False
    taught: bool = False

    def __post_init__(self):
        """A distance from normal tissue grows with the difference in depth: each method can be asked without it."""
        if self.regime == "normal_reference" and "gene" in self.modalities:
            object.__setattr__(self, "options", {**self.options, "equal_depth": EQUAL_DEPTH})

    @property
    def view(self) -> str:
        """The view of a fold that the method gets."""
        return REGIMES[self.regime]

    @property
    def from_drawings(self) -> bool:
        """Whether it can learn from what is drawn in the target."""
        return self.taught or self.regime == "drawn"

    @property
    def trains(self) -> bool:
        """Whether there is a training step."""
        return self.view != "alone"


def names() -> list[str]:
    """The registered methods, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str):
    """The module of a method.

    Raises
    ------
    InputError
        for an unknown name, with the valid ones.
    """
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f", did you mean `{close[0]}`" if close else ""
        raise InputError(f"unknown method `{name}`{hint}; valid: {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")


def resolve_options(spec: MethodSpec, given: dict | None) -> dict:
    """All options of a method: defaults, overridden by the preset, then by `given`. Numbers take the default's type.

    Raises
    ------
    InputError
        for an unknown option, or a value of the wrong type or outside its choices or limits; with the valid ones.
    """
    given = dict(given or {})
    valid = {**spec.options, **({"preset": Option("paper", "", tuple(spec.presets))} if spec.presets else {})}
    for name, value in given.items():
        if name not in valid:
            raise InputError(
                f"method {spec.name}: unknown option `{name}`; valid: {', '.join(sorted(valid)) or 'none'}"
            )
        given[name] = _checked(f"method {spec.name}: option `{name}` is {value!r}", value, valid[name])
    values = {name: option.default for name, option in spec.options.items()}
    if spec.presets:
        preset = given.pop("preset", next(iter(spec.presets)))
        values |= spec.presets[preset]
    return values | given


def _checked(problem: str, value, option: Option):
    """The value, if the option accepts it; `problem` is the start of the error message."""
    default = option.default
    if isinstance(default, (list, tuple)):
        if not isinstance(value, list) or not value or any(item not in option.choices for item in value):
            raise InputError(f"{problem}; give a list of: {', '.join(map(str, option.choices))}")
        return value
    if option.choices and value not in option.choices:
        raise InputError(f"{problem}; valid: {', '.join(map(str, option.choices))}")
    if isinstance(default, (int, float)) and not isinstance(default, bool):
        return _checked_number(problem, value, option)
    if not isinstance(value, type(default)):
        raise InputError(f"{problem}, expected something like {default!r} ({option.help})")
    return value


def _checked_number(problem: str, value, option: Option) -> int | float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    kind = type(option.default)
    if number and option.above < value and option.least <= value <= option.most and kind(value) == value:
        return kind(value)
    # YAML reads 1e-4, without a point, as a string
    what = "a whole number" if kind is int else "a number, written like 0.001 or 1.0e-3,"
    limits = f"at least {option.least:g}" if option.above < option.least else f"above {option.above:g}"
    limits += f" and at most {option.most:g}" if option.most < math.inf else ""
    raise InputError(f"{problem}; give {what} {limits} ({option.help})")


def modalities_of(spec: MethodSpec, options: dict) -> tuple[str, ...]:
    """What a method reads with these options."""
    return tuple(options.get("modalities", spec.modalities))


def reads_missing(spec: MethodSpec, options: dict) -> bool:
    """Whether training sections without a picture can teach a method that reads the image."""
    return bool(spec.partial) and spec.partial.items() <= options.items()


def why_not(
    spec: MethodSpec,
    options: dict,
    *,
    encoder: str,
    has_sources: bool,
    has_normals: bool,
    labelled_targets: bool,
    without_markers: Sequence[str] = (),
    simulated: Sequence[str] = (),
    drawn: bool = False,
    has_prior: bool = False,
) -> str:
    """Why a method cannot run on a task, or "" when it can.

    `without_markers` are the tissues of its targets that have no list of marker genes, `simulated` the targets that are
    simulated; `drawn` is a task whose methods learn from drawings in its targets, `has_prior` one on top of a model.
    """
    if drawn and spec.trains and not spec.from_drawings:
        able = ", ".join(name for name in names() if load(name).SPEC.from_drawings)
        return f"cannot learn from what is drawn in the target itself; use {able}"
    if spec.regime == "drawn" and not drawn:
        return "learns from what is drawn in the target itself (split `within`)"
    if "prior" in spec.needs and not has_prior:
        return "needs a model that the task builds on (split `within`, key `prior`)"
    if "image" in modalities_of(spec, options) and encoder == "none":
        cure = "; give it the option modalities: [gene]" if "modalities" in spec.options else ""
        return f"reads the image, but this task has none (encoder `none`){cure}"
    if spec.regime == "labelled_source" and not (has_sources or drawn):
        return "learns from labelled sections, but this task names none (key `source`)"
    if spec.regime == "normal_reference" and not has_normals:
        return "learns from normal tissue, but this task names none (key `normal`: a query, or source_negatives)"
    if "markers" in spec.needs and without_markers:
        tissues = ", ".join(f"`{name}`" for name in without_markers)
        return f"needs marker genes, and there is no list for the tissue {tissues} of its targets (config/markers)"
    if "positions" in spec.needs and simulated:
        return "needs the places of genes on chromosomes, and most genes of a simulated section are invented"
    if "truth" in spec.needs and not labelled_targets:
        return "needs the truth, but a target section of the task has no labels"
    return ""
