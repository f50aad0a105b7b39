"""SpaCRD: alignment, bidirectional cross-attention over the neighbourhood, class-regularised VAE (METHODS.md card 1).

Three stages: contrastive alignment of image and expression; fusion trained to reconstruct itself from a latent drawn
to its class centre; a discriminator on the latent. The preset `paper` follows the text of the paper, and the published
code where the text is silent.
"""

import logging

import numpy as np

from ctrflow.errors import InputError, first_few
from ctrflow.methods import MODALITIES, MethodSpec, Option
from ctrflow.neighbours import nearest_within

logger = logging.getLogger(__name__)

SPEC = MethodSpec(
    name="spacrd",
    regime="labelled_source",
    modalities=MODALITIES,
    gpu=True,
    options={
        "modalities": Option(list(MODALITIES), "what it reads; with one of them there is no alignment", MODALITIES),
        "epochs_align": Option(100, "stage I"),
        "epochs_fuse": Option(50, "stage II"),
        "epochs_classify": Option(50, "stage III", least=1),
        "learning_rate": Option(1e-5, "Adam, all stages (S-08)", above=0),
        "batch_size": Option(512, "spots a step, at most (S-09, S-27)", least=2),
        "temperature": Option(0.07, "of the contrastive loss (S-10)", above=0),
        "alpha": Option(0.5, "weight of image -> gene in the contrastive loss", most=1),
        "beta": Option(0.5, "weight of the class divergence"),
        "gamma": Option(0.1, "weight of the fusion loss in stage III"),
        "neighbours": Option(6, "nearest spots looked at beside the spot itself", least=1),
        "finetune_encoders": Option(
            False, "train the encoders on in stages II and III (S-02; the published code does)"
        ),
        "section_minmax": Option(True, "scale every feature to [0, 1] within each section (S-20)"),
    },
    presets={"paper": {}},
    reference="SpaCRD, AAAI 2026",
)


class Model:
    """A trained network and how its inputs are prepared."""

    def __init__(self, net, options: dict):
        self.net = net
        self.options = options

    @classmethod
    def fit(cls, train, options: dict, seed: int) -> "Model":
        """Train the three stages on a labelled training view.

        Raises
        ------
        InputError
            with fewer than 2 labelled spots, on which no stage could take a step.
        """
        from ctrflow.nets import training

        labels = train.obs["label"].to_numpy(dtype=np.float32)
        _require_labelled(labels, train.obs["section"])
        device = training.start(seed)
        model = cls(_network({name: _width(train, name) for name in options["modalities"]}), options)
        net = model.net.to(device)
        features = {name: value.to(device) for name, value in model._features(train).items()}
        around = model._neighbours(train).to(device)
        logger.info("SpaCRD on %d spots, %d parameters, %s", train.n_obs, parameters(net), device.type)
        if len(net.modalities) == 2:
            _align(net, features, options, seed)
        _fuse_and_classify(net, features, around, _tensor(labels).to(device), options, seed)
        net.cpu().eval()
        return model

    def score(self, target) -> np.ndarray:
        """Sigmoid of the discriminator's logit: evaluation mode, no sampling (METHODS.md 1.8)."""
        import torch

        from ctrflow.nets import training

        device = training.start(0)
        net = self.net.to(device).eval()
        around = self._neighbours(target).to(device)
        with torch.inference_mode():
            tokens = net.aligned({name: value.to(device) for name, value in self._features(target).items()})
            logits = net.logit(*net.posterior(net.fuse(tokens, around)))
        return torch.sigmoid(logits.double()).cpu().numpy()

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights and running statistics."""
        from ctrflow.nets import training

        return training.to_numpy(self.net)

    @classmethod
    def from_tensors(cls, tensors: dict, options: dict, seed: int) -> "Model":
        """The model that `tensors` came from; layer widths are read off the tensors."""
        from ctrflow.nets import training

        net = _network({name: tensors[f"encoders.{name}.linear.0.weight"].shape[1] for name in options["modalities"]})
        training.from_numpy(net, tensors)
        return cls(net.eval(), options)

    def _features(self, view) -> dict:
        from ctrflow.nets.training import section_minmax

        sections = view.obs["section"].to_numpy()
        matrices = {name: _matrix(view, name) for name in self.options["modalities"]}
        if self.options["section_minmax"]:
            matrices = {name: section_minmax(matrix, sections) for name, matrix in matrices.items()}
        return {name: _tensor(np.asarray(matrix, dtype=np.float32)) for name, matrix in matrices.items()}

    def _neighbours(self, view):
        return _tensor(nearest_within(view.obsm["spatial"], view.obs["section"].to_numpy(), self.options["neighbours"]))


def parameters(net) -> int:
    """All trainable numbers of a network."""
    return sum(value.numel() for value in net.parameters())


def _require_labelled(labels: np.ndarray, sections) -> None:
    known = int((~np.isnan(labels)).sum())
    if known < 2:
        raise InputError(
            f"method spacrd: {known} labelled spot{'' if known == 1 else 's'} in the training sections "
            f"{first_few(dict.fromkeys(sections))}; it needs at least 2, from both classes: name other sections under "
            "`source` of the study, or label more spots"
        )


def _network(widths: dict[str, int]):
    from ctrflow.nets.spacrd import SpaCRD

    return SpaCRD({name: widths[name] for name in MODALITIES if name in widths})


def _matrix(view, modality: str) -> np.ndarray:
    return view.obsm["image"] if modality == "image" else view.X.toarray()


def _width(view, modality: str) -> int:
    return view.obsm["image"].shape[1] if modality == "image" else view.n_vars


def _tensor(array: np.ndarray):
    import torch

    return torch.from_numpy(array)


def _optimiser(weights, options: dict):
    import torch

    return torch.optim.Adam(weights, lr=options["learning_rate"], fused=True)


def _align(net, features: dict, options: dict, seed: int) -> None:
    """Stage I: pull a spot's image and expression together, away from those of the other spots of the batch."""
    import torch

    from ctrflow.nets import training
    from ctrflow.nets.spacrd import contrastive_loss

    optimiser = _optimiser(net.encoders.parameters(), options)
    generator = torch.Generator().manual_seed(seed)
    device = features["gene"].device
    net.train()
    for _epoch, losses in training.epochs(options["epochs_align"], "stage I"):
        for rows in training.batches(len(features["gene"]), options["batch_size"], generator, device):
            aligned = net.aligned({name: value[rows] for name, value in features.items()})
            loss = contrastive_loss(aligned["image"], aligned["gene"], options["temperature"], options["alpha"])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())


