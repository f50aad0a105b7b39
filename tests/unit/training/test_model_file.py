"""A given model and the sections to score with it."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow import methods, storage
from ctrflow.errors import InputError
from ctrflow.folds import tables
from ctrflow.folds.genes import log_normalise
from ctrflow.training import model_file

GENES = [f"GENE{i}" for i in range(10)]
METADATA = {
    "least_genes": 0, "modalities": ["gene"], "encoder": "none", "gate": {}, "picture": [], "calibration": {},
    "genes": GENES[:4], "library_genes": GENES[:8], "sections": ["A1", "B1"], "patients": ["A", "B"],
}  # fmt: skip
SEES = METADATA | {
    "modalities": ["image", "gene"], "encoder": "enc", "encoder_digest": "a" * 64, "patch_px": 224,
    "patch_um": [[100.0]],
}  # fmt: skip


def view(genes, encoder=None, counts=None):
    """A target table of two spots; gene i has i + 1 counts in the first and 1 in the second."""
    counts = np.array([np.arange(len(genes)) + 1, np.ones(len(genes))]) if counts is None else counts
    spots = ad.AnnData(
        sparse.csr_matrix(counts, dtype=np.float32),
        obs=pd.DataFrame(index=["s0", "s1"]),
        var=pd.DataFrame(index=genes),
        obsm={"spatial": np.zeros((2, 2))},
    )
    images = {}
    if encoder:
        images["T"] = ad.AnnData(np.ones((2, 3), np.float32), obs=spots.obs.copy(), uns={"encoder": encoder})
    return tables.target_view({"T": spots}, images)


def test_counts_are_scaled_over_the_measured_library_genes():
    # GENE2 is a gene of the model, GENE6 of its library alone; GENE9 and OTHER are none of its business
    table = model_file.target_table(view(["GENE0", "GENE6", "GENE1", "OTHER", "GENE9", "GENE3"]), METADATA, "m")
    assert list(table.var_names) == GENES[:4]
    # counts of the first spot in sorted order: GENE0 1, GENE1 3, GENE3 6, GENE6 2: 12 together
    expected = np.log1p(1e4 * np.array([1, 3, 0, 6]) / 12)
    assert table.X.toarray()[0] == pytest.approx(expected, rel=1e-6)
    assert table.layers["counts"].toarray()[0].tolist() == [1, 3, 0, 6]
    facts = table.uns["model"]
    assert (facts["path"], facts["section"], facts["genes"], facts["measured"]) == ("m", "T", 4, 3)
    assert list(facts["sections"]) == ["A1", "B1"]


def test_facts_about_a_given_model_survive_the_file(tmp_path):
    table = model_file.target_table(view(GENES[:3]), METADATA, "m")
    storage.write_h5ad(table, tmp_path / "target.h5ad")
    facts = storage.read_h5ad(tmp_path / "target.h5ad", with_x=False).uns["model"]
    assert model_file.sentences([facts]) == (
        "It was trained on A1, B1. Of its 4 genes T measures 3 (75 %). What is not measured counts as unexpressed."
    )


@pytest.mark.parametrize(("measured", "least", "taken"), [(2, 0.5, True), (1, 0.5, False), (1, 0.25, True)])
def test_the_least_share_of_genes(measured, least, taken):
    if taken:
        table = model_file.target_table(view(GENES[:measured]), METADATA, "m", least)
        assert table.uns["model"]["measured"] == measured
        return
    with pytest.raises(InputError) as error:
        model_file.target_table(view(GENES[:measured]), METADATA, "m.safetensors", least)
    assert str(error.value) == (
        "m.safetensors: section T measures 1 of the model's 4 genes (25 %), but min_gene_share is 50 %; missing: "
        "GENE1, GENE2, GENE3; train a model on the genes that both measure (split `transfer`), or lower min_gene_share "
        "of the task"
    )


def test_a_section_with_none_of_the_genes_is_always_rejected():
    with pytest.raises(InputError, match="measures 0 of the model's 4 genes"):
        model_file.target_table(view(["OTHER"]), METADATA, "m", 0.0)


@pytest.mark.parametrize(
    ("names", "word"),
    [
        ([f"ENSG0000000000{i}" for i in range(4)], "the model has gene symbols .* the section Ensembl ids"),
        ([f"ENSMUSG0000000000{i}.2" for i in range(4)], ".* the section Ensembl ids"),
        (["1", "22", "333", "4444"], ".* the section Entrez numbers"),
        ([f"Gene{i}" for i in range(4)], "names differ in upper and lower case, as between species"),
        (["ALPHA", "BETA", "GAMMA", "DELTA"], "train a model on the genes that both measure"),
    ],
)
def test_names_of_another_kind_are_reported(names, word):
    with pytest.raises(InputError, match=f"measures 0 of the model's 4 genes .*; {word}"):
        model_file.target_table(view(names), METADATA, "m")


def test_ensembl_versions_are_reported():
    ids = [f"ENSG0000000000{i}" for i in range(4)]
    with pytest.raises(InputError, match="names differ in their version number"):
        model_file.target_table(
            view([f"{name}.7" for name in ids]), METADATA | {"genes": ids, "library_genes": ids}, "m"
        )


HUMAN = pd.DataFrame(
    {"ensembl": [f"ENSG{i:011d}" for i in range(10)], "gene": [*GENES[:9], "NEW9"], "other": [""] * 9 + ["GENE9"]}
)


@pytest.mark.parametrize("version", ["", ".7"])
def test_symbols_and_ensembl_ids_give_the_same_table(version):
    """Of the model's genes GENE2 is not measured; GENE9 has another symbol today; OTHER has no symbol."""
    metadata = METADATA | {"genes": [GENES[i] for i in (0, 1, 2, 9)], "library_genes": GENES}
    counts = np.random.default_rng(0).poisson(3, (2, 6))
    measured = [9, 3, 0, 1, 5]
    ids = [*(f"ENSG{i:011d}{version}" for i in measured), f"ENSG00000000077{version}"]
    named = model_file.target_table(view([*(GENES[i] for i in measured), "OTHER"], counts=counts), metadata, "m")
    by_id = model_file.target_table(view(ids, counts=counts), metadata, "m", human=HUMAN)
    assert named.X.nnz
    assert by_id.var_names.equals(named.var_names)
    assert by_id.X.toarray().tobytes() == named.X.toarray().tobytes()
    assert by_id.layers["counts"].toarray().tolist() == named.layers["counts"].toarray().tolist()
    assert by_id.uns["model"]["measured"] == named.uns["model"]["measured"] == 3


