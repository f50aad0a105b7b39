"""The sections of a study held against each other before it runs: gene names, markers, depth, and labels' words."""

import textwrap
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations

import numpy as np

from ctrflow import storage
from ctrflow.classes import CLASSES
from ctrflow.errors import InputError, first_few
from ctrflow.features import copy_numbers, gene_names, markers
from ctrflow.findings import LEVELS, Finding, counted
from ctrflow.folds.genes import MIN_SPOTS
from ctrflow.readers.genes import species

ALIKE = 0.5  # of the genes of the smaller of two sections; a given model must find as many of its own (model_file)
LAST_WIDTH = 24  # of the table's last column: what the doctor's page leaves
MOST_WORDS = 12  # shown of each label
MOST_PAIRS = 5  # of sections, shown of a task


@dataclass(frozen=True)
class Look:
    """What of a section is held against others.

    genes : names
    spots : (genes,) spots with counts of each
    n_spots, counts : number of spots, and median counts of one
    words : (the annotator's word, "" for none; 1, 0 or None for unknown) -> spots; empty without labels
    """

    section: str
    platform: str
    cohort: str
    genes: tuple[str, ...]
    spots: np.ndarray
    n_spots: int
    counts: float
    words: dict = field(default_factory=dict)

    @property
    def classes(self) -> set:
        """The known labels of its spots: of 1 and 0."""
        return {label for _, label in self.words} - {None}


def look(spots, labels=None) -> Look:
    """What is kept of a section that was read.

    Parameters
    ----------
    spots : AnnData of the section contract
    labels : frame as `labels.read_labels` gives it, or None
    """
    facts, words = spots.uns["section"], {}
    if labels is not None:
        known = labels["label"].astype(float)
        for word, label in zip(labels["region"], known.where(known.notna(), None), strict=True):
            key = (word, None if label is None or np.isnan(label) else float(label))
            words[key] = words.get(key, 0) + 1
    return Look(
        str(facts["section"]),
        str(facts["platform"]),
        str(facts.get("cohort", "")),
        tuple(map(str, spots.var_names)),
        np.asarray((spots.X > 0).sum(axis=0)).ravel().astype(np.int32),
        spots.n_obs,
        float(np.median(np.asarray(spots.X.sum(axis=1)))),
        words,
    )


class Study:
    """The sections that were read, as one table of genes.

    measured : (sections, genes) which section has which gene
    spots : (sections, genes) in how many spots it has counts
    folds : of which a section was read, each a dict of task, learned, labelled and targets (section ids; `labelled`
        are those whose labels are learned from)
    """

    def __init__(self, looks: list[Look], folds=()):
        self.looks = {one.section: one for one in looks}
        self.place = {name: number for number, name in enumerate(self.looks)}
        genes: dict[str, int] = {}
        columns = [[genes.setdefault(name, len(genes)) for name in one.genes] for one in looks]
        self.measured = np.zeros((len(looks), len(genes)), bool)
        self.spots = np.zeros((len(looks), len(genes)), np.int32)
        for row, (one, own) in enumerate(zip(looks, columns, strict=True)):
            self.measured[row, own] = True
            self.spots[row, own] = one.spots
        self.folds = [fold for fold in folds if self.rows([*fold["learned"], *fold["targets"]])]

    @cached_property
    def shared(self) -> np.ndarray:
        """Genes that each two sections have in common."""
        own = self.measured.astype(np.float32)
        return (own @ own.T).astype(int)

    def rows(self, sections) -> list[int]:
        """The rows of those sections that were read."""
        return [self.place[name] for name in sections if name in self.place]

    def share(self, one: int, other: int) -> float:
        """The genes that two sections have in common, of those of the smaller."""
        return self.shared[one, other] / max(min(self.shared[one, one], self.shared[other, other]), 1)

    @cached_property
    def groups(self) -> list[list[int]]:
        """Rows of sections with mostly the same gene names: each like the first of its group, which has the most."""
        found: list[list[int]] = []
        for row in np.argsort(-np.diag(self.shared), kind="stable"):
            alike = next((group for group in found if self.share(group[0], row) >= ALIKE), None)
            if alike is None:
                found.append([int(row)])
            else:
                alike.append(int(row))
        return sorted(sorted(group) for group in found)

    def named(self, rows) -> str:
        """The ids of some rows."""
        return first_few([list(self.looks)[row] for row in rows])

    def why_unlike(self, one: int, other: int) -> str:
        """Why two sections have few names in common, with the cure; "" if the names do not tell."""
        first, second = (list(self.looks.values())[row] for row in (one, other))
        return gene_names.unlike(first.genes, second.genes, first.section, second.section)


