"""Training and target sections of folds, and the content of their tables."""

import tracemalloc

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from ctrflow import storage
from ctrflow.errors import InputError
from ctrflow.folds import fold, tables

SHEET = pd.DataFrame(
    {
        "section": ["A1", "A2", "B1", "C1", "N1", "U1"],
        "patient": ["A", "A", "B", "C", "N", "U"],
        "cohort": ["train"] * 4 + ["normal", "mine"],
        "labels": ["x", "x", "x", "x", "", ""],
        "platform": ["st"] * 6,
    }
)


def make(**task):
    return fold.make_folds({"name": "t", **task}, SHEET, "study.yaml")


def test_leave_one_patient_out():
    found = make(split="leave_one_patient_out", source='cohort == "train"', normal='cohort == "normal"')
    assert [(fold.name, fold.sources, fold.targets) for fold in found] == [
        ("A", ("B1", "C1"), ("A1", "A2")),
        ("B", ("A1", "A2", "C1"), ("B1",)),
        ("C", ("A1", "A2", "B1"), ("C1",)),
    ]
    assert {fold.normals for fold in found} == {("N1",)}


def test_leave_one_section_out_never_trains_on_the_same_patient():
    found = {fold.name: fold for fold in make(split="leave_one_section_out", source='cohort == "train"')}
    assert list(found) == ["A1", "A2", "B1", "C1"]
    assert found["A1"].sources == ("B1", "C1")


def test_transfer_uses_all_sources_for_each_target():
    found = make(split="transfer", source='cohort == "train"', target='section in ["U1", "N1"]')
    assert [(fold.name, fold.targets) for fold in found] == [("N1", ("N1",)), ("U1", ("U1",))]
    assert all(fold.sources == ("A1", "A2", "B1", "C1") for fold in found)


def test_source_negatives_are_the_sources_of_each_fold():
    found = {
        fold.name: fold
        for fold in make(split="leave_one_patient_out", source='cohort == "train"', normal="source_negatives")
    }
    assert found["A"].normals == found["A"].sources == ("B1", "C1")
    assert found["A"].negatives
    assert found["A"].learned("normal") == ("B1", "C1")
    whole = fold.whole_fold(
        {"name": "t", "split": "transfer", "source": 'cohort == "train"', "normal": "source_negatives"}, SHEET
    )
    assert whole.normals == ("A1", "A2", "B1", "C1")


def test_a_transfer_from_healthy_sections_needs_no_source():
    task = {"split": "transfer", "normal": 'cohort == "normal"', "target": 'cohort == "train"'}
    found = make(**task)
    assert [(fold.name, fold.sources, fold.normals) for fold in found] == [
        (name, (), ("N1",)) for name in ("A1", "A2", "B1", "C1")
    ]
    assert (found[0].learned("normal"), found[0].learned("labelled"), found[0].learned("alone")) == (("N1",), (), ())
    with pytest.raises(InputError, match="no normal section left for N1: all are of the same patient"):
        make(**task | {"target": 'section == "N1"'})


def test_the_full_fold_of_a_task_has_every_source_and_no_target():
    task = {"name": "t", "split": "transfer", "source": 'cohort == "train"', "target": 'section == "A1"'}
    whole = fold.whole_fold(task | {"normal": "section == 'N1'"}, SHEET)
    # the fold itself leaves out patient A, who is its target
    assert make(**task)[0].sources == ("B1", "C1")
    assert whole == fold.Fold("", ("A1", "A2", "B1", "C1"), (), ("N1",))


def test_pretrained_has_no_sources():
    assert make(split="pretrained", target='cohort == "mine"') == [fold.Fold("U1", (), ("U1",))]


@pytest.mark.parametrize(
    ("task", "word"),
    [
        ({"split": "transfer", "source": 'cohort == "nobody"', "target": "normal"}, "selects no section"),
        ({"split": "transfer", "source": "cohort = 3"}, "not a query"),
        ({"split": "transfer", "source": 'colour == "red"'}, "not a query.*columns: section"),
        ({"split": "transfer", "source": 'cohort == "mine"', "target": 'section == "A1"'}, "without labels: U1"),
        ({"split": "transfer", "source": 'cohort == "train"'}, "needs a `target`"),
        ({"split": "leave_one_patient_out"}, "needs a `source`"),
        ({"split": "leave_one_patient_out", "source": 'patient == "A"'}, "no section left to train on"),
    ],
)
def test_bad_tasks_are_named(task, word):
    with pytest.raises(InputError, match=f"study.yaml: task t.*{word}"):
        make(**task)


