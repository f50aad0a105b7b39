"""MEATRD: spots that a network of normal tissue cannot rebuild from their neighbourhood (METHODS.md card 2).

Stage I: a Mobile-UNet learns to rebuild the patches of normal tissue; the later stages use its encoder. Stage II: a
graph network of both modalities learns to rebuild a spot, itself masked, from the spots up to three steps around it.
Stage III: an encoder codes real and rebuilt spots, and the differences of the codes of normal spots are pulled to one
centre. A spot's score is its squared distance from there, in sd above the mean of the normal reference.

Source: MEATRD, AAAI 2025, and its published code. The preset `paper` follows the text, and the code where the text is
silent; `reference` is the published code.

Deviations
----------
- Expression is that of the fold, log-normalised to 10,000 counts a spot, not to the median of each section.
- The score is not inverted. The published code returns (max - d) / (max - min), so that the most anomalous spot gets
  the lowest score; the paper says the opposite. `score_flip` restores it; no preset sets it (M-01).
- Attention stays within the subgraph of one target, the only spot masked. The published code attends over a batch, and
  masks all its targets and all their neighbours (`attention_scope`, `mask_scope`; M-02, M-03).
- The centre is the mean over the reference. The published code's loss never leaves training mode, so that its centre is
  the mean of each batch, of the scored spots too (`centre`, M-09).
- With any of these three a score depends on the spots in its batch: the section's own, `batch_size` in their order. A
  last batch of one spot is its own centre, with distance 0.
- The patch is rebuilt by a mirrored light ResNet; the code's UNet decoder has skips from the target's own patch, past
  the mask (`decoder_skips`, M-04).
- Three blocks and a graph decoder would reach four steps: the third block stays on the innermost ring, so that the
  subgraph is three steps wide whatever `mgdat_layers` says (M-05).
- In stage III the generator rebuilds every reference spot once, without dropout, as it does when it scores; in the
  code dropout stays on.
"""

import logging

import numpy as np

