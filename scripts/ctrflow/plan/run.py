"""A run, one training and scoring, and all that follows from it: what it reads, where it writes, what it asks for."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

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
    """A short name for sections whose pictures are learned from together."""
    return hashlib.sha256("\n".join(sections).encode()).hexdigest()[:12]


@dataclass(frozen=True, eq=False)
class Run:
    """A variant on a fold of a task, with an encoder and a seed. A fold without a name is all that the task has."""

    study: str
    task: dict
    fold: Fold
    encoder: str
    variant: Variant
    seed: int

    @property
    def spec(self) -> MethodSpec:
        """The method."""
        return self.variant.spec

    @property
    def options(self) -> dict:
        """All options of the method."""
        return self.variant.options

    @cached_property
    def wildcards(self) -> dict:
        """Those of the run's files."""
        return {
            "study": self.study, "task": self.task["name"], "fold": self.fold.name, "encoder": self.encoder,
            "method": self.variant.name, "seed": self.seed, "view": self.view,
        }  # fmt: skip

    @property
    def given_model(self) -> str:
        """The model file that the task brings along; "" where it trains."""
        return self.task["model"] if self.task["split"] == "pretrained" else ""

    @property
    def trains(self) -> bool:
        """Whether the run has a training of its own."""
        return self.spec.trains and not self.given_model

    @property
    def view(self) -> str:
        """The view of the fold that the run gets."""
        return "pretrained" if self.given_model else self.spec.view

    @property
    def learned(self) -> tuple[str, ...]:
        """The sections that the method learns from."""
        return self.fold.learned(self.spec.view)

    @property
    def sections(self) -> tuple[str, ...]:
        """Every section that the run has to do with."""
        return (*self.learned, *self.fold.targets)

    @property
    def reference(self) -> str:
        """What a method that knows normal tissue alone learned it from; "" for the others."""
        if self.view != "normal":
            return ""
        return "source_negatives" if self.fold.negatives else "normal_sections"

    @cached_property
    def shared_weights(self) -> str:
        """The name of the weights that the run starts from, one for all with the same reference; "" without any."""
        if not self.spec.pretrain or self.given_model:
            return ""
        content = json.dumps([self.learned, self.fold.negatives, self.pretrain_options], sort_keys=True)
        return f"{self.spec.name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    @property
    def pretrain_options(self) -> dict:
        """The options that decide on shared weights."""
        return {name: self.options[name] for name in self.spec.pretrain}

    def scored_with(self, need: str) -> tuple[str, ...]:
        """The targets, for a method that needs it: superpixels, markers, truth."""
        return self.fold.targets if need in self.spec.needs else ()

    def encoder_settings(self, encoders: dict) -> dict:
        """What of an encoder's options a model file keeps; nothing without an encoder."""
        return {} if self.encoder == "none" else model_file.encoder_settings(encoders[self.encoder])

    def file(self, name: str) -> str:
        """One of the run's own files: model.safetensors, scores.tsv, calls.tsv, ..."""
        return f"{paths.RUN}/{name}".format(**self.wildcards)

    def benchmark(self, rule: str) -> str:
        """The benchmark of one of the run's own jobs."""
        pattern = paths.RUN.replace("results/{study}", f"benchmarks/{{study}}/{rule}")
        return f"{pattern}.tsv".format(**self.wildcards)

    def table(self, name: str) -> str:
        """The table that the run learns from (`train`) or scores (`target`)."""
        folder = paths.VIEW if self.fold.name else paths.SOURCE
        return f"{folder}/{name}.h5ad".format(**self.wildcards)

    @property
    def exported(self) -> str:
        """The model file that all of the task is learned into, where one is asked for."""
        return f"{paths.MODEL}.safetensors".format(**self.wildcards)

    @property
    def model(self) -> str | list:
        """The model that is scored with: given, trained, or none."""
        return self.given_model or (self.file("model.safetensors") if self.spec.trains else [])

    def weights(self, suffix: str = ".safetensors") -> str | list:
        """The shared weights that the run starts from (or their .cost.json), none without any."""
        path = f"{paths.PRETRAINED}{suffix}".format(weights=self.shared_weights, **self.wildcards)
        return path if self.shared_weights else []

    def patches(self, sections) -> list[str]:
        """The pictures of the spots of sections, for a method that looks at pixels."""
        return self._pictures(sections, "zarr")

    @property
    def patch_list(self) -> str | list:
        """The list of the pictures that the method learns from, none for one that looks at none."""
        return next(iter(self._pictures([name_together(self.learned)], "tsv")), [])

    def _pictures(self, names, suffix: str) -> list[str]:
        if "patches" not in self.spec.needs:
            return []
        return paths.patches(self.options["patch_um"], self.options["patch_px"], names, suffix)