def section(names, spots, seed, genes=60):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(1, 3, genes), (spots, genes))[:, : len(names)]
    return ad.AnnData(
        sparse.csr_matrix(counts.astype(np.float32)),
        obs=pd.DataFrame(index=[f"s{i}" for i in range(spots)]),
        var=pd.DataFrame(index=names),
        obsm={"spatial": rng.uniform(0, 100, (spots, 2))},
    )


@pytest.fixture
def parts():
    names = [f"g{i:02d}" for i in range(60)]
    spots = {"A1": section(names, 30, 0), "B1": section(names[5:], 25, 1)}
    target = {"C1": section(names[:50], 20, 2)}
    labels = {
        name: pd.DataFrame({"spot": adata.obs_names[::-1], "label": ([1, 0] * 20)[: adata.n_obs], "region": ""})
        for name, adata in spots.items()
    }
    images = {
        name: ad.AnnData(
            np.full((adata.n_obs, 4), i, dtype=np.float32),
            obs=adata.obs.copy(),
            uns={"encoder": {"id": "enc", "digest": "abc", "patch_px": 224, "patch_um": [55.0 if i else 100.0]}},
        )
        for i, (name, adata) in enumerate({**spots, **target}.items())
    }
    return spots, target, labels, images


def joined(train):
    """Training sections as one table of raw counts."""
    return tables.together(train.values())


def built(train, target, *given, **ranking):
    """Both tables of a fold, stacked."""
    return tuple(map(tables.together, tables.build_views(train, target, *given, **ranking)))


def test_views_share_genes_and_the_target_has_no_label(parts):
    spots, target, labels, images = parts
    train, goal = built(
        tables.train_view(spots, {k: images[k] for k in spots}, labels),
        tables.target_view(target, {"C1": images["C1"]}),
        n_genes=20,
    )
    assert list(train.var_names) == list(goal.var_names) == sorted(train.var_names)
    assert set(train.var_names) <= {f"g{i:02d}" for i in range(5, 50)}
    assert "label" not in goal.obs
    assert (goal.obsm["image"] == 2).all()
    assert goal.obs_names[0] == "C1/s0"
    # labels are joined by spot, not by row: they were given in reverse order
    assert train.obs.loc["A1/s29", "label"] == 1
    assert train.obs.loc["A1/s28", "label"] == 0
    # counts of a gene reach the view unchanged
    gene = train.var_names[3]
    expected = np.concatenate([spots[name][:, gene].X.toarray().ravel() for name in spots])
    assert (train[:, gene].layers["counts"].toarray().ravel() == expected).all()


def test_a_training_section_without_a_picture_has_no_image_features(parts):
    spots, _, labels, images = parts
    train = joined(tables.train_view(spots, {"A1": images["A1"]}, labels))
    pictured = (train.obs["section"] == "A1").to_numpy()
    assert np.isfinite(train.obsm["image"][pictured]).all()
    assert np.isnan(train.obsm["image"][~pictured]).all()
    assert train.obsm["image"].shape == (55, 4)


def test_negatives_exclude_cancer_unknown_spots_and_labels(parts):
    spots, _, labels, images = parts
    labels["A1"].loc[labels["A1"].spot == "s28", "label"] = np.nan
    found = joined(tables.negatives(tables.train_view(spots, {k: images[k] for k in spots}, labels)))
    assert "label" not in found.obs
    expected = [f"{name}/{spot}" for name in spots for spot, label in zip(
        labels[name].spot[::-1], labels[name].label[::-1], strict=True) if label == 0]  # fmt: skip
    assert list(found.obs_names) == expected
    assert "A1/s28" not in expected
    assert found.n_obs < spots["A1"].n_obs + spots["B1"].n_obs


