"""MEATRD: what the neighbourhood of a normal spot does not let one rebuild is anomalous (METHODS.md card 2).

Stage I: a Mobile-UNet learns to rebuild the patches of normal tissue; its encoder reads them from then on. Stage II: a
graph network of both modalities learns to rebuild a spot, itself masked, from the spots up to three steps around it.
Stage III: an encoder codes real and rebuilt spots, and the differences of the codes of normal spots are drawn to one
centre. A spot scores by its squared distance from there, in sd above the mean of the normal reference.

Source: MEATRD, AAAI 2025, and its published code. The preset `paper` follows the text, and the code where the text is
silent; `reference` is the published code.

Deviations
----------
- Expression is that of the fold, log-normalised to 10,000 counts a spot, not to the median of each section.
- The score is not inverted. The published code returns (max - d) / (max - min), so that the most anomalous spot gets
  the lowest score; the paper says the opposite. `score_flip` has it back, and no preset sets it (M-01).
- Attention stays within the subgraph of one target, which alone is masked. Over a whole batch (`attention_scope`,
  `mask_scope`) a score depends on which spots are scored with it (M-02, M-03).
- The patch is rebuilt by a mirrored light ResNet; the code's UNet decoder has skips from the target's own patch, past
  the mask (`decoder_skips`, M-04).
- Three blocks and a graph decoder would look at four steps: the third block stays on the innermost ring, so that the
  subgraph is three steps wide whatever `mgdat_layers` says (M-05).
- In stage III the generator rebuilds every reference spot once, without dropout, as it does when it scores; in the
  code it goes on drawing dropout.
"""

import logging

import numpy as np

from ctrflow.errors import InputError
from ctrflow.features.blocks import section_rows
from ctrflow.features.learned_from import capped, require_spots
from ctrflow.features.neighbours import spot_graph
from ctrflow.methods import MODALITIES, MethodSpec, Option

logger = logging.getLogger(__name__)

SPEC = MethodSpec(
    name="meatrd",
    regime="normal_reference",
    modalities=MODALITIES,
    needs=("patches",),
    gpu=True,
    minutes=720,
    threshold="map_em",
    pretrain=("patch_um", "patch_px", "epochs_unet", "learning_rate_unet", "batch_size", "max_reference_spots"),
    options={
        "modalities": Option(list(MODALITIES), "what it reads and rebuilds", MODALITIES),
        "patch_um": Option(100.0, "side of a patch, the distance of Visium's spots", above=0),
        "patch_px": Option(32, "side of a patch in pixels", (32, 48, 64, 96, 128)),
        "max_reference_spots": Option(
            0, "reference spots learned from at most, drawn at random; 0 for all. The rest are looked at as neighbours"
        ),
        "epochs_unet": Option(10, "stage I", least=1),
        "epochs_rebuild": Option(10, "stage II", least=1),
        "epochs_one_class": Option(5, "stage III", least=1),
        "learning_rate_unet": Option(5e-4, "Adam, stage I", above=0),
        "learning_rate_rebuild": Option(1e-4, "Adam, stage II", above=0),
        "learning_rate_one_class": Option(1e-6, "Adam, stage III", above=0),
        "batch_size": Option(128, "spots a step, all stages", least=2),
        "neighbours": Option(6, "nearest spots that a spot is linked with; the published code: 4 (M-07)", least=1),
        "alpha": Option(0.5, "weight of the image's error in stage II (M-12)", most=1),
        "beta": Option(0.5, "weight of the image in stage III", most=1),
        "d_embed": Option(256, "width of a token", (16, 32, 64, 128, 256, 512)),
        "d_bottleneck": Option(16, "width of what the modalities share", least=1),
        "d_detect": Option(256, "width of stage III's codes", least=1),
        "mgdat_layers": Option(3, "MGDAT blocks; the published code: 2 (M-05)", least=1),
        "gat_heads": Option(2, "heads of the graph attention in a block", least=1),
        "gat_activation": Option(
            "leaky_relu", "after the graph attention; the published code: none (M-06)", ("leaky_relu", "none")
        ),
        "fusion": Option("attention", "MGDAT blocks, or tokens straight to the decoders", ("attention", "none")),
        "mask_targets": Option(True, "the target's own token is hidden from its reconstruction"),
        "mask_scope": Option(
            "own", "what is hidden in a subgraph: its target, or all of the batch (M-03)", ("own", "batch")
        ),
        "attention_scope": Option(
            "subgraph", "attention over the subgraph, or all spots of the batch (M-02)", ("subgraph", "batch")
        ),
        "decoder_skips": Option(False, "UNet decoder with skips from the target's own patch (M-04)"),
        "freeze": Option(
            "encoder", "what of the UNet's encoder stays as it is; the published code: down (M-13)", ("encoder", "down")
        ),
        "stage3": Option(True, "without it the score is the error of the reconstruction"),
        "stage3_input": Option(
            "difference", "codes of real less rebuilt, or the real spot's code alone", ("difference", "embedding")
        ),
        "svdd_fusion": Option(
            "mean", "weighted mean of unit vectors, or the code's concatenation (M-08)", ("mean", "concat")
        ),
        "svdd_gene": Option("mlp", "two layers, or one (M-10)", ("mlp", "linear")),
        "centre": Option(
            "reference", "mean over the reference, or of the last batch (M-09)", ("reference", "last_batch")
        ),
        "score_flip": Option(False, "the published code's inverted score (M-01)"),
    },
    presets={
        "paper": {},
        "reference": {
            "attention_scope": "batch",
            "mask_scope": "batch",
            "decoder_skips": True,
            "mgdat_layers": 2,
            "gat_activation": "none",
            "neighbours": 4,
            "svdd_fusion": "concat",
            "centre": "last_batch",
            "svdd_gene": "linear",
            "alpha": 0.506,
            "freeze": "down",
        },
        "fast": {
            "max_reference_spots": 500,
            "epochs_unet": 4,
            "epochs_rebuild": 2,
            "epochs_one_class": 2,
            "batch_size": 32,
        },
    },
    reference="MEATRD, AAAI 2025",
)


