"""Options for training each method in seconds on two small sections, with its architecture unchanged."""

from ctrflow import methods

# for methods whose preset `fast` would still take a minute, or would keep the whole of two small sections
QUICK = {
    "fanogan": {"patch_px": 16, "epochs": 4, "epochs_encoder": 3, "batch_size": 8},
    "meatrd": {
        "max_reference_spots": 32,
        "epochs_unet": 1,
        "epochs_rebuild": 1,
        "epochs_one_class": 1,
        "batch_size": 16,
    },
    "patchcore": {"coreset_least": 1},  # of a bank of the whole reference nothing is left to the seed
    "patch_svdd": {"epochs": 1, "spots_per_epoch": 12, "batch_size": 8},
    "spacrd": {"epochs_align": 5, "epochs_fuse": 5, "epochs_classify": 40, "learning_rate": 1e-3, "batch_size": 64},
    "stands": {"patch_px": 16, "max_reference_spots": 32, "epochs_image": 2, "epochs_extractor": 3, "epochs": 1},
}


def quick_options(name: str, **more) -> dict:
    """All options of a method, overridden by `more`."""
    spec = methods.load(name).SPEC
    preset = {"preset": "fast"} if "fast" in spec.presets else {}
    return methods.resolve_options(spec, preset | QUICK.get(name, {}) | more)