def test_symbols_are_translated_for_a_model_of_ensembl_ids():
    ids = list(HUMAN["ensembl"])
    metadata = METADATA | {"genes": ids[:4], "library_genes": ids[:8]}
    table = model_file.target_table(view(GENES[:6]), metadata, "m", human=HUMAN)
    named = model_file.target_table(view(GENES[:6]), METADATA, "m")
    assert list(table.var_names) == ids[:4]
    assert table.X.toarray().tobytes() == named.X.toarray().tobytes()


@pytest.mark.parametrize("species", ["MUS", "RNO"])
def test_ids_of_another_species_are_refused_as_before(species):
    names = [f"ENS{species}G{i:011d}" for i in range(10)]
    with pytest.raises(InputError, match=r"measures 0 of the model's 4 genes .* the section Ensembl ids"):
        model_file.target_table(view(names), METADATA, "m", human=HUMAN)


def test_the_share_of_genes_is_counted_after_the_translation():
    with pytest.raises(InputError, match=r"measures 1 of the model's 4 genes .25 %.*missing: GENE1, GENE2, GENE3"):
        model_file.target_table(view(["ENSG00000000000.1", "ENSG00000000077.1"]), METADATA, "m", human=HUMAN)


ENCODER = {"id": "enc", "digest": "a" * 64, "patch_px": 224, "patch_um": [100.0]}