class Model:
    """The trained generator and encoder, the centre, how far the reference lies from it, and the losses.

    generator : None where stage III looks at the real spots alone
    encoder, centre : None without stage III
    reference_scores : (spots learned from,) distances or errors, not yet in sd
    """

    def __init__(self, generator, encoder, centre, reference_scores: np.ndarray, options: dict):
        self.generator = generator
        self.encoder = encoder
        self.centre = centre
        self.reference_scores = reference_scores
        self.options = options
        self.losses: list[dict] = []

    @classmethod
    def pretrain(cls, train, options: dict, seed: int) -> tuple[dict[str, np.ndarray], list[dict]]:
        """Stage I on the patches of the reference: the weights of the Mobile-UNet, and its losses."""
        from ctrflow.nets import meatrd_stages, training

        device = training.start(seed)
        patches = train.obsm["patches"][_learned(train, options, seed)]
        net, losses = meatrd_stages.pretrain(patches, options, seed, device)
        return training.to_numpy(net), losses

    @classmethod
    def fit(cls, train, options: dict, seed: int, pretrained: dict[str, np.ndarray] | None = None) -> "Model":
        """Train on the spots of normal sections; `pretrained` are the tensors that `pretrain` gave.

        Raises
        ------
        InputError
            with fewer than 2 reference spots, on which no stage could take a step; and for a mask that attention over
            the batch would look past.
        """
        from ctrflow.nets import meatrd_stages, training

        _require_masked(options)
        learned, losses = _learned(train, options, seed), []
        if pretrained is None and _rebuilds(options) and "image" in options["modalities"]:
            pretrained, losses = cls.pretrain(train, options, seed)
        device = training.start(seed)
        tissue = _tissue(train, options, device)
        generator, encoder = (net and net.to(device) for net in _networks(train.n_vars, options))
        logger.info("MEATRD on %d spots of %d, %s", len(learned), train.n_obs, device.type)
        if generator is not None:
            if "image" in options["modalities"]:
                generator.begin_with(_tensors(pretrained), options["freeze"])
            losses += meatrd_stages.rebuild(generator, tissue, learned, options, seed)
        if encoder is None:
            model = cls(generator, None, None, np.zeros(0), options)
            model.reference_scores = meatrd_stages.scores(generator, None, None, tissue, learned, options)
        else:
            beside = meatrd_stages.all_rebuilt(generator, tissue, learned, options) if generator is not None else None
            reference = meatrd_stages.Reference(tissue, learned, beside)
            centre, went = meatrd_stages.one_class(encoder, reference, options, seed)
            losses += went
            distances = meatrd_stages.distances(reference.latents(encoder, options["batch_size"]), centre)
            model = cls(generator, encoder, centre, distances.double().cpu().numpy(), options)
        model.losses = losses
        model._move("cpu")
        return model

    def score(self, target) -> np.ndarray:
        """Squared distance from the centre, in sd above the mean of the reference; section by section."""
        from ctrflow.nets import meatrd_stages, training

        device = training.start(0)
        self._move(device)
        found = np.empty(target.n_obs)
        for _, rows in section_rows(target.obs["section"]):
            tissue = _tissue(target[rows], self.options, device)
            nets = self.generator, self.encoder, self.centre
            found[rows] = meatrd_stages.scores(*nets, tissue, np.arange(len(rows)), self.options)
        self._move("cpu")
        found = (found - self.reference_scores.mean()) / (self.reference_scores.std() or 1.0)
        return -found if self.options["score_flip"] else found

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights, the centre and the scores of the reference."""
        from ctrflow.nets import training

        tensors = {"reference_scores": self.reference_scores}
        for part, net in (("generator", self.generator), ("encoder", self.encoder)):
            if net is not None:
                tensors |= {f"{part}.{name}": value for name, value in training.to_numpy(net).items()}
        return tensors if self.centre is None else tensors | {"centre": self.centre.numpy()}

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The model that `tensors` came from; the number of genes is read off them."""
        import torch

        from ctrflow.nets import training

        genes = [name for name in ("encoder.gene.0.weight", "generator.gene_encoder.hidden.weight") if name in tensors]
        nets = _networks(tensors[genes[0]].shape[1] if genes else 0, options)
        for part, net in zip(("generator.", "encoder."), nets, strict=True):
            if net is not None:
                inside = {name.removeprefix(part): value for name, value in tensors.items() if name.startswith(part)}
                training.from_numpy(net.eval(), inside)
        centre = torch.from_numpy(np.array(tensors["centre"])) if "centre" in tensors else None
        return cls(*nets, centre, tensors["reference_scores"], options)

    def _move(self, device) -> None:
        """All that computes to a device."""
        for net in (self.generator, self.encoder):
            if net is not None:
                net.to(device)
        if self.centre is not None:
            self.centre = self.centre.to(device)


