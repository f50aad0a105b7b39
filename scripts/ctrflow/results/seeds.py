"""The results of a study on one section, combined over seeds for maps, exports and the report."""

from dataclasses import dataclass

import numpy as np

from ctrflow.results import verdict
from ctrflow.results.calls import call_section


@dataclass(frozen=True, eq=False)
class Results:
    """What the runs say about a section.

    scores, probability, calls : frames with the spots as index, in the section's order, and run names as columns;
        `probability` has a column for the runs that have one
    sd : the disagreement of seeds on a spot, see `_disagreement`, for runs with two or more seeds
    thresholds, verdicts : run name -> Threshold, `verdict.Verdict`
    """

    scores: object
    probability: object
    calls: object
    sd: object
    thresholds: dict
    verdicts: dict

    def of_runs(self) -> list[dict]:
        """The results of each run as the report takes them (`report.write_report`)."""
        return [
            {
                "variant": run,
                "scores": self.scores[run].to_numpy(),
                "probability": self.probability[run].to_numpy() if run in self.probability else None,
                "sd": self.sd[run].to_numpy() if run in self.sd else None,
                "calls": self.calls[run].to_numpy(),
                "threshold": self.thresholds[run].as_dict(),
                "verdict": self.verdicts[run].as_dict(),
            }
            for run in self.scores
        ]


def on_section(runs: list[dict], tables: list, facts: list[dict], spots) -> Results:
    """Means over seeds, their sd, and calls and verdicts on the means, as for a single seed. A spot that is drawn for
    every seed is called as it was drawn.

    Parameters
    ----------
    runs : one dict per run, with `run`, the name that its seeds share, and `threshold`, the kind of threshold
    tables : for each run its table (section, spot, score, probability, and drawn where a drawing taught it)
    facts : for each run section -> `verdict.Facts.as_dict`; seeds of a run share the level, and so the facts
    spots : the section's AnnData
    """
    import pandas as pd

    section, place = spots.uns["section"]["section"], np.asarray(spots.obsm["spatial"])
    kinds = {run["run"]: run["threshold"] for run in runs}
    known = {run["run"]: verdict.Facts.from_dict(of[section]) for run, of in zip(runs, facts, strict=True)}
    by_seed = {name: _by_seed(runs, tables, section, spots.obs_names, name) for name in ("score", "probability")}
    scores, probability = (
        pd.DataFrame({name: seeds.mean(axis=1) for name, seeds in of.items()}) for of in by_seed.values()
    )
    several = {name: _disagreement(seeds) for name, seeds in by_seed["score"].items() if seeds.shape[1] > 1}
    drawn = _by_seed(runs, tables, section, spots.obs_names, "drawn")
    called = {
        name: call_section(
            scores[name].to_numpy(),
            probability[name].to_numpy(),
            place,
            known[name],
            kinds[name],
            drawn[name].mean(axis=1, skipna=False) if name in drawn else None,
        )
        for name in scores
    }
    sd = pd.DataFrame(several, index=scores.index)
    return Results(
        scores,
        probability.dropna(axis=1, how="all"),
        pd.DataFrame({name: one.calls for name, one in called.items()}, index=scores.index),
        sd,
        {name: one.threshold for name, one in called.items()},
        {name: one.verdict for name, one in called.items()},
    )


def _by_seed(runs: list[dict], tables: list, section: str, spots, column: str) -> dict:
    """Run name -> frame (spots x seeds) of a column of its tables, if they have it."""
    import pandas as pd

    found: dict[str, list] = {}
    for run, table in zip(runs, tables, strict=True):
        rows = table[table["section"] == section]
        if column in rows:
            found.setdefault(run["run"], []).append(rows.set_index("spot")[column].astype(float))
    return {name: pd.concat(seeds, axis=1).loc[spots] for name, seeds in found.items()}


def _disagreement(seeds):
    """The sd over seeds (population, ddof = 0) of each spot's score, in units of the score.

    Each seed's scores are first standardised within the section: a shift or scaling of the whole section does not
    change the calls, because the threshold moves with it.
    """
    spread = seeds.std(ddof=0)
    standard = (seeds - seeds.mean()) / spread.where(spread > 1e-12, 1.0)
    return spread.mean() * standard.std(axis=1, ddof=0)


def panels(found: Results, labels=None, drawn=None) -> list[tuple]:
    """The panels of a section's map for `plots.section_panel`: the label and what is drawn first, then score,
    probability, call and sd of each run, where it has them."""
    first = {"label": labels, "drawn": drawn}
    shown = [(name, values, "label") for name, values in first.items() if values is not None]
    for name in found.scores:
        shown.append((f"{name}: score", found.scores[name].to_numpy(), "score"))
        if name in found.probability:
            shown.append((f"{name}: probability", found.probability[name].to_numpy(), "probability"))
        shown.append((f"{name}: call", found.calls[name].to_numpy(), "call"))
        if name in found.sd:
            shown.append((f"{name}: sd over seeds", found.sd[name].to_numpy(), "sd"))
    return shown


def threshold_table(runs: list[dict], thresholds: list[dict]):
    """The threshold of every run and section and its branch, with task, encoder, section, variant and seed."""
    import pandas as pd

    rows = [
        {key: run[key] for key in ("task", "encoder", "variant", "seed")}
        | {"section": section, "threshold": fitted["threshold"], "branch": fitted["branch"]}
        for run, by_section in zip(runs, thresholds, strict=True)
        for section, fitted in by_section.items()
    ]
    return pd.DataFrame(rows, columns=["task", "encoder", "section", "variant", "seed", "threshold", "branch"])


def loss_table(runs: list[dict], tables: list):
    """The losses of every run that trains in epochs, concatenated.

    Parameters
    ----------
    runs : task, fold, encoder, variant and seed of each run
    tables : for each run its table (stage, epoch, term, value), without rows if a method has no losses

    Returns
    -------
    frame (task, fold, encoder, variant, seed, stage, epoch, term, value)
    """
    import pandas as pd

    names = ["task", "fold", "encoder", "variant", "seed"]
    found = [
        table.assign(**{name: run[name] for name in names})
        for run, table in zip(runs, tables, strict=True)
        if len(table)
    ]
    columns = [*names, "stage", "epoch", "term", "value"]
    # a stage named 1 was read as a number
    return pd.concat(found)[columns].astype({"stage": str, "term": str}) if found else pd.DataFrame(columns=columns)