def test_the_same_encoder_is_accepted_also_with_wider_spots():
    for encoder in (ENCODER, ENCODER | {"patch_um": [55.0]}):
        table = model_file.target_table(view(GENES, encoder), SEES, "m")
        assert table.obsm["image"].shape == (2, 3)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"digest": "b" * 64}, "digest a{12}, but those of section T have b{12}:"),
        ({"patch_px": 64}, "patch_px 224, .* 64"),
    ],
)
def test_another_encoder_is_rejected(changed, word):
    with pytest.raises(InputError, match=f"m: was trained on image features of encoder enc with {word}"):
        model_file.target_table(view(GENES, ENCODER | changed), SEES, "m")


def test_a_model_of_the_image_only_needs_no_genes():
    table = model_file.target_table(view(["OTHER"], ENCODER), SEES | {"modalities": ["image"]}, "m")
    assert table.X.shape == (2, 4)
    assert model_file.sentences([table.uns["model"]]) == "It was trained on A1, B1."
    # and one of the genes alone for no encoder
    other = view(GENES, ENCODER | {"digest": "b"})
    assert model_file.target_table(other, SEES | {"modalities": ["gene"]}, "m").n_obs == 2


def test_linear_needs_a_number_of_genes_not_a_share():
    many = [f"g{i}" for i in range(1000)]
    linear = METADATA | {"least_genes": 60, "genes": many, "library_genes": many}
    assert model_file.least_gene_share(linear) == 0.06
    assert model_file.least_gene_share(linear | {"genes": many[:70]}) == 0.5
    assert model_file.least_gene_share(METADATA) == 0.5
    table = model_file.target_table(view(many[:60]), linear, "m")
    assert table.uns["model"]["unmeasured"] == "has no effect on the scores"
    with pytest.raises(InputError, match=r"measures 59 of the model's 1,000 genes \(5.9 %\)"):
        model_file.target_table(view(many[:59]), linear, "m")
    with pytest.raises(InputError, match="min_gene_share is 50 %"):
        model_file.target_table(view(many[:60]), linear, "m", 0.5)


def test_names_that_differ_are_not_a_small_panel():
    """Names in another case, 100 of which happen to be the same: the section measures all genes."""
    many = [f"GENE{i}" for i in range(900)] + [f"G{i}" for i in range(100)]
    linear = METADATA | {"least_genes": 60, "genes": many, "library_genes": many}
    with pytest.raises(
        InputError, match=r"measures 100 of the model's 1,000 genes .* upper and lower case, as between"
    ):
        model_file.target_table(view([name.capitalize() for name in many]), linear, "m")
    assert model_file.target_table(view(many[-100:]), linear, "m").uns["model"]["measured"] == 100


def trained_on(*means):
    """A training table of one patient for each row of mean counts, 20 spots each."""
    rng = np.random.default_rng(0)
    counts = np.vstack([rng.poisson(mean, (20, len(mean))) for mean in means]).astype(np.float32)
    patients = np.repeat([f"p{i}" for i in range(len(means))], 20)
    obs = pd.DataFrame({"section": patients, "patient": patients, "total_counts": counts.sum(axis=1)})
    names = [f"g{i}" for i in range(counts.shape[1])]
    return ad.AnnData(log_normalise(counts), obs=obs.set_index(obs.index.astype(str)), var=pd.DataFrame(index=names))