def _networks(genes: int, options: dict) -> tuple:
    """Generator and encoder; None for the one that these options have no use for."""
    from ctrflow.nets.meatrd import Generator, SpotEncoder

    built = options["modalities"], genes, options["patch_px"], options
    return Generator(*built) if _rebuilds(options) else None, SpotEncoder(*built) if options["stage3"] else None


def _rebuilds(options: dict) -> bool:
    """Whether anything is made of what the generator rebuilds."""
    return not options["stage3"] or options["stage3_input"] == "difference"


def _tissue(view, options: dict, device):
    from ctrflow.nets.subgraphs import with_loops
    from ctrflow.nets.tissue import Tissue

    graph = spot_graph(view.obsm["spatial"], view.obs["section"].to_numpy(), options["neighbours"])
    patches = np.asarray(view.obsm["patches"]) if "image" in options["modalities"] else None
    return Tissue(view.X.tocsr(), patches, with_loops(graph), device)


def _learned(train, options: dict, seed: int) -> np.ndarray:
    """The spots of the reference that are learned from."""
    require_spots("meatrd", train.n_obs, 2, train.obs["section"])
    rows = capped(train.n_obs, options["max_reference_spots"], seed)
    if len(rows) < 2:
        raise InputError("method meatrd: option `max_reference_spots` is 1; give 0 for all, or at least 2")
    return rows


def _require_masked(options: dict) -> None:
    """Attention over a batch sees every target in the subgraphs of others, unless it is masked there too."""
    leaks = options["attention_scope"] == "batch" and options["mask_scope"] == "own"
    if leaks and options["mask_targets"]:
        raise InputError(
            "method meatrd: with option `attention_scope` 'batch' a target is also seen in the subgraphs of others, "
            "where `mask_scope` 'own' does not hide it; set mask_scope: batch, or attention_scope: subgraph"
        )


def _tensors(arrays: dict) -> dict:
    import torch

    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
