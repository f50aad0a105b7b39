"""What a map says about a section as a whole, and which spots it calls (docs/trust.md).

The level of a section says whether there is a tumour, the contrast between its spots says where. So the calls are those
of the label-free threshold where a tumour was found, and none where not.
"""

from dataclasses import asdict, dataclass

import numpy as np

from ctrflow.scale.lattice import REACH, connected, fit_lattice

FOUND, NONE, OPEN = "tumour found", "no tumour found", "cannot tell"
LEAST_CHANCE = 0.45  # up to 0.5 it is too near to a half to say that there is none: a tumour missed is worse
FAR_BELOW = 0.2  # what a chance must be to say so on a platform that the model has not seen
# a spot with a lower probability is not called though it stands out from its section: normal glands beside a tumour
LEAST_PROBABILITY = 0.25
# HER2ST: tumour-free crops reach 7, a third of the spots drawn at random 4; half of the sections with tumour are lower
COPY_NUMBERS = 8.0
LEAST_STRUCTURE = 0.5  # of the least among training sections with tumour: below, positions or values are mixed up


@dataclass(frozen=True)
class Gate:
    """The chance that a section has tumour, from the peak of its level: a logistic curve.

    slope, intercept : of the logit of the chance
    tumour, free : the range of the peaks that it was learned from, of sections with and without tumour
    sections : how many of each
    structure : the least structure of the sections with tumour (`trust.level.score`)
    patients : how many of them
    """

    slope: float
    intercept: float
    tumour: tuple[float, float]
    free: tuple[float, float]
    sections: tuple[int, int]
    structure: float
    patients: int

    def chance(self, peak: float) -> float:
        """The chance that a section with this peak has tumour."""
        return float(1 / (1 + np.exp(-(self.slope * peak + self.intercept))))

    def as_dict(self) -> dict:
        """Plain numbers for a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Gate":
        """The gate that `as_dict` gave."""
        return cls(**values | {name: tuple(values[name]) for name in ("tumour", "free", "sections")})


@dataclass(frozen=True)
class Facts:
    """What is known about a section before anything is called.

    peak : level of its most cancer-like spots; None without a level
    gate : learned from held-out training sections; None where they could not teach one
    unlike : what is unlike what the model learned from, so that neither level nor chance applies; sentences
    elsewhere : what the model has not seen, though the section is like the training sections; sentences
    noted : what is unlike in what the verdict does not rest on, the picture; sentences
    copy_numbers : how far the difference of the most cancer-like third of the spots and the others goes along the
        chromosomes, in sd of genes in random order (`features.copy_numbers.evidence`); None if not known
    """

    peak: float | None = None
    gate: Gate | None = None
    unlike: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()
    copy_numbers: float | None = None

    @property
    def chance(self) -> float | None:
        """The chance that the section has tumour."""
        return None if self.gate is None or self.peak is None else self.gate.chance(self.peak)

    @property
    def verdict(self) -> str:
        """Found, none, or cannot tell; "" for a method that learned from no labels, which cannot know.

        An unlike section is not judged. On a platform that the model has not seen, the level may be lower for all spots
        (fewer genes, another chemistry): there only a much lower one speaks against a tumour.
        """
        if self.peak is None:
            return ""
        if self.gate is None or self.unlike:
            return OPEN
        if self.chance >= 0.5:
            return FOUND
        return NONE if self.chance < (FAR_BELOW if self.elsewhere else LEAST_CHANCE) else OPEN

    def as_dict(self) -> dict:
        """Plain values for a file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Facts":
        """The facts that `as_dict` gave."""
        gate = None if values["gate"] is None else Gate.from_dict(values["gate"])
        texts = {name: tuple(values[name]) for name in ("unlike", "elsewhere", "noted")}
        return cls(**values | texts | {"gate": gate})


@dataclass(frozen=True)
class Verdict:
    """The verdict on a section (`Facts.verdict`), with its evidence and what speaks against the model; sentences."""

    verdict: str = ""
    evidence: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()

    def as_dict(self) -> dict:
        """Plain values for a file."""
        return asdict(self)