def test_a_section_is_compared_with_what_the_model_learned_from():
    rng = np.random.default_rng(1)
    usual = rng.gamma(1, 5, 80) + 0.5
    train = trained_on(usual, usual * rng.uniform(0.7, 1.4, 80), usual * rng.uniform(0.7, 1.4, 80))
    train.uns["library_genes"] = np.array(train.var_names)
    metadata = METADATA | model_file.training(train)
    assert len(metadata["likeness"]) == 3
    assert min(metadata["likeness"]) > 0.9
    profile = model_file.profile(train)[model_file.PROFILE]
    means = [train.X[rows : rows + 20].toarray().mean(0) for rows in (0, 20, 40)]
    assert profile == pytest.approx(np.mean(means, 0, keepdims=True))

    def section(mean, names):
        return ad.AnnData(sparse.csr_matrix(rng.poisson(mean, (30, len(names)))), var=pd.DataFrame(index=names))

    like = model_file.likeness(section(usual, train.var_names), metadata, profile)
    assert (like.genes, like.measured, like.concerns) == (80, 80, [])
    half = model_file.likeness(section(usual[::2], train.var_names[::2]), metadata, profile)
    assert half.measured == 40
    assert half.correlation > 0.9
    shuffled = model_file.likeness(section(rng.permutation(usual), train.var_names), metadata, profile)
    assert len(shuffled.concerns) == 1
    assert "another tissue or platform" in shuffled.concerns[0]
    shallow = model_file.likeness(section(usual / 10, train.var_names), metadata, profile)
    assert any("counts, those of the training sections" in text for text in shallow.concerns)


def test_cancer_and_other_spots_have_profiles_of_their_own():
    """A section without tumour is compared with the other spots, not with a mean that is mostly tumour."""
    rng = np.random.default_rng(2)
    tumour, rest = rng.gamma(1, 5, 80) + 0.5, rng.gamma(1, 5, 80) + 0.5
    counts = np.vstack([rng.poisson(mean, (120, 80)) for _ in range(2) for mean in (tumour, rest)]).astype(np.float32)
    patients, labels = np.repeat(["P", "Q"], 240), np.tile(np.repeat([1.0, 0.0], 120), 2)
    obs = pd.DataFrame({"section": patients, "patient": patients, "label": labels, "total_counts": counts.sum(axis=1)})
    names = [f"g{i}" for i in range(80)]
    train = ad.AnnData(log_normalise(counts), obs=obs.set_index(obs.index.astype(str)), var=pd.DataFrame(index=names))
    train.uns["library_genes"] = np.array(names)
    metadata, profile = METADATA | model_file.training(train), model_file.profile(train)[model_file.PROFILE]
    assert profile.shape == (2, 80)
    assert profile[1] == pytest.approx(train.X[labels == 0].toarray().mean(axis=0), abs=1e-5)
    assert len(metadata["likeness"]) == 4  # two sections and their crops of 120 spots
    free = ad.AnnData(sparse.csr_matrix(rng.poisson(rest, (150, 80))), var=pd.DataFrame(index=names))
    found = model_file.likeness(free, metadata, profile)
    assert found.correlation > 0.95
    assert found.concerns == []


def beside(genes: int = 3) -> dict:
    level = {f"level.{name}": np.ones(genes, np.float32) for name in ("weights", "mean", "sd")}
    return level | {"level.intercept": np.zeros(1), model_file.PROFILE: np.ones((2, genes))}


def test_level_and_profile_fit_the_genes():
    metadata = METADATA | {"genes": ["A", "B", "C"]}
    model_file.require_beside("m", beside(), metadata)
    model_file.require_beside("m", {"weights": np.array([np.nan])}, metadata)  # its method's own: checked elsewhere


@pytest.mark.parametrize(
    "changed",
    [
        {"level.weights": np.ones(2)}, {"level.mean": np.array([1, 2, np.nan])}, {"level.sd": np.zeros(3)},
        {"level.intercept": np.ones(2)}, {model_file.PROFILE: np.ones((2, 4))},
        {model_file.PROFILE: np.ones((1, 2, 3))}, {model_file.PROFILE: np.full((1, 3), np.inf)},
        {"profile.image_mean": np.array([np.nan])},
    ],
)  # fmt: skip
def test_a_level_that_cannot_be_right_is_refused(changed):
    with pytest.raises(InputError, match="do not fit its 3 genes"):
        model_file.require_beside("m", beside() | changed, METADATA | {"genes": ["A", "B", "C"]})


def test_a_level_is_whole_or_not_there():
    lacking = beside()
    del lacking["level.sd"]
    with pytest.raises(InputError, match=r"level\.sd do not fit"):
        model_file.require_beside("m", lacking, METADATA | {"genes": ["A", "B", "C"]})


