"""How many jobs the shipped studies have, worked out by hand: the library must plan as many, and the engine for some.

For two seeds where a study names none; a method that does not depend on a seed runs once.
"""

# eleven of the seventeen methods have a seed; eight of them train, and two of those that have none. Seeds share the job
# of a scoring, except those of the two that learn while they score
SPACRD_TABLE = {"infer": 9 + 2 * 2 + 6, "train": 8 * 2 + 2}
ON_CROP = SPACRD_TABLE["infer"] - 4  # a target without its tumour: all but the controls, and nothing is trained for it
JOBS = {
    "ablation": {
        "embed_section": 8 + 2 + 12 + 8,  # and eight in other colours
        "build_fold": 8 + 2 + 6 + 8 + 8,
        "train_method": (8 + 2 + 6) * 7 * 2 + 8 * 11 * 2 + 8 * 2,
        "infer_scores": (8 + 2 + 6) * 7 + 8 * 11 + 8,
    },
    "breast_transfer": {  # eight sources, two targets and their crops, and one that is scored by its genes alone
        "crop_section": 2,
        "embed_section": 8 + 2,
        "crop_embedding": 2,
        "cut_patches": 2 * (8 + 2 + 2) + 2,  # in two sizes; for `darkness` of the targets alone
        "list_patches": 2,
        "cut_superpixels": 2 + 2,
        "build_fold": 2 * 2 + 2,  # labelled and normal
        "build_crop": 2 * 2,
        "build_target": 2 + 1 + 2,
        "pretrain_method": 2 * 2,  # MEATRD and STANDS, each once a seed: both targets have the same reference
        "train_method": 2 * SPACRD_TABLE["train"] + 3 * 2 + 1,
        "infer_scores": 2 * (SPACRD_TABLE["infer"] + ON_CROP) + 3 + 2,
    },
    "crc": {  # six patients of two sections, one patient left out; normal colon are two sections more
        "crop_section": 12,
        "embed_section": 12 + 2,
        "crop_embedding": 12,
        "cut_patches": 2 * (12 + 2 + 12) + 12,
        "list_patches": 2,
        "cut_superpixels": 12 + 12,
        "build_fold": 6 * 2,
        "build_crop": 6 * 2,  # the crops of a patient together
        "build_target": 6 + 6,
        "pretrain_method": 2 * 2,
        "train_method": 6 * SPACRD_TABLE["train"],
        "infer_scores": 6 * (SPACRD_TABLE["infer"] + ON_CROP),
    },
    "demo": {  # two seeds in the first task, one in the two after it; `linear` alone in the last
        "crop_section": 2,  # Visium and Xenium
        "embed_section": 6 + 2,  # the encoder is no network, so it looks at a crop by itself
        "cut_patches": 2,  # the healthy section, and the one that MEATRD scores
        "list_patches": 1,
        "build_fold": 3 + 2 + 1 + 1,
        "build_crop": 2,
        "build_target": 3 + 2 + 1,
        "pretrain_method": 1,
        "train_method": 3 * 2 + 2 * 2 + 2 + 1,  # fast: the seeds share a job
        "infer_scores": 3 * 4 + 2 * (4 + 2) + 3 + 1,
    },
    "demo_methods": {  # 24 methods once, 17 of them train
        "embed_section": 3 + 1,
        "cut_patches": 2 * (3 + 1) + 3,
        "list_patches": 2,
        "cut_superpixels": 3,
        "build_fold": 3 * 2,
        "build_target": 3,
        "pretrain_method": 2,
        "train_method": 3 * 17,
        "infer_scores": 3 * 24,
    },
    "example": {"embed_section": 1, "build_target": 1, "infer_scores": 1},  # a given model
    "extractors": {
        "embed_section": 4 * (8 + 12 + 2),
        "build_fold": 4 * (8 + 6 + 2),
        "train_method": 4 * (8 + 6 + 2) * 2,
        "infer_scores": 4 * (8 + 6 + 2),
    },
    "meatrd_ablation": {
        "embed_section": 8 + 8,
        "cut_patches": 8 + 8,
        "list_patches": 1,
        "build_fold": 8,
        "pretrain_method": 1 * 2,  # no variant changes how the first stage is learned
        "train_method": 8 * 20 * 2,
        "infer_scores": 8 * 20,
    },
    "meatrd_breast": {  # nine targets, eight healthy sections, the same for every target
        "crop_section": 9,
        "embed_section": 9 + 8,
        "crop_embedding": 9,
        "cut_patches": 3 * (9 + 8 + 9) + 9,  # in three sizes; for `darkness` of the targets alone
        "list_patches": 3,
        "build_fold": 9,
        "build_crop": 9,
        "build_target": 9 + 9,
        "pretrain_method": 2 * 2,
        "train_method": 9 * (11 * 2 + 1),  # twelve methods train, `scmap` without a seed
        "infer_scores": 9 * (12 + 5 + 12 + 1),  # on a crop no control, but the marker score
    },
    "meatrd_sensitivity": {
        "embed_section": 8 + 8 + 1,
        "cut_patches": 8 + 8 + 1,
        "list_patches": 1,
        "build_fold": 8 + 1,
        "pretrain_method": 1 * 2,
        "train_method": 8 * 15 * 2 + 2,
        "infer_scores": 8 * 15 + 1,
    },
    "my_section": {"embed_section": 1, "build_target": 1, "infer_scores": 1},  # a given model
    "sensitivity": {
        "embed_section": 8 + 2,
        "build_fold": 8 + 2,
        "train_method": (8 + 2) * 10 * 2,
        "infer_scores": (8 + 2) * 10,
    },
    "small_sample": {
        "embed_section": 8 + 2,
        "build_fold": 3 * (2 + 1),
        "train_method": 3 * (2 + 1) * 2,
        "infer_scores": 3 * (2 + 1),
    },
    "sthbc": {  # eight sections, one left out; normal are spots of the others, so that nothing is shared between folds
        "crop_section": 8,
        "embed_section": 8,
        "crop_embedding": 8,
        "cut_patches": 2 * (8 + 8) + 8,
        "list_patches": 2 * 8,
        "cut_superpixels": 8 + 8,
        "build_fold": 8 * 2,
        "build_crop": 8 * 2,
        "build_target": 8 + 8,
        "pretrain_method": 2 * 8 * 2,
        "train_method": 8 * SPACRD_TABLE["train"],
        "infer_scores": 8 * (SPACRD_TABLE["infer"] + ON_CROP),
    },
}