def _finding(level: str, subject: str, message: str) -> Finding:
    return Finding(level, "study", message, subject=subject)


# --- gene names -------------------------------------------------------------------------------------------------------


def names(study: Study, rows=(), given=(), lists=()) -> list[Finding]:
    """Who names its genes how, and what the sections of each task share.

    The level of the table is that of what follows from it, so that both are seen together.

    Parameters
    ----------
    rows : all sections of the study
    given, lists : paths of the models and of the marker lists that it reads
    """
    if len(study.looks) < 2:
        return []
    of_tasks = _of_tasks(study)
    lines = [("named by", "such as", "genes", "sections"), *(_row(study, group) for group in study.groups)]
    for path in dict.fromkeys(map(str, (*given, *lists))):
        with suppress(InputError):  # told by the check of the model, or of the markers
            if own := _names_in(path):  # a model may read the image alone
                lines.append((_kind(own), own[0], f"{len(own):,}", path))
    table = _aligned(lines)
    unread = [row["section"] for row in rows if row["section"] not in study.looks]
    if unread:
        table.append(f"not compared, as not read: {len(unread)} of {len(rows)} sections ({first_few(unread)})")
    level = max([*(one.level for one in of_tasks), "warning" if len(study.groups) > 1 else "ok"], key=LEVELS.index)
    return [_finding(level, "gene names", "\n".join(table)), *of_tasks]


def _names_in(path: str) -> list[str]:
    """The genes of a model, or of a marker list."""
    if path.endswith(".tsv"):
        return list(markers.read_markers(path)["gene"])
    return list(storage.read_safetensors_metadata(path).get("genes", ()))


def _row(study: Study, group: list[int]) -> tuple[str, ...]:
    """A line of the table: sections with mostly the same genes."""
    own = [list(study.looks.values())[row] for row in group]
    numbers, common = sorted(len(one.genes) for one in own), int(study.measured[group].all(axis=0).sum())
    genes = _range(numbers, ",")
    if len(group) > 1:
        genes += ", the same" if common == numbers[-1] else f", {common:,} in all"
    return _kind(own[0].genes), own[0].genes[0], genes, study.named(group)


def _aligned(lines: list[tuple[str, ...]]) -> list[str]:
    """The lines of a table in columns; the last, which may be long, is wrapped within its column."""
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    table = []
    for *cells, last in lines:
        parts = textwrap.wrap(last, LAST_WIDTH, break_long_words=False, break_on_hyphens=False)
        table.append("  ".join([*map(str.ljust, cells, widths), parts[0]]))
        table += ["  ".join([*("".ljust(width) for width in widths), part]) for part in parts[1:]]
    return table


def _kind(names) -> str:
    kind, animal = gene_names.kind(names), species(names)
    return f"{animal} {kind}" if animal else kind


def _of_tasks(study: Study) -> list[Finding]:
    """Whether the sections of each fold of a task share their genes: one finding a task, with the least alike sections.

    What is the same in several tasks is told once, in a finding of its own.
    """
    stops, fine, unlike = {}, {}, {}
    for task in dict.fromkeys(fold["task"] for fold in study.folds):
        own = [fold for fold in study.folds if fold["task"] == task]
        parts = [(study.rows(fold["learned"]), study.rows(fold["targets"])) for fold in own]
        pairs = {tuple(sorted((one, other))) for both in parts for one, other in _pairs(*both)}
        if not pairs:
            continue
        problems = list(dict.fromkeys(text for both in parts if (text := _why_stopped(study, *both))))
        stops[task] = problems[:1]
        if len(problems) > 1:
            stops[task][0] += f" ({len(problems)} folds of {len(own)})"
        fine[task] = _of_all(study, parts, pairs)
        unlike.setdefault(tuple(_least_alike(study, pairs)), []).append(task)
    lines, common = {task: list(own) for task, own in stops.items()}, []
    levels = {task: "problem" if own else "ok" for task, own in stops.items()}
    for pairs, tasks in unlike.items():
        told, level = _told(study, pairs)
        if len(tasks) > 1 and told:
            common.append(_finding(level, "tasks", "\n".join([f"{first_few(tasks)}:", *told])))
            fine |= dict.fromkeys(tasks, "")
        elif told:
            lines[tasks[0]] += told
            levels[tasks[0]] = max(level, levels[tasks[0]], key=LEVELS.index)
    own = {task: own or [fine[task]] for task, own in lines.items()}
    return [*(_finding(levels[task], task, "\n".join(text)) for task, text in own.items() if text != [""]), *common]