def test_the_sentence_of_several_sections():
    full = {"path": "m", "sections": np.array(["A1"]), "genes": 1200, "measured": 1200}
    full["unmeasured"] = "counts as unexpressed"
    lines = [full | {"section": "T1"}, full | {"section": "T2", "measured": 900}]
    few = [line | {"measured": 600} for line in lines]
    assert model_file.sentences(lines[:1]) == (
        "It was trained on A1. All its 1,200 genes are measured in each section scored."
    )
    assert model_file.sentences(lines) == (
        "It was trained on A1. Of its 1,200 genes T2 measures 900 (75 %), the others all. "
        "What is not measured counts as unexpressed."
    )
    assert "T1 measures 600 (50 %), T2 measures 600 (50 %). What" in model_file.sentences(few)


def test_equivalent_settings_are_equal():
    one = model_file.encoder_settings({"model": "uni", "weights": "hub", "patch_um": 100})
    two = model_file.encoder_settings({"model": "uni", "weights": "x.bin", "patch_um": [100.0], "precision": "bf16"})
    assert one == two
    assert one != model_file.encoder_settings({"model": "uni", "channel_order": "bgr", "patch_um": 100})
    assert one != model_file.encoder_settings({"model": "uni"})


@pytest.mark.parametrize("panel", [1.0, 0.6])
def test_a_model_file_gives_the_scores_of_the_model(panel, tmp_path):
    """Written, read and applied to a section that measures all or 300 of the model's 500 genes."""
    rng = np.random.default_rng(0)
    names = [f"g{i:03d}" for i in range(500)]
    rate = np.vstack([rng.gamma(1, 2, 500) + 0.5] * 2)
    rate[1, :40] *= 3  # cancer
    sections = {}
    for name in ("A1", "B1", "T"):
        label = rng.permutation(np.repeat([0, 1], 30))
        counts = rng.poisson(rate[label])
        # neighbours are alike: classes lie in rows of their own
        place = np.column_stack([np.arange(60) % 30, label * 50.0])
        obs = pd.DataFrame(index=[f"s{i}" for i in range(60)])
        spots = ad.AnnData(sparse.csr_matrix(counts, dtype=np.float32), obs=obs, var=pd.DataFrame(index=names))
        spots.obsm["spatial"] = place
        table = pd.DataFrame({"spot": spots.obs_names, "label": label, "region": ""})
        sections[name] = spots, table
    sources, labels = ({n: sections[n][i] for n in ("A1", "B1")} for i in (0, 1))
    train = tables.together(tables.build_train(tables.train_view(sources, {}, labels), 500))
    linear = methods.load("linear")
    options = methods.resolve_options(linear.SPEC, {"modalities": ["gene"]})
    model = linear.Model.fit(train, options, 1)
    metadata = {"least_genes": 60, "options": options, "modalities": ["gene"]} | model_file.training(train)
    storage.write_safetensors(model.tensors(), metadata, tmp_path / "m.safetensors")

    tensors, metadata = storage.read_safetensors(tmp_path / "m.safetensors")
    target, truth = sections["T"]
    kept = sorted(rng.choice(500, int(500 * panel), replace=False))
    raw = tables.target_view({"T": target[:, kept].copy()}, {})
    table = model_file.target_table(raw, metadata, "m.safetensors")
    assert table.uns["model"]["measured"] == 500 * panel
    found = linear.Model.from_tensors(tensors, metadata["options"], 1).score(table)
    # the same by hand: counts scaled over what is measured, the rest zero
    dense = target.X.toarray()[:, kept]
    by_hand = np.zeros((60, 500))
    by_hand[:, kept] = np.log1p(1e4 * dense / dense.sum(axis=1, keepdims=True))
    view = ad.AnnData(sparse.csr_matrix(by_hand), obs=table.obs.copy(), obsm={"spatial": target.obsm["spatial"]})
    assert found == pytest.approx(model.score(view), abs=1e-6)
    cancer = truth.label.to_numpy() == 1
    assert found[cancer].min() > found[~cancer].max()