from ctrflow.errors import InputError
from ctrflow.features.blocks import section_rows
from ctrflow.features.learned_from import capped, require_spots
from ctrflow.methods import MODALITIES, MethodSpec, Option
from ctrflow.nets.model import NetworkModel

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
        "modalities": Option(list(MODALITIES), "modalities to read and rebuild", MODALITIES),
        "patch_um": Option(100.0, "side of a patch, the distance of Visium's spots", above=0),
        "patch_px": Option(32, "side of a patch in pixels", (32, 48, 64, 96, 128)),
        "max_reference_spots": Option(
            0, "maximum number of reference spots to learn from, drawn at random; 0 for all. Others serve as neighbours"
        ),
        "epochs_unet": Option(10, "epochs of stage I", least=1),
        "epochs_rebuild": Option(10, "epochs of stage II", least=1),
        "epochs_one_class": Option(5, "epochs of stage III", least=1),
        "learning_rate_unet": Option(5e-4, "Adam, stage I", above=0),
        "learning_rate_rebuild": Option(1e-4, "Adam, stage II", above=0),
        "learning_rate_one_class": Option(1e-6, "Adam, stage III", above=0),
        "batch_size": Option(128, "spots per step, all stages", least=2),
        "neighbours": Option(6, "nearest spots linked to a spot; the published code: 4 (M-07)", least=1),
        "alpha": Option(0.5, "weight of the image's error in stage II (M-12)", most=1),
        "beta": Option(0.5, "weight of the image in stage III", most=1),
        "d_embed": Option(256, "width of a token", (16, 32, 64, 128, 256, 512)),
        "d_bottleneck": Option(16, "width of the bottleneck shared by the modalities", least=1),
        "d_detect": Option(256, "width of stage III's codes", least=1),
        "mgdat_layers": Option(3, "MGDAT blocks; the published code: 2 (M-05)", least=1),
        "gat_heads": Option(2, "heads of the graph attention in a block", least=1),
        "gat_activation": Option(
            "leaky_relu",
            "activation after the graph attention; the published code: none (M-06)",
            ("leaky_relu", "none"),
        ),
        "fusion": Option("attention", "MGDAT blocks, or tokens straight to the decoders", ("attention", "none")),
        "mask_targets": Option(True, "hide the target's own token from its reconstruction"),
        "mask_scope": Option(
            "own",
            "spots masked in a subgraph: its target, or all targets of the batch and their neighbours (M-03)",
            ("own", "batch"),
        ),
        "attention_scope": Option(
            "subgraph", "attention over the subgraph, or all spots of the batch (M-02)", ("subgraph", "batch")
        ),
        "decoder_skips": Option(False, "UNet decoder with skips from the target's own patch (M-04)"),
        "freeze": Option(
            "encoder", "frozen part of the UNet's encoder; the published code: down (M-13)", ("encoder", "down")
        ),
        "stage3": Option(True, "train stage III; without it the score is the reconstruction error"),
        "stage3_input": Option(
            "difference", "code of the real minus the rebuilt spot, or of the real spot", ("difference", "embedding")
        ),
        "svdd_fusion": Option(
            "mean", "weighted mean of unit vectors, or the published concatenation (M-08)", ("mean", "concat")
        ),
        "svdd_gene": Option("mlp", "layers of stage III's gene encoder: two, or one (M-10)", ("mlp", "linear")),
        "centre": Option(
            "reference",
            "mean over the reference, or over each batch, in training and of the scored spots (M-09)",
            ("reference", "batch"),
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
            "centre": "batch",
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


class Model(NetworkModel):
    """The trained generator and encoder, and the centre.

    The part `reference_scores` has the distances or errors of the spots learned from, not yet in sd.
    """

    kept = ("reference_scores",)

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
        """Train on the spots of normal sections; `pretrained` are the tensors from `pretrain`.

        Raises
        ------
        InputError
            with fewer than 2 reference spots, too few for a batch; for a mask that attention over the batch would
            bypass, and for one that leaves nothing to rebuild from.
        """
        from ctrflow.nets import meatrd_stages, training
        from ctrflow.nets.meatrd import MEATRD, rebuilds

        _require_masked(options)
        learned, losses = _learned(train, options, seed), []
        if pretrained is None and rebuilds(options) and "image" in options["modalities"]:
            pretrained, losses = cls.pretrain(train, options, seed)
        device = training.start(seed)
        tissue = _tissue(train, options, device)
        net = MEATRD(train.n_vars, options).to(device)
        logger.info("MEATRD on %d spots of %d, %s", len(learned), train.n_obs, device.type)
        if net.generator is not None:
            if "image" in options["modalities"]:
                net.generator.load_pretrained(pretrained, options["freeze"])
            losses += meatrd_stages.rebuild(net.generator, tissue, learned, options, seed)
        groups = _groups(train.obs["section"], learned, options["batch_size"])
        if net.encoder is None:
            scores = meatrd_stages.scores(net, tissue, groups, options)
        else:
            rebuilt = None
            if net.generator is not None:
                rebuilt = meatrd_stages.all_rebuilt(net.generator, tissue, groups, options)
            reference = meatrd_stages.Reference(tissue, groups, rebuilt)
            net.centre, stage_losses = meatrd_stages.one_class(net.encoder, reference, options, seed)
            losses += stage_losses
            scores = meatrd_stages.reference_scores(net, reference)
        return cls(net.cpu().eval(), options, seed, {"reference_scores": scores}, losses)

    def score(self, target) -> np.ndarray:
        """Squared distance from the centre, in sd above the mean of the reference; section by section."""
        from ctrflow.nets import meatrd_stages

        device, scores = self.to_device(), np.empty(target.n_obs)
        for _, rows in section_rows(target.obs["section"]):
            tissue = _tissue(target[rows], self.options, device)
            groups = meatrd_stages.batches(np.arange(len(rows)), self.options["batch_size"])
            scores[rows] = meatrd_stages.scores(self.net, tissue, groups, self.options)
        reference = self.parts["reference_scores"]
        scores = (scores - reference.mean()) / (reference.std() or 1.0)
        return -scores if self.options["score_flip"] else scores

    @staticmethod
    def network(tensors: dict, options: dict):
        """An untrained network for the number of genes of the tensors."""
        from ctrflow.nets.meatrd import MEATRD

        genes = [name for name in ("encoder.gene.0.weight", "generator.gene_encoder.hidden.weight") if name in tensors]
        return MEATRD(tensors[genes[0]].shape[1] if genes else 0, options)


def _tissue(view, options: dict, device):
    from ctrflow.nets.tissue import tissue_of

    return tissue_of(view, options["neighbours"], device, pictured="image" in options["modalities"])


def _learned(train, options: dict, seed: int) -> np.ndarray:
    """The rows of the reference to learn from."""
    require_spots("meatrd", train.n_obs, 2, train.obs["section"])
    rows = capped(train.n_obs, options["max_reference_spots"], seed)
    if len(rows) < 2:
        raise InputError("method meatrd: option `max_reference_spots` is 1; give 0 for all, or at least 2")
    return rows


def _groups(sections, learned: np.ndarray, size: int) -> list[np.ndarray]:
    """The rows learned from in batches of one section, as targets are scored."""
    from ctrflow.nets.meatrd_stages import batches

    parts = section_rows(sections.to_numpy()[learned])
    return [rows for _, part in parts for rows in batches(learned[part], size)]


def _require_masked(options: dict) -> None:
    """Attention over a batch sees every target in the subgraphs of others, unless it is masked there too.

    Without fusion the decoder reads a target's neighbours, all of which the batch's mask hides.
    """
    if not options["mask_targets"]:
        return
    if options["attention_scope"] == "batch" and options["mask_scope"] == "own":
        raise InputError(
            "method meatrd: with option `attention_scope` 'batch' a target is also seen in the subgraphs of others, "
            "where `mask_scope` 'own' does not hide it; set mask_scope: batch, or attention_scope: subgraph"
        )
    if options["fusion"] == "none" and options["mask_scope"] == "batch":
        raise InputError(
            "method meatrd: with option `fusion` 'none' a spot is rebuilt from its neighbours, and `mask_scope` "
            "'batch' hides them all; set mask_scope: own, or fusion: attention"
        )