def _of_all(study: Study, parts: list[tuple], pairs: set) -> str:
    """What the sections of each fold share."""
    counts = sorted(int(study.measured[[*learned, *targets]].all(axis=0).sum()) for learned, targets in parts)
    shares = sorted(study.share(one, other) for one, other in pairs)
    return (
        f"what is learned from and what is scored share {_range(counts, ',')} genes (two sections "
        f"{_range([np.floor(100 * share) / 100 for share in shares], '.0%')} of those of the smaller)"
    )


def _pairs(learned: list[int], targets: list[int]):
    """The rows whose genes must be the same in a fold, two by two."""
    rows = [*learned, *targets]
    return list(combinations(dict.fromkeys(rows), 2))


def _why_stopped(study: Study, learned: list[int], targets: list[int]) -> str:
    """Why a run on a fold would stop, as `genes.shared_genes` and `genes.variable_genes` do; "" if it would not."""
    rows = [*learned, *targets]
    common = study.measured[rows].all(axis=0)
    if not common.any():
        return f"the run would stop: {study.named(rows)} have no gene in common"
    if learned and not (study.spots[learned].sum(axis=0)[common] >= MIN_SPOTS).any():
        return (
            f"the run would stop: none of the {int(common.sum()):,} genes that {study.named(rows)} have in common has "
            f"counts in {MIN_SPOTS} of the spots that are learned from"
        )
    return ""


def _least_alike(study: Study, pairs: set) -> list[tuple]:
    """Of pairs with few genes in common, that with the fewest for each two groups of like names, the largest first.

    Two groups that are both unlike the largest are not held against each other too, unless only that tells why.

    Returns
    -------
    list of (one, other, why): two rows, and `why_unlike`
    """
    group = {row: number for number, rows in enumerate(study.groups) for row in rows}
    sizes = Counter(group[row] for row in sorted({row for pair in pairs for row in pair}))
    largest = sizes.most_common(1)[0][0]
    least: dict[tuple, tuple] = {}
    for one, other in sorted(pairs, key=lambda pair: (study.share(*pair), pair)):
        if study.share(one, other) < ALIKE:
            least.setdefault(tuple(sorted((group[one], group[other]))), (one, other))
    kept, explained = [], {}  # group -> whether it was told why it is unlike
    for both in sorted(least, key=lambda both: largest not in both):
        known = len(set(both)) == 2 and all(one in explained for one in both)
        if known and any(explained[one] for one in both):
            continue
        why = study.why_unlike(*least[both])
        if why or not known:
            kept.append((*least[both], why))
            explained |= {one: bool(why) or explained.get(one, False) for one in both}
    return sorted(kept, key=lambda one: not one[2])


def _told(study: Study, pairs: tuple) -> tuple[list[str], str]:
    """The lines about pairs with few genes in common, and their level."""
    lines = [
        f"{study.named([one])} and {study.named([other])} share {_of_smaller(study, one, other)}; "
        f"{why or 'methods see these alone: check that both are what the study needs'}"
        for one, other, why in pairs[:MOST_PAIRS]
    ]
    if len(pairs) > MOST_PAIRS:
        lines.append(f"and {len(pairs) - MOST_PAIRS} more such pairs of sections")
    return lines, "problem" if any(why for *_, why in pairs) else "warning"