def test_patches_follow_the_spots_of_a_view(parts):
    spots, *_ = parts
    view = joined(tables.train_view(spots, {}, {}))[::2].copy()
    patches = {
        name: (
            list(table.obs_names[::-1]),
            np.full((table.n_obs, 2, 2, 3), i, np.uint8) + np.arange(table.n_obs, dtype=np.uint8)[:, None, None, None],
        )
        for i, (name, table) in zip((0, 100), spots.items(), strict=True)
    }
    found = tables.with_patches(view, patches).obsm["patches"]
    assert found.shape == (view.n_obs, 2, 2, 3)
    # A1 has 30 spots and B1 25, and their patches lie in reverse order
    assert found[view.obs_names.get_loc("A1/s4"), 0, 0, 0] == 25
    assert found[view.obs_names.get_loc("B1/s4") if "B1/s4" in view.obs_names else -1, 1, 1, 2] >= 100
    patches["A1"] = (patches["A1"][0][:-1], patches["A1"][1][:-1])
    with pytest.raises(InputError, match="section A1: patches and spots do not list the same spots"):
        tables.with_patches(view, patches)


def test_the_target_does_not_choose_genes(parts):
    spots, target, labels, _ = parts
    first, _ = built(tables.train_view(spots, {}, labels), tables.target_view(target, {}), 20)
    target["C1"].X = sparse.csr_matrix(np.random.default_rng(9).poisson(50, target["C1"].shape).astype(np.float32))
    second, _ = built(tables.train_view(spots, {}, labels), tables.target_view(target, {}), 20)
    assert list(first.var_names) == list(second.var_names)


def test_ranking_options_are_passed_on(parts):
    spots, target, labels, _ = parts

    def build(train, **ranking):
        view = tables.train_view(train, {}, {name: labels[name] for name in train})
        return built(view, tables.target_view(target, {}), 20, **ranking)[0]

    usual, first, log = build(spots), build(spots, hvg_scope="first"), build(spots, hvg_input="log")
    # of the genes that all three sections measure, those that A1 would choose alone
    shared = {"A1": spots["A1"][:, spots["B1"].var_names].copy()}
    assert list(first.var_names) == list(build(shared).var_names)
    assert list(first.obs["section"].unique()) == ["A1", "B1"]  # B1 is trained on all the same
    chosen = {tuple(view.var_names) for view in (usual, first, log)}
    assert len(chosen) == 3
    # what a method sees of a gene is the same whatever ranked it
    gene = sorted(set(usual.var_names) & set(log.var_names))[0]
    assert (usual[:, gene].X != log[:, gene].X).nnz == 0


def test_a_table_without_a_target_ranks_all_genes_of_its_sections(parts):
    spots, target, labels, _ = parts
    table = tables.together(tables.build_train(tables.train_view(spots, {}, labels), 52))
    # g00 to g04 are not measured in B1; g50 to g54 would be lost to the target C1
    assert list(table.uns["library_genes"]) == [f"g{i:02d}" for i in range(5, 60)]
    assert {"g50", "g52"} & set(table.var_names)
    paired, _ = built(tables.train_view(spots, {}, labels), tables.target_view(target, {}), 52)
    assert list(paired.uns["library_genes"]) == [f"g{i:02d}" for i in range(5, 50)]
    counts = spots["B1"][:, table.uns["library_genes"]].X.toarray()[3]
    gene = list(table.var_names).index("g20")
    expected = np.log1p(1e4 * counts[15] / counts.sum())
    assert table[table.obs_names == "B1/s3"].X.toarray()[0, gene] == pytest.approx(expected, rel=1e-6)


def test_the_encoder_of_the_image_features_is_kept(parts):
    spots, target, labels, images = parts
    view = tables.train_view(spots, {name: images[name] for name in spots}, labels)
    for table in (joined(view), tables.together(tables.build_train(view, 20))):
        found = table.uns["encoder"]
        assert (found["digest"], found["patch_px"]) == ("abc", 224)
        assert found["patch_um"].tolist() == [[55.0], [100.0]]
    assert "encoder" not in tables.target_view(target, {}).uns
    images["B1"].uns["encoder"]["digest"] = "xyz"
    with pytest.raises(InputError, match="sections A1 and B1: embedded by encoder enc with different weights or code"):
        tables.train_view(spots, {name: images[name] for name in spots}, labels)