def _fuse_and_classify(net, features: dict, around, labels, options: dict, seed: int) -> None:
    """Stages II and III, on the labelled spots; their unlabelled neighbours are looked at all the same."""
    import torch
    import torch.nn.functional as F

    from ctrflow.nets import training
    from ctrflow.nets.spacrd import fused_loss

    # one modality alone was never aligned: its encoder learns here or not at all
    finetune = options["finetune_encoders"] or len(net.modalities) == 1
    frozen = None
    if not finetune:
        net.eval()
        with torch.no_grad():
            frozen = net.aligned(features)
    modules = [net.attention, net.fusion, net.encode, net.mean, net.log_variance, net.decode]
    if finetune:
        modules.append(net.encoders)
    fusing = [net.centres, *(weight for module in modules for weight in module.parameters())]
    labelled = torch.nonzero(~torch.isnan(labels)).squeeze(1)
    generator = torch.Generator().manual_seed(seed + 1)

    for stage, count in (("stage II", options["epochs_fuse"]), ("stage III", options["epochs_classify"])):
        discriminate = stage == "stage III"
        optimiser = _optimiser([*fusing, *net.classifier.parameters()] if discriminate else fusing, options)
        net.train()
        if not finetune:
            net.encoders.eval()
        for _epoch, losses in training.epochs(count, stage):
            for picked in training.batches(len(labelled), options["batch_size"], generator, labels.device):
                rows = labelled[picked]
                fused = net.fuse(*_tokens(net, features, frozen, around[rows]))
                loss, mean, log_variance = fused_loss(net, fused, labels[rows], options["beta"])
                if discriminate:
                    logit = net.logit(mean, log_variance)
                    loss = F.binary_cross_entropy_with_logits(logit, labels[rows]) + options["gamma"] * loss
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                losses.append(loss.detach())


def _tokens(net, features: dict, frozen: dict | None, around):
    """Aligned tokens of the distinct spots of a batch of neighbourhoods, and the neighbourhoods as rows of them.

    Frozen encoders ran once and are looked up. Encoders in training see each distinct spot once, and their BatchNorm
    counts it as often as it occurs in the flattened neighbourhoods (METHODS.md 1.5); its dropout mask is drawn once.
    """
    import torch

    distinct, local, counts = torch.unique(around, return_inverse=True, return_counts=True)
    if frozen is not None:
        return {name: value[distinct] for name, value in frozen.items()}, local
    return net.aligned({name: value[distinct] for name, value in features.items()}, counts), local