def _of_smaller(study: Study, one: int, other: int) -> str:
    smaller = min(study.shared[one, one], study.shared[other, other])
    return f"{study.shared[one, other]:,} of {smaller:,} genes ({study.share(one, other):.0%})"


def _range(values, form: str) -> str:
    low, high = format(values[0], form), format(values[-1], form)
    return low if low == high else f"{low} to {high}"


# --- what methods bring -----------------------------------------------------------------------------------------------


def marker_genes(study: Study, wanted) -> list[Finding]:
    """Whether each section has counts of its marker genes, as `markers.columns_of` requires.

    Parameters
    ----------
    wanted : (section, path of its list, sets) that methods read
    """
    found: dict[tuple, dict[str, int]] = {}
    for section, path, sets in wanted:
        if section in study.looks:
            one, listed = study.looks[section], _listed(path, sets)
            counted = {gene for gene, spots in zip(one.genes, one.spots, strict=True) if spots}
            number = sum(gene in counted for gene in listed)
            level = "problem" if not number else "warning" if number < ALIKE * len(listed) else "ok"
            key = level, str(path), tuple(sets), gene_names.kind(one.genes)
            found.setdefault(key, {})[section] = number
    findings = []
    for (level, path, sets, _), of in found.items():
        listed, first = _listed(path, sets), next(iter(of))
        numbers = f"{_range(sorted(of.values()), ',')} of the {len(listed)} {' and '.join(sets)} markers in {path}"
        text = f"{numbers} have counts in {first_few(of)}{': the run would stop' * (level == 'problem')}"
        if level != "ok":
            why = gene_names.unlike(study.looks[first].genes, listed, f"section {first}", path)
            text += f"; {why or 'add markers that are measured, or leave out the methods that need markers'}"
        findings.append(_finding(level, "markers", text))
    return findings


def _listed(path: str, sets) -> list[str]:
    """The markers of some sets in a list."""
    table = markers.read_markers(path)
    return list(table["gene"][table["set"].isin(list(sets))])


def positions(study: Study, sections, genes: str) -> list[Finding]:
    """Whether enough genes have a known place for copy numbers, in those sections whose methods need them.

    Parameters
    ----------
    genes : path of the table of human genes
    """
    read = [study.looks[name] for name in dict.fromkeys(sections) if name in study.looks]
    table = gene_names.read(genes) if read else None
    findings = []
    for one in read:
        columns, _ = copy_numbers.placed(one.genes, table)
        found = int((one.spots[columns] >= copy_numbers.LEAST_SHARE * one.n_spots).sum())
        try:
            copy_numbers.require_genes(one.section, found, one.genes)
        except InputError as error:
            findings.append(_finding("problem", "positions", str(error)))
    return findings


def depths(study: Study, deeper: float) -> list[Finding]:
    """Counts of a spot by platform: a warning for `deeper` times more or less than in any section learned from."""
    if len(study.looks) < 2:
        return []
    beyond: dict[tuple, dict[str, tuple]] = {}  # (task, more or less, platform) -> section -> it and those learned from
    told = set()
    for fold in study.folds:
        learned = [study.looks[name] for name in fold["learned"] if name in study.looks]
        for one in (study.looks[name] for name in fold["targets"] if name in study.looks):
            known = sorted(other.counts for other in learned)
            if not known or known[0] / deeper <= one.counts <= known[-1] * deeper:
                continue
            way = "more" if one.counts > known[-1] else "less"
            if (one.section, way) not in told:
                told.add((one.section, way))
                beyond.setdefault((fold["task"], way, one.platform), {})[one.section] = one, learned
    findings = [_beyond(*key, list(own.values()), deeper) for key, own in beyond.items()]
    by_platform: dict[str, list[Look]] = {}
    for one in study.looks.values():
        by_platform.setdefault(one.platform, []).append(one)
    lines = [
        f"{platform}: {_range(sorted(one.counts for one in own), ',.0f')} ({first_few(one.section for one in own)})"
        for platform, own in by_platform.items()
    ]
    return [*findings, _finding("ok", "depth", f"median counts of a spot, {'; '.join(lines)}")]