def test_one_class_only_is_rejected(parts):
    spots, _, labels, _ = parts
    with pytest.raises(InputError, match="training sections A1, B1: only cancer spots"):
        tables.train_view(spots, {}, {name: table.assign(label=1) for name, table in labels.items()})


def test_a_gene_the_target_lacks_is_zero_for_a_given_model(parts):
    _, target, _, _ = parts
    view = tables.with_genes(tables.target_view(target, {}), ["g01", "ABSENT", "g00"])
    assert list(view.var_names) == ["g01", "ABSENT", "g00"]
    assert view[:, "ABSENT"].X.sum() == 0
    assert (view[:, "g00"].layers["counts"].toarray() == target["C1"][:, "g00"].X.toarray()).all()
    with pytest.raises(InputError, match="measure none of the model's genes"):
        tables.measured(tables.target_view(target, {}), ["ABSENT"])


def test_a_given_model_sees_its_target_as_in_the_fold_it_was_trained_in(parts):
    spots, target, labels, _ = parts
    train, first = built(tables.train_view(spots, {}, labels), tables.target_view(target, {}), 20)
    # the same section again, now with all the genes it measures
    view = tables.measured(tables.target_view(target, {}), list(train.uns["library_genes"]))
    again = tables.with_genes(view, list(train.var_names))
    assert view.n_vars < target["C1"].n_vars
    assert (again.X != first.X).nnz == 0


def test_sections_left_in_their_files_give_the_same_tables(parts, tmp_path, monkeypatch):
    """One at a time, and in pieces of 8 spots."""
    spots, target, labels, images = parts
    expected = built(
        tables.train_view(spots, {name: images[name] for name in spots}, labels),
        tables.target_view(target, {"C1": images["C1"]}),
        20,
    )
    monkeypatch.setattr(tables, "AT_ONCE", 8)
    for kind, kept in (("spots", spots | target), ("images", images)):
        for name, table in kept.items():
            storage.write_h5ad(table, tmp_path / f"{name}.{kind}.h5ad")

    def read(names, kind):
        return {name: storage.read_h5ad(tmp_path / f"{name}.{kind}.h5ad", with_x=False) for name in names}

    train = tables.train_view(read(spots, "spots"), read(spots, "images"), labels)
    goal = tables.target_view(read(target, "spots"), read(target, "images"))
    for pieces, reference in zip(tables.build_views(train, goal, 20), expected, strict=True):
        pieces = list(pieces)
        assert max(piece.n_obs for piece in pieces) == 8
        found = tables.together(pieces)
        assert found.obs.equals(reference.obs)
        assert list(found.var_names) == list(reference.var_names)
        for one, other in ((found.X, reference.X), (found.layers["counts"], reference.layers["counts"])):
            assert (one.data == other.data).all()
            assert (one.indices == other.indices).all()
        assert (found.obsm["image"] == reference.obsm["image"]).all()


def test_building_a_table_needs_memory_for_a_section_not_the_cohort(parts, tmp_path):
    """Peak memory with sixteen sections against four: an additional section only adds its obs."""
    names = [f"g{i:04d}" for i in range(1200)]
    table = section(names, 300, 0, genes=1200)
    storage.write_h5ad(table, tmp_path / "s.h5ad")
    stored = table.X.data.nbytes + table.X.indices.nbytes

    def peak(count):
        sections = {f"S{i:02d}": storage.read_h5ad(tmp_path / "s.h5ad", with_x=False) for i in range(count)}
        tracemalloc.start()
        pieces = tables.build_train(tables.train_view(sections, {}, {}), 100)
        storage.write_h5ad_pieces(pieces, tmp_path / "train.h5ad")
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(2)  # imports
    small, large = peak(4), peak(16)
    assert (large - small) / 12 < 0.5 * stored
    assert storage.read_h5ad(tmp_path / "train.h5ad").n_obs == 16 * 300
