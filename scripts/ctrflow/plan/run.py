"""A run: one training and scoring, with its files and options."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from ctrflow import methods
from ctrflow.folds.fold import Fold
from ctrflow.methods import MethodSpec
from ctrflow.plan import paths
from ctrflow.training import model_file


@dataclass(frozen=True)
class Variant:
    """A method with its options; `name` is the `{method}` of the paths."""

    name: str
    spec: MethodSpec
    options: dict


def name_together(sections) -> str:
    """A short name for the set of sections whose patches a training job reads."""
    return hashlib.sha256("\n".join(sections).encode()).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class Run:
    """A variant on a fold of a task, with an encoder and a seed.

    A fold without a name contains all training sections of the task and no target (`export_model`).
    """

    study: str
    task: dict
    fold: Fold
    encoder: str
    variant: Variant
    seed: int
    prior: tuple["Run", ...] = ()  # the runs whose scores it builds on, one for each seed of a model

    @property
    def spec(self) -> MethodSpec:
        """The specification of the method."""
        return self.variant.spec

    @property
    def options(self) -> dict:
        """All options of the method."""
        return self.variant.options

    @cached_property
    def wildcards(self) -> dict:
        """The wildcards of the run's files."""
        return {
            "study": self.study, "task": self.task["name"], "fold": self.fold.name, "encoder": self.encoder,
            "method": self.variant.name, "seed": self.seed, "view": self.view,
        }  # fmt: skip

    @property
    def given_model(self) -> str:
        """The model file that scores the fold (split `pretrained`), else ""."""
        return self.fold.model

    @property
    def trains(self) -> bool:
        """Whether there is a training job: crops are scored by the models of another fold."""
        return self.spec.trains and not self.given_model and not self.fold.trained_by

    @property
    def view(self) -> str:
        """The view of the fold that the run uses."""
        if self.fold.drawn and self.spec.trains:
            return "drawn"
        return "pretrained" if self.given_model else self.spec.view

    @property
    def learned(self) -> tuple[str, ...]:
        """The sections that the method learns from."""
        return self.fold.learned(self.view)

    @property
    def sections(self) -> tuple[str, ...]:
        """All sections that the run reads: those it learns from, and its targets."""
        return (*self.learned, *self.fold.targets)

    @property
    def reference(self) -> str:
        """The normal reference of a method that learns from normal tissue only; `drawn` where labels of the target are
        given, to whichever method; "" for other methods."""
        if self.fold.drawn:
            return "drawn"
        if self.view != "normal":
            return ""
        return "source_negatives" if self.fold.negatives else "normal_sections"

    @cached_property
    def shared_weights(self) -> str:
        """The name of the pretrained weights, shared by all runs with the same reference; "" if none."""
        if not self.spec.pretrain or not self.trains:
            return ""
        content = json.dumps([self.learned, self.fold.negatives, self.pretrain_options], sort_keys=True)
        return f"{self.spec.name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    @property
    def pretrain_options(self) -> dict:
        """The options that the shared weights depend on."""
        return {name: self.options[name] for name in self.spec.pretrain}

    def scored_with(self, need: str) -> tuple[str, ...]:
        """The targets, if scoring needs their superpixels, markers, positions or truth (`need`); else ()."""
        return self.fold.targets if need in self.spec.needs else ()

    def encoder_settings(self, encoders: dict) -> dict:
        """The options of the encoder that a model file stores; {} without an encoder."""
        return {} if self.encoder == "none" else model_file.encoder_settings(encoders[self.encoder])

    def file(self, name: str) -> str:
        """One of the run's own files: model.safetensors, scores.tsv, calls.tsv, ..."""
        return f"{paths.RUN}/{name}".format(**self.wildcards)

    def benchmark(self, rule: str, together: bool = False) -> str:
        """The benchmark of one of the run's own jobs, which seeds may do `together`."""
        return f"benchmarks/{paths.job(rule, together)}.tsv".format(**self.wildcards)

    def table(self, name: str) -> str:
        """The training table (`train`) or the table of targets (`target`): the same for what is drawn in the target."""
        name = "train" if self.view == "drawn" else name
        folder = paths.VIEW if self.fold.name else paths.SOURCE
        return f"{folder}/{name}.h5ad".format(**self.wildcards)

    @property
    def exported(self) -> str:
        """The model file of `export_model`: trained on all training sections of the task."""
        return f"{paths.MODEL}.safetensors".format(**self.wildcards)

    @property
    def model(self) -> str | list:
        """The model file for scoring: given, trained, or []."""
        if self.given_model or not self.spec.trains:
            return self.given_model or []
        fold = self.fold.trained_by or self.fold.name
        return f"{paths.RUN}/model.safetensors".format(**self.wildcards | {"fold": fold})

    @property
    def judges(self) -> bool:
        """Whether it says if a section has a tumour: a method that learns from labels and reads genes."""
        if self.fold.drawn or self.spec.regime != "labelled_source":
            return False
        return "gene" in methods.modalities_of(self.spec, self.options)

    @property
    def drawn(self) -> str | list:
        """What is drawn in the target: by the sheet, or shares of its labels, one for each seed; else []."""
        if not self.fold.drawn:
            return []
        if self.task.get("draw"):
            return paths.DRAWN.format(**self.wildcards)
        return paths.of_sections("drawn.tsv", self.fold.targets)[0]

    @property
    def prior_scores(self) -> list[str]:
        """The scores that a method builds on; [] for others."""
        reads = self.spec.from_drawings or "prior" in self.spec.needs
        return [run.file("scores.tsv") for run in self.prior] if reads else []

    @property
    def counts(self) -> list[str]:
        """All counts of the targets, for the copy numbers of a run that judges."""
        return paths.of_sections("spots.h5ad", self.fold.targets) if self.judges else []

    @property
    def level(self) -> str | list:
        """The level of the fold, for a training that judges; else []."""
        folder = paths.VIEW if self.fold.name else paths.SOURCE
        learns = self.judges and not self.given_model
        return f"{folder}/level.safetensors".format(**self.wildcards) if learns else []

    def weights(self, suffix: str = ".safetensors") -> str | list:
        """The file of the shared weights (or their .cost.json); [] without shared weights."""
        path = f"{paths.PRETRAINED}{suffix}".format(weights=self.shared_weights, **self.wildcards)
        return path if self.shared_weights else []

    def patches(self, sections) -> list[str]:
        """The patches of sections, for a method that reads pixels."""
        return self._patches_of(sections, "zarr")

    @property
    def patch_list(self) -> str | list:
        """The list of all training patches; [] for a method that reads no pixels."""
        return next(iter(self._patches_of([name_together(self.learned)], "tsv")), [])

    def _patches_of(self, names, suffix: str) -> list[str]:
        if "patches" not in self.spec.needs:
            return []
        return paths.patches(self.options["patch_um"], self.options["patch_px"], names, suffix)