def call(mixture: np.ndarray, probability: np.ndarray | None, facts: Facts) -> np.ndarray:
    """Which spots are called cancer, 0 or 1.

    None where no tumour was found. Where one was found, those above the label-free threshold (`mixture`) whose
    probability is not low. Where it is open though the model applies, only those more likely cancer than not. In an
    unlike section, whose probability means nothing, and without a verdict, those above the threshold.

    Parameters
    ----------
    mixture : (spots,) calls of the label-free threshold
    probability : (spots,), or None without one
    """
    verdict, mixture = facts.verdict, np.asarray(mixture, dtype=int)
    if verdict == NONE:
        return np.zeros_like(mixture)
    if verdict == "" or probability is None or facts.unlike:
        return mixture
    undecided = verdict == OPEN and facts.gate is not None and not facts.elsewhere
    return mixture * (probability >= (0.5 if undecided else LEAST_PROBABILITY))


def judge(facts: Facts, called: np.ndarray, probability: np.ndarray | None, piece: int) -> Verdict:
    """The verdict on a section in words.

    Parameters
    ----------
    called : (spots,) 0 or 1
    probability : (spots,), or None
    piece : spots of the largest piece of neighbouring called spots
    """
    if facts.verdict == "":
        return Verdict()
    outside = (*facts.unlike, *facts.elsewhere, *facts.noted)
    return Verdict(facts.verdict, tuple(_evidence(facts, called, probability, piece)), outside)


def _evidence(facts: Facts, called: np.ndarray, probability: np.ndarray | None, piece: int):
    if facts.gate is None:
        yield (
            "The training sections cannot teach whether there is a tumour: that takes two patients, and tissue without "
            "tumour of at least 100 spots and 30 % of a section."
        )
    else:
        yield _level(facts.peak, facts.gate)
    spots = len(called)
    yield f"{int(np.sum(called)):,} of {spots:,} spots are called, the largest connected piece has {piece:,}."
    if probability is not None and not facts.unlike:
        likely = float(np.mean(probability >= 0.5))
        mean = np.mean(probability)
        yield f"{likely:.0%} of the spots have a probability of 0.5 or more; it is {mean:.2f} on average."
    if facts.copy_numbers is not None:
        yield (
            f"Copy numbers: along the chromosomes, the most cancer-like third of the spots differs from the others by "
            f"{facts.copy_numbers:.1f} sd of a random order of genes: {_copy_numbers(facts.copy_numbers)}"
        )


def _level(peak: float, gate: Gate) -> str:
    return (
        f"The level of its most cancer-like spots (upper 2 %) is {peak:.1f}. Where the model had not seen the patient, "
        f"training sections with tumour had {gate.tumour[0]:.1f} to {gate.tumour[1]:.1f} ({gate.sections[0]}), those "
        f"without {gate.free[0]:.1f} to {gate.free[1]:.1f} ({gate.sections[1]}): a chance of {gate.chance(peak):.0%}."
    )


def _copy_numbers(z: float) -> str:
    return "a sign of gains and losses." if z >= COPY_NUMBERS else "that says nothing for or against a tumour."


def statement(verdicts: dict[str, Verdict]) -> str:
    """For a map: the verdict of each run, together where they agree, and what is outside of what was learned from."""
    runs: dict[str, list[str]] = {}
    for name, one in verdicts.items():
        if one.verdict:
            runs.setdefault(one.verdict, []).append(name)
    alone = len(runs) == 1
    said = [f"{text.capitalize()}." if alone else f"{', '.join(names)}: {text}." for text, names in runs.items()]
    outside = dict.fromkeys(text for one in verdicts.values() for text in one.outside)
    return " ".join([*said, *(f"Outside of what the model knows: {text}." for text in outside)])


def largest_piece(spatial_px: np.ndarray, called: np.ndarray) -> int:
    """The number of called spots in the largest piece of direct neighbours."""
    from scipy.spatial import cKDTree

    rows = np.flatnonzero(called)
    if len(rows) < 2:
        return len(rows)
    near = cKDTree(spatial_px[rows]).query_pairs(REACH * fit_lattice(spatial_px).pitch_px, output_type="ndarray")
    return int(np.bincount(connected(near, len(rows))).max())