def _beyond(task: str, way: str, platform: str, own: list[tuple], deeper: float) -> Finding:
    """The warning for sections of a platform, each with those that are learned from for it."""
    learned = {other.section: other for _, others in own for other in others}.values()
    platforms = first_few(sorted({other.platform for other in learned}))
    counts, known = (sorted(one.counts for one in some) for some in ([one for one, _ in own], learned))
    its, it, map_ = ("its", "it", "map") if len(own) == 1 else ("their", "them", "maps")
    return _finding(
        "warning",
        "depth",
        f"task {task}: the spots of {first_few(one.section for one, _ in own)} ({platform}) have "
        f"{_range(counts, ',.0f')} counts, those learned from ({platforms}) {_range(known, ',.0f')}: more than "
        f"{deeper:g} times {way}, so that {its} {map_} may tell of depth alone; learn from sections of {its} platform, "
        f"or do not trust {it} (docs/trust.md)",
    )


# --- words of labels --------------------------------------------------------------------------------------------------


def words(study: Study) -> list[Finding]:
    """What the words of several sections' labels mean, and which sections lack a class."""
    labelled = [one for one in study.looks.values() if one.words]
    shown = [_finding("ok", "labels", "\n".join(_meanings(labelled)))] if len(labelled) > 1 else []
    return [*shown, *_contradictions(labelled), *_one_class(study)]


def _meanings(labelled: list[Look]) -> list[str]:
    """The words of each label, those of most spots first, and the sections without a label."""
    lines = []
    for label, name in {**CLASSES, None: "unknown"}.items():
        spots: Counter[str] = Counter()
        sections: dict[str, set] = {}
        for one in labelled:
            for (word, meaning), number in one.words.items():
                if meaning == label and (word or label is not None):
                    spots[_plain(word)] += number
                    sections.setdefault(_plain(word), set()).add(one.section)
        texts = [
            f"{word or 'by 0 or 1 alone'} ({counted(number, 'spot')}, {counted(len(sections[word]), 'section')})"
            for word, number in spots.most_common()
        ]
        lines += [f"{name}: {first_few(texts, MOST_WORDS)}"] if texts else []
    for label, name in CLASSES.items():
        without = [one.section for one in labelled if label not in one.classes]
        lines += [f"no {name} spot in {first_few(without)}"] if without else []
    return lines


def _plain(word: str) -> str:
    """A word without case and _, in which spellings differ."""
    return " ".join(word.casefold().replace("_", " ").split())


def _contradictions(labelled: list[Look]) -> list[Finding]:
    """Warnings for a word that means one thing in one cohort and another in another."""
    meanings: dict[str, dict[str, set]] = {}
    for one in labelled:
        for word, label in one.words:
            if word:
                cohorts = meanings.setdefault(_plain(word), {})
                cohorts.setdefault(one.cohort or "without a cohort", set()).add(label)
    texts = []
    for word, cohorts in meanings.items():
        if any(not one & other for one, other in combinations(cohorts.values(), 2)):
            meant = [
                f"{' or '.join(CLASSES.get(label, 'unknown') for label in sorted(labels, key=str))} in {cohort}"
                for cohort, labels in cohorts.items()
            ]
            texts.append(f"`{word}` is {', '.join(meant)}")
    if not texts:
        return []
    cure = "check that this is meant (config/label_words.tsv, column cohort)"
    return [_finding("warning", "labels", f"{'; '.join(texts[:MOST_WORDS])}: {cure}")]


def _one_class(study: Study) -> list[Finding]:
    """Problems of folds whose training sections were all read and have one class, as `tables.require_both_classes`."""
    texts = {}
    for fold in study.folds:
        own = [study.looks.get(name) for name in fold["labelled"]]
        if not own or not all(one and one.words for one in own):
            continue
        classes = set().union(*(one.classes for one in own))
        if len(classes) < 2:
            has = f"only {CLASSES[classes.pop()]} spots" if classes else "no labelled spot"
            texts.setdefault((fold["task"], has, tuple(fold["labelled"])), []).extend(fold["targets"])
    return [
        _finding(
            "problem",
            "labels",
            f"task {task}: {first_few(sections)}, learned from to score {first_few(targets)}: {has}; training needs "
            "cancer and other spots: add a section with the other class to `source`, or check labels and words",
        )
        for (task, has, sections), targets in texts.items()
    ]
