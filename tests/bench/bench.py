"""Figures of the steps that cost most: times, peak memory, ratios and growth, on this machine.

    make bench                          everything, some thirty minutes on two cores
    python tests/bench/bench.py NAME    one of them: aggregate, patches, jpeg, vit, growth, visium_hd, spacrd, meatrd,
                                        report, graph, data, demo

Every measurement runs in a process of its own; memory is the peak of its resident set. Nothing here passes or fails.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2] / "scripts"), str(Path(__file__).parents[1])]

UM_PER_PX = 0.25
SPOT_UM = 100.0
TILE_PX = 512
LITE0 = {"model": "efficientnet_lite0", "weights": "random", "patch_um": SPOT_UM, "device": "cpu"}


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all."""
    print(f"{peak_gflops():.0f} GFLOP/s: float32 product of two 2048 x 2048 matrices, one thread\n")
    with tempfile.TemporaryDirectory() as folder:
        for name in names or BENCHMARKS:
            print(f"# {name}", flush=True)
            BENCHMARKS[name](Path(folder))
            print(flush=True)


def peak_gflops() -> float:
    """The best of five products."""
    import torch

    torch.set_num_threads(1)
    a = torch.rand(2048, 2048)
    seconds = min(timed(lambda: a @ a)[0] for _ in range(5))
    return 2 * 2048**3 / seconds / 1e9


def timed(step: Callable) -> tuple[float, object]:
    """Seconds and result."""
    start = time.perf_counter()
    result = step()
    return time.perf_counter() - start, result


def child(measurement: Callable, *arguments) -> dict:
    """What a measurement returns, run in a process of its own; and `rss_mb`, the peak of that process."""
    command = [sys.executable, __file__, "--child", measurement.__name__, json.dumps([str(one) for one in arguments])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# --- aggregate -------------------------------------------------------------------------------------------------------


def aggregate(folder: Path) -> None:
    """1,000,000 cells x 500 genes, 5 % filled, to spots."""
    found = child(measure_aggregate, 1_000_000)
    print(
        f"{found['cells']:,} cells x 500 genes -> {found['spots']:,} spots: {found['seconds']:.1f} s, "
        f"{found['rss_mb']:,} MB peak, of which {found['base_mb']:,} MB before the step; sums exact: {found['exact']}"
    )


def measure_aggregate(n_cells: str) -> dict:
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    from ctrflow.sections.aggregate import aggregate_cells

    rng, n = np.random.default_rng(0), int(n_cells)
    filled = np.sort(np.argsort(rng.random((2000, 500)), axis=1)[:, :25].astype(np.int32))
    indices = filled[rng.integers(0, 2000, n)].ravel()
    counts = rng.integers(1, 5, n * 25).astype(np.float32)
    matrix = sparse.csr_matrix((counts, indices, np.arange(0, n * 25 + 1, 25)), shape=(n, 500))
    side_um = np.sqrt(n / 0.0055)  # 5,500 cells a mm²
    cells = AnnData(
        matrix,
        obs=pd.DataFrame(index=np.arange(n).astype(str)),
        obsm={"spatial_um": rng.uniform(0, side_um, (n, 2))},
        uns={"section": {"section": "bench", "pixel_size": 0.2125, "um_per_px": 0.2125, "spot_um": 55.0}},
    )
    base = rss_mb()
    seconds, spots = timed(lambda: aggregate_cells(cells))
    # each spot anew, without the sparse product: the cells that are nearest to it
    from scipy.spatial import KDTree

    nearest = KDTree(spots.obsm["spatial_um"]).query(cells.obsm["spatial_um"])[1]
    exact = all(
        np.array_equal(
            spots.X[i].toarray()[0],
            np.asarray(matrix[np.flatnonzero(nearest == i)].sum(axis=0))[0],
        )
        for i in rng.integers(0, spots.n_obs, 500)
    )
    return {"cells": n, "spots": spots.n_obs, "seconds": seconds, "base_mb": base, "exact": exact}


# --- patches ---------------------------------------------------------------------------------------------------------


def patches(folder: Path) -> None:
    """4,000 patches from a tiled pyramid of 30,000 x 30,000 px, against the same number already in memory."""
    slide = folder / "slide.tif"
    write_pyramid(slide, 30_000)
    compare_with_memory(slide, 30_000)


def jpeg(folder: Path) -> None:
    """The same from a JPEG of 10,000 x 10,000 px, which has no tiles."""
    slide = folder / "slide.jpg"
    write_jpeg(slide, 10_000)
    compare_with_memory(slide, 10_000)


def compare_with_memory(slide: Path, side_px: int, n_spots: int = 4000) -> None:
    read = child(measure_embedding, slide, side_px, n_spots)
    memory = child(measure_in_memory, 1000)
    share = memory["seconds"] / 1000 * n_spots / read["seconds"]
    print(
        f"{slide.name}, {side_px:,} px wide, {n_spots:,} patches of {SPOT_UM:.0f} µm, efficientnet_lite0: "
        f"{n_spots / read['seconds']:.1f} patches/s read and encoded, {1000 / memory['seconds']:.1f} from memory: "
        f"{100 * share:.0f} %; peak {read['rss_mb']:,} MB, {read['rss_mb'] - memory['rss_mb']:,} MB over the model"
    )


def measure_embedding(slide: str, side_px: str, n_spots: str, options: str = "") -> dict:
    from ctrflow import encoders

    spots = spots_on(slide, int(side_px), int(n_spots))
    seconds, _ = timed(lambda: encoders.embed_section(spots, "bench", json.loads(options or json.dumps(LITE0))))
    return {"seconds": seconds}


def measure_in_memory(n_spots: str) -> dict:
    from ctrflow import encoders

    encoder = encoders.build("bench", LITE0)
    batch = encoder.batch
    squares = np.random.default_rng(0).integers(0, 255, (batch, encoder.patch_px, encoder.patch_px, 3), np.uint8)
    encode = encoder.for_section(lambda: squares)
    encode(squares)
    seconds, _ = timed(lambda: [encode(squares) for _ in range(int(n_spots) // batch)])
    return {"seconds": seconds * int(n_spots) / (batch * (int(n_spots) // batch))}


def spots_on(slide: str, side_px: int, n_spots: int):
    """Spots on a square lattice over the whole slide."""
    import pandas as pd
    from anndata import AnnData

    across = int(np.ceil(np.sqrt(n_spots)))
    column, row = np.meshgrid(np.arange(across), np.arange(across))
    centres = np.column_stack([column.ravel(), row.ravel()])[:n_spots]
    section = {"section": "bench", "um_per_px": UM_PER_PX, "spot_um": SPOT_UM, "image": slide, "image_scale": 1.0}
    return AnnData(
        np.zeros((n_spots, 1), np.float32),
        obs=pd.DataFrame(index=np.arange(n_spots).astype(str)),
        obsm={"spatial": (centres + 0.5) * side_px / across},
        uns={"section": section},
    )


def texture(side_px: int) -> np.ndarray:
    """A stained-looking picture: blobs of many sizes, so that JPEG has something to do."""
    from skimage.filters import gaussian

    rng = np.random.default_rng(0)
    stain = sum(gaussian(rng.normal(size=(side_px, side_px)), sigma) * sigma for sigma in (1, 3, 8, 20))
    stain = (stain - stain.min()) / np.ptp(stain)
    colours = np.array([[245, 235, 240], [120, 60, 150]])
    return (colours[0] + stain[..., None] * (colours[1] - colours[0])).astype(np.uint8)


def write_pyramid(path: Path, side_px: int) -> None:
    """A tiled JPEG pyramid whose levels halve, written tile by tile."""
    import tifffile

    source = texture(2048)
    levels = [side_px // 2**n for n in range(8) if side_px // 2**n >= TILE_PX]
    options = {"tile": (TILE_PX, TILE_PX), "compression": "jpeg", "photometric": "rgb", "dtype": np.uint8}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for n, side in enumerate(levels):
            shape = (side, side, 3)
            below = {"subifds": len(levels) - 1} if n == 0 else {"subfiletype": 1}
            writer.write(tiles(source, side), shape=shape, metadata=None, **below, **options)


def tiles(source: np.ndarray, side_px: int) -> Iterator[np.ndarray]:
    """Windows of the source, each at a place of its own."""
    across = int(np.ceil(side_px / TILE_PX))
    for n in range(across**2):
        top, left = (97 * n) % (len(source) - TILE_PX), (61 * n) % (len(source) - TILE_PX)
        yield source[top : top + TILE_PX, left : left + TILE_PX]


def write_jpeg(path: Path, side_px: int) -> None:
    from PIL import Image

    source = texture(2048)
    repeats = int(np.ceil(side_px / len(source)))
    Image.fromarray(np.tile(source, (repeats, repeats, 1))[:side_px, :side_px]).save(path, quality=85)


# --- a large network -------------------------------------------------------------------------------------------------


def vit(folder: Path) -> None:
    """ViT-L/16, as UNI is built, against a bare forward pass of timm at the same batch."""
    slide = folder / "small.tif"
    write_pyramid(slide, 4096)
    ours, bare = child(measure_vit, slide), child(measure_bare_vit, 32)
    print(
        f"ViT-L/16 (uni, random weights), 32 patches: {ours['seconds']:.1f} s in the embed step, "
        f"{bare['seconds']:.1f} s bare at batches of {bare['batch']}: {ours['seconds'] / bare['seconds']:.2f} x"
    )


def measure_vit(slide: str) -> dict:
    """The step without building the model: 64 patches less 32."""
    options = json.dumps({"model": "uni", "weights": "random", "patch_um": SPOT_UM, "device": "cpu"})
    long = measure_embedding(slide, "4096", "64", options)["seconds"]
    short = measure_embedding(slide, "4096", "32", options)["seconds"]
    return {"seconds": long - short}


def measure_bare_vit(n_spots: str) -> dict:
    import timm
    import torch

    from ctrflow import encoders

    torch.set_num_threads(1)
    model = timm.create_model(
        "vit_large_patch16_224", num_classes=0, init_values=1e-5, dynamic_img_size=True, pretrained=False
    ).eval()
    batch = encoders.build("bench", {"model": "uni", "weights": "random", "device": "cpu"}).batch
    pixels = torch.rand(batch, 3, 224, 224)
    with torch.inference_mode():
        seconds, _ = timed(lambda: [model(pixels) for _ in range(int(n_spots) // batch)])
    return {"seconds": seconds * int(n_spots) / (batch * (int(n_spots) // batch)), "batch": batch}


# --- growth ----------------------------------------------------------------------------------------------------------


def growth(folder: Path) -> None:
    """The embed step for more spots, and for a larger slide."""
    small, large = folder / "small.tif", folder / "large.tif"
    write_pyramid(small, 8192)
    write_pyramid(large, 24_576)
    for n_spots in (500, 1000, 2000):
        for slide, side_px in ((small, 8192), (large, 24_576)):
            found = child(measure_embedding, slide, side_px, n_spots)
            print(
                f"{n_spots:,} spots, slide {side_px:,} px wide: {found['seconds']:.1f} s, "
                f"{1000 * found['seconds'] / n_spots:.1f} ms a spot, {found['rss_mb']:,} MB"
            )


# --- Visium HD -------------------------------------------------------------------------------------------------------


def visium_hd(folder: Path) -> None:
    """Read a section of 8 µm bins: 300,000 bins x 18,000 genes."""
    outs = folder / "outs"
    write_visium_hd(outs, 300_000, 18_000)
    found = child(measure_visium_hd, outs)
    print(
        f"{found['bins']:,} bins x {found['genes']:,} genes, {found['values']:,} counts: {found['seconds']:.1f} s, "
        f"{found['rss_mb']:,} MB peak"
    )


def measure_visium_hd(outs: str) -> dict:
    from ctrflow import readers

    row = {"section": "bench", "platform": "visium_hd", "path": outs, "spot_um": "8"}
    seconds, spots = timed(lambda: readers.read_section(row))
    return {"bins": spots.n_obs, "genes": spots.n_vars, "values": int(spots.X.nnz), "seconds": seconds}


def write_visium_hd(outs: Path, n_bins: int, n_genes: int, per_bin: int = 200) -> None:
    """`binned_outputs/square_008um` of Space Ranger 3, with some spatial structure."""
    import h5py
    import pandas as pd

    rng = np.random.default_rng(0)
    folder = outs / "binned_outputs" / "square_008um"
    (folder / "spatial").mkdir(parents=True)
    across = int(np.ceil(np.sqrt(n_bins)))
    row, column = (index.ravel()[:n_bins] for index in np.indices((across, across)))
    barcodes = np.array([f"s_008um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)], dtype="S")
    # fewer counts in a bin the further right it lies
    n_values = rng.poisson(per_bin * (1.5 - column / across))
    indptr = np.concatenate([[0], np.cumsum(n_values)])
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        matrix = file.create_group("matrix")
        options = {"compression": "gzip", "compression_opts": 1}
        steps = rng.integers(1, 2 * n_genes // (2 * per_bin), indptr[-1])
        indices = np.cumsum(steps)
        indices = (indices - np.repeat(indices[np.minimum(indptr[:-1], len(indices) - 1)], n_values)) % n_genes
        matrix.create_dataset("indices", data=indices.astype(np.int64), **options)
        matrix.create_dataset("data", data=rng.integers(1, 4, indptr[-1], dtype=np.int32), **options)
        matrix.create_dataset("indptr", data=indptr.astype(np.int64), **options)
        matrix.create_dataset("barcodes", data=barcodes, **options)
        matrix.create_dataset("shape", data=np.array([n_genes, n_bins], np.int32))
        features = matrix.create_group("features")
        names = np.array([f"GENE{n}" for n in range(n_genes)], dtype="S")
        features.create_dataset("name", data=names)
        features.create_dataset("id", data=np.array([f"ENSG{n:011d}" for n in range(n_genes)], dtype="S"))
        features.create_dataset("feature_type", data=np.full(n_genes, b"Gene Expression"))
        features.create_dataset("genome", data=np.full(n_genes, b"GRCh38"))
    pitch_px = 8 / UM_PER_PX
    table = pd.DataFrame({"barcode": barcodes.astype(str), "in_tissue": 1, "array_row": row, "array_col": column})
    table["pxl_row_in_fullres"] = (row + 0.5) * pitch_px
    table["pxl_col_in_fullres"] = (column + 0.5) * pitch_px
    table.to_parquet(folder / "spatial" / "tissue_positions.parquet", index=False)
    scales = {
        "spot_diameter_fullres": pitch_px,
        "bin_size_um": 8.0,
        "microns_per_pixel": UM_PER_PX,
        "regist_target_img_scalef": 0.1,
        "tissue_lowres_scalef": 0.01,
        "fiducial_diameter_fullres": 1000.0,
        "tissue_hires_scalef": 0.1,
    }
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(scales))


# --- spacrd ----------------------------------------------------------------------------------------------------------

# the published code, alone on two cores that do a float32 product at this rate: 3,186 spots, 1,024 + 3,000 features
PUBLISHED_GFLOPS = 175
PUBLISHED_S = {"align": 1.4, "fuse": 7.5, "classify": 7.5}  # an epoch
EPOCHS = {"align": 100, "fuse": 50, "classify": 50}
SPACRD_SPOTS = 3186


def spacrd(folder: Path) -> None:
    """Seconds, rate and cost of each stage against the published code, growth with spots, scoring, memory."""
    published_s = sum(PUBLISHED_S[stage] * EPOCHS[stage] for stage in EPOCHS)
    for preset in ("paper", "reference", "enhanced"):
        for factor in (1, 2, 4) if preset == "paper" else (1,):
            found = child(measure_spacrd, preset, factor * SPACRD_SPOTS)
            print(f"{preset}, {factor * SPACRD_SPOTS:,} spots, beside a product at {found['gflops']:.0f} GFLOP/s:")
            total_s = 0.0
            for stage, (seconds, flops) in found["stages"].items():
                rate = flops / seconds / 1e9
                total_s += seconds * found["epochs"][stage]
                print(
                    f"  {stage:8} {seconds:6.2f} s an epoch, {seconds / factor / SPACRD_SPOTS * 1e3:.3f} ms a spot, "
                    f"{rate:.0f} GFLOP/s, {100 * rate / found['gflops']:.0f} % of the product's"
                )
            as_published_s = total_s * found["gflops"] / PUBLISHED_GFLOPS
            share = f", {as_published_s / published_s:.2f} of the published code's" if factor == 1 else ""
            print(f"  {found['epochs']}: {total_s:.0f} s, {as_published_s:.0f} s at {PUBLISHED_GFLOPS} GFLOP/s{share}")
            print(f"  scoring 4,000 spots: {found['score_s']:.1f} s; peak {found['rss_mb']:,} MB", flush=True)


def measure_spacrd(preset: str, n_spots: str) -> dict:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ctrflow import methods
    from ctrflow.methods import spacrd as method
    from ctrflow.nets import spacrd_stages, training

    training.start(0)
    options = methods.resolve_options(method.SPEC, {"preset": preset})
    section = cohort(int(n_spots))
    model = method.Model(method._network({"image": 1024, "gene": 3000}, options), options)
    features, around = model._features(section), model._neighbours(section)
    labels = torch.from_numpy(section.obs["label"].to_numpy(np.float32))

    def train(stage: str, epochs: int) -> None:
        counts = {f"epochs_{name}": epochs * (name == stage) for name in EPOCHS}
        if stage == "align":
            spacrd_stages.align(model.net, features, options | counts, 0)
        else:
            spacrd_stages.fuse_and_classify(model.net, features, around, labels, options | counts, 0)

    def counted(stage: str, epochs: int) -> int:
        with FlopCounterMode(display=False) as counter:
            train(stage, epochs)
        return counter.get_total_flops()

    found, rates = {}, [peak_gflops()]
    for stage in EPOCHS:
        flops = counted(stage, 1) - counted(stage, 0)  # frozen encoders run once, before the first epoch
        one, three = timed(lambda stage=stage: train(stage, 1))[0], timed(lambda stage=stage: train(stage, 3))[0]
        found[stage] = ((three - one) / 2, flops)
        rates.append(peak_gflops())
    few = cohort(4000)
    return {
        "stages": found,
        "epochs": {stage: options[f"epochs_{stage}"] for stage in EPOCHS},
        "gflops": float(np.median(rates)),
        "score_s": timed(lambda: model.score(few))[0],
    }


# --- meatrd ----------------------------------------------------------------------------------------------------------

MEATRD_SPOTS = (1000, 2000, 4000)


def meatrd(folder: Path) -> None:
    """Seconds of an epoch of each stage, what all epochs of `paper` take at that rate, scoring, memory, growth."""
    for n_spots in MEATRD_SPOTS:
        found = child(measure_meatrd, n_spots)
        print(f"{n_spots:,} spots x 3,000 genes, beside a product at {found['gflops']:.0f} GFLOP/s:")
        for stage, seconds in found["epoch_s"].items():
            print(f"  {stage:10} {seconds:7.1f} s an epoch, {1e3 * seconds / n_spots:.1f} ms a spot")
        total_s = sum(found["epoch_s"][stage] * count for stage, count in found["epochs"].items())
        score_s = found["score_s"]
        print(f"  {found['epochs']}: {total_s / 60:.1f} min; scoring {n_spots:,} spots {score_s:.0f} s", end="; ")
        print(f"peak {found['rss_mb']:,} MB", flush=True)


def measure_meatrd(spots: str) -> dict:
    from ctrflow import methods
    from ctrflow.methods import meatrd as method
    from ctrflow.nets import meatrd_stages

    n_spots, options = int(spots), methods.resolve_options(method.SPEC, {})
    epochs = {stage: options[f"epochs_{stage}"] for stage in ("unet", "rebuild", "one_class")}
    section = cohort(n_spots)
    del section.obs["label"]
    section.obsm["patches"] = np.random.default_rng(1).integers(0, 256, (n_spots, 32, 32, 3), dtype=np.uint8)
    once = options | {f"epochs_{stage}": 1 for stage in epochs}
    spent, rates = {}, [peak_gflops()]
    for name in ("rebuild", "one_class"):
        inner = getattr(meatrd_stages, name)

        def outer(*arguments, inner=inner, name=name):
            spent[name], found = timed(lambda: inner(*arguments))
            return found

        setattr(meatrd_stages, name, outer)
    spent["unet"], (begun, _) = timed(lambda: method.Model.pretrain(section, once, 0))
    rates.append(peak_gflops())
    model = method.Model.fit(section, once, 0, pretrained=begun)
    rates.append(peak_gflops())
    score_s, _ = timed(lambda: model.score(section))
    return {
        "epoch_s": {stage: spent[stage] for stage in epochs},
        "epochs": epochs,
        "score_s": score_s,
        "gflops": float(np.median(rates)),
    }


def cohort(n_spots: int):
    """A made-up training view in sections of some 450 spots, as those of the eight ST sections."""
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    rng = np.random.default_rng(0)
    number = np.arange(n_spots)
    section, within = number // 455, number % 455
    obs = pd.DataFrame({"section": section.astype(str), "label": rng.integers(0, 2, n_spots).astype(float)})
    obs.index = obs.index.astype(str)
    return AnnData(
        sparse.random(n_spots, 3000, density=0.2, format="csr", dtype=np.float32, random_state=0),
        obs=obs,
        obsm={
            "spatial": np.column_stack([within % 22, within // 22]).astype(float),
            "image": rng.random((n_spots, 1024), dtype=np.float32),
        },
    )


# --- report ----------------------------------------------------------------------------------------------------------

REPORT_SECTIONS, REPORT_SPOTS, REPORT_METHODS = 23, 4000, 17
PICTURE_PX = 1400  # the long side of a section's picture
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def report(folder: Path) -> None:
    """The page of a large study: how long it takes to write, how large it is, when its first map stands."""
    page = folder / "report.html"
    made = child(measure_report, page)
    print(
        f"{REPORT_SECTIONS} sections x {REPORT_SPOTS:,} spots x {REPORT_METHODS} methods, 2 seeds: "
        f"{made['seconds']:.0f} s to write, {page.stat().st_size / 1e6:.1f} MB, {made['rss_mb']:,} MB peak"
    )
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        print("no browser: the page was not opened")
        return
    seen = child(measure_first_map, page, program)
    print(
        f"{Path(program).name}: first map after {seen['first']:.1f} s, another section after {seen['next']:.1f} s, "
        f"another method after {1000 * seen['method']:.0f} ms, threshold {1000 * seen['threshold']:.0f} ms"
    )


def measure_report(path: str) -> dict:
    from ctrflow import report as reports

    content = large_study()
    return {"seconds": timed(lambda: reports.write_report(content, path))[0]}


def measure_first_map(path: str, program: str) -> dict:
    """Seconds until spots and picture of a map are drawn, as a person waits for them."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1300, "height": 1000})

        def seconds(act: Callable, section: int) -> float:
            def until_drawn() -> None:
                act()
                page.locator(".map").nth(section).and_(page.locator("[data-ready]")).wait_for()
                page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

            return timed(until_drawn)[0]

        second = page.locator("details.section").nth(1)
        method, threshold = (second.locator(f'[data-input="{name}"]') for name in ("method", "threshold-number"))
        found = {
            "first": seconds(lambda: page.goto(Path(path).as_uri(), wait_until="commit"), 0),
            "next": seconds(second.locator("summary").first.click, 1),
            "method": seconds(lambda: method.select_option(index=5), 1),
            "threshold": seconds(lambda: threshold.fill("0.6"), 1),
        }
        browser.close()
    return found


def large_study() -> dict:
    """The content of a report: made-up scores, numbers and pictures."""
    import pandas as pd

    from ctrflow.results.metrics import FACTS, METRICS

    rng = np.random.default_rng(0)
    picture = texture(PICTURE_PX)
    names = [f"section_{n + 1:02d}" for n in range(REPORT_SECTIONS)]
    regimes = ("labelled_source", "normal_reference", "marker_prior")
    methods = {f"method_{n + 1:02d}": regimes[n % 3] for n in range(REPORT_METHODS)}
    kinds = (*(metric.name for metric in METRICS), *FACTS)
    rows = pd.MultiIndex.from_product([names, methods, (1, 2), kinds], names=["section", "variant", "seed", "metric"])
    metrics = rows.to_frame(index=False).assign(
        study="bench", task="all", fold="all", encoder="uni", reference="", value=rng.random(len(rows)), note=""
    )
    thresholds = metrics[["task", "encoder", "section", "variant", "seed"]].drop_duplicates()
    return {
        "study": "bench",
        "simulated": True,
        "metrics": metrics.assign(patient=metrics["section"], method=metrics["variant"]),
        "methods": {name: {"regime": regime, "reference": ""} for name, regime in methods.items()},
        "tasks": {},
        "sections": [large_section(name, np.roll(picture, 97 * n, 1), methods, rng) for n, name in enumerate(names)],
        "not_applicable": pd.DataFrame(columns=["task", "encoder", "variant", "reason"]),
        "thresholds": thresholds.assign(threshold=0.5, branch="crossing"),
        "sheet": pd.DataFrame({"section": names}),
        "seeds": [1, 2],
        "versions": {},
        "config": {},
        "costs": pd.DataFrame(columns=["rule", "variant", "seconds", "mb"]),
    }


def large_section(name: str, picture: np.ndarray, methods, rng) -> dict:
    """Hexagonal spots 100 µm apart over the whole picture."""
    across = int(np.ceil(np.sqrt(REPORT_SPOTS)))
    column, row = np.arange(REPORT_SPOTS) % across, np.arange(REPORT_SPOTS) // across
    spatial_um = 100 * np.column_stack([column + row % 2 / 2, row * np.sqrt(3) / 2]) + 60
    labels = rng.integers(0, 2, REPORT_SPOTS).astype(float)
    runs = []
    for variant in methods:
        scores = rng.normal(labels, 1.0)
        run = {"variant": variant, "scores": scores, "sd": rng.random(REPORT_SPOTS), "calls": (scores >= 0.5) * 1.0}
        runs.append(run | {"threshold": {"threshold": 0.5, "branch": "crossing"}})
    return {
        "section": name,
        "task": "all",
        "encoder": "uni",
        "patient": name,
        "cohort": "bench",
        "platform": "visium",
        "note": "",
        "spatial_px": spatial_um / UM_PER_PX,
        "um_per_px": UM_PER_PX,
        "spot_um": 55.0,
        "thumbnail": picture,
        "thumbnail_scale": PICTURE_PX * UM_PER_PX / (spatial_um.max() + 60),
        "labels": labels,
        "regions": np.where(labels == 1, "invasive cancer", "adipose tissue").tolist(),
        "spots": [f"{n:016d}-1" for n in range(REPORT_SPOTS)],  # as long as a barcode
        "runs": runs,
    }


# --- graph -----------------------------------------------------------------------------------------------------------

# sections, sections of one patient, split, methods
GRAPHS = (
    (23, 1, "leave_one_section_out", 17),
    (50, 2, "leave_one_patient_out", 20),
    (100, 2, "leave_one_patient_out", 20),
)
GRAPH_SEEDS = [1, 2, 3, 4, 5]


def graph(folder: Path) -> None:
    """A dry run of a large study of empty files: nothing is read, Snakemake only plans."""
    for n_sections, together, split, n_methods in GRAPHS:
        repo = folder / f"graph_{n_sections}"
        write_large_study(repo, n_sections, together, split, n_methods)
        found = child(measure_graph, repo)
        own = {name: found["jobs"].get(name, 0) for name in ("train_method", "infer_scores")}
        once = (
            "embed_section", "cut_patches", "list_patches", "cut_superpixels", "build_fold", "build_target",
            "pretrain_method", "call_spots",
        )  # fmt: skip
        print(
            f"{n_sections} sections of {n_sections // together} patients x {n_methods} methods x {len(GRAPH_SEEDS)} "
            f"seeds: {found['seconds']:.1f} s, {found['cpu_s']:.1f} s of them computing, {found['rss_mb']:,} MB peak; "
            f"{sum(found['jobs'].values()):,} jobs"
        )
        for what, counts in (("a run's own", own), ("shared", {name: found["jobs"].get(name, 0) for name in once})):
            print(f"  {what}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()), flush=True)


def measure_graph(repo: str) -> dict:
    """`snakemake -n --quiet rules` in this process."""
    import contextlib
    import io
    import os

    from snakemake import cli

    from runs import jobs

    os.chdir(repo)
    said, start_s = io.StringIO(), time.process_time()

    def plan() -> None:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
            cli.main(["-n", "--quiet", "rules", "--config", "study=large"])

    seconds, _ = timed(plan)
    cpu_s, found = time.process_time() - start_s, {}
    for name, count in jobs(said.getvalue()).items():
        rule = re.sub(r"_\d+$", "", name)  # numbered
        found[rule] = found.get(rule, 0) + count
    if not found:
        sys.exit(said.getvalue()[-3000:])
    return {"seconds": seconds, "cpu_s": cpu_s, "jobs": found}


def write_large_study(repo: Path, n_sections: int, together: int, split: str, n_methods: int) -> None:
    """A copy of the workflow with a sheet of empty files and the study `large`: every method in it runs every seed."""
    from ctrflow import methods
    from runs import add_rows, copy_workflow, st_row, write_study

    copy_workflow(repo)
    rows = [st_row(f"S{n:03d}") | {"patient": f"P{n // together:03d}", "cohort": "large"} for n in range(n_sections)]
    spots = [f"data/mini/ST-spotfiles/{row['section']}_selection.tsv" for row in rows]
    for path in [*spots, *(row[column] for row in rows for column in ("path", "image", "labels"))]:
        (repo / path).parent.mkdir(parents=True, exist_ok=True)
        (repo / path).touch()
    # as the cohorts of breast tissue, for which there is a list of markers
    add_rows(repo, [row | {"tissue": "breast"} for row in rows])
    seeded = [name for name in methods.names() if methods.load(name).SPEC.seeded]
    variants = [
        {"id": "spacrd_reference", "method": "spacrd", "options": {"preset": "reference"}},
        {"id": "spacrd_enhanced", "method": "spacrd", "options": {"preset": "enhanced"}},
        {"id": "meatrd_flat", "method": "meatrd", "options": {"mgdat_layers": 1}},
    ]
    task = {"name": "all", "split": split, "source": 'cohort == "large"', "normal": "source_negatives"}
    content = {"study": "large", "seeds": GRAPH_SEEDS, "encoders": ["uni"], "tasks": [task]}
    write_study(repo, content | {"methods": [*seeded, *variants][:n_methods]})


# --- data ------------------------------------------------------------------------------------------------------------

# bins of 8 µm in one section; sections of 4,000 spots; and how many different genes are counted in each
BINS, BIN_GENES = (25_000, 50_000, 100_000, 200_000, 300_000), 200
MORE_GENES = (400, 800)  # counted in each of 50,000 bins
COHORTS, SPOTS, SPOT_GENES = (12, 25, 50, 100), 4000, 1000
DATA_GENES, IMAGE_FEATURES = 18_000, 1024  # of a whole transcriptome, and of UNI
FILES = 2  # sections of a cohort that differ; the others are these again
TWO_EPOCHS = {"preset": "fast", "epochs_align": 1, "epochs_fuse": 0, "epochs_classify": 1}
STEPS = {"linear": {}, "spacrd": TWO_EPOCHS}
WHOLE_EPOCHS = 50_000  # spots; of more, spacrd learns on 10,000 of them in its last stage alone: memory is the question


def data(folder: Path) -> None:
    """Building, learning and scoring: CPU seconds and peak memory of each step as sections and cohorts grow."""
    print("shape\tspots\tsections\tstep\tstored_m\tfile_mb\tcpu_s\tpeak_mb", flush=True)
    for bins in BINS:
        data_steps(folder / f"bins_{bins}", "bins", [bins] * 2, BIN_GENES)
    for n_genes in MORE_GENES:
        data_steps(folder / f"genes_{n_genes}", f"{n_genes} genes a bin", [50_000] * 2, n_genes)
    for sections in COHORTS:
        data_steps(folder / f"cohort_{sections}", "sections", [SPOTS] * sections, SPOT_GENES)


def data_steps(folder: Path, shape: str, sizes: list[int], n_genes: int) -> None:
    """The last section is the target; `spacrd` learns for one epoch of its first and one of its last stage, or less."""
    files = [folder / f"{n}.h5ad" for n in range(1 if shape == "bins" else FILES)]
    for n, path in enumerate(files):
        child(write_section, path, sizes[0], n_genes, n)
    names = ",".join(str(files[n % len(files)]) for n in range(len(sizes)))
    steps = [("build_fold", measure_build, (names, folder))]
    for method, options in STEPS.items():
        where = method, json.dumps(options), folder
        steps += [(f"train {method}", measure_train, where), (f"score {method}", measure_score, where)]
    for step, measurement, arguments in steps:
        found = child(measurement, *arguments)
        line = shape, sum(sizes[:-1]), len(sizes) - 1, step, f"{found['stored'] / 1e6:.1f}", found["file_mb"]
        print(*line, f"{found['cpu_s']:.1f}", found["rss_mb"], sep="\t", flush=True)
    shutil.rmtree(folder)


def write_section(path: str, n_spots: str, n_genes: str, seed: str) -> dict:
    """A section: genes as skewed as in tissue, a tenth of them twice as frequent in its left half, the cancer."""
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    from ctrflow import storage

    rng, n, path = np.random.default_rng(int(seed)), int(n_spots), Path(path)
    across = int(np.ceil(np.sqrt(n)))
    place = np.column_stack([np.arange(n) % across, np.arange(n) // across])
    frequency = np.random.default_rng(0).gamma(0.4, 1.0, DATA_GENES)
    tilted = np.where(np.arange(DATA_GENES) % 10 == 0, 2.0, 1.0) * frequency
    bounds = [np.cumsum(values) / values.sum() for values in (frequency, tilted)]
    cancer = (place[:, 0] < across / 2).astype(int)
    names = np.array([f"GENE{i:05d}" for i in range(DATA_GENES)])

    def counts(rows: np.ndarray):
        drawn = rng.poisson(1.3 * int(n_genes), len(rows))  # some are of a gene that is already there
        owner = np.repeat(np.arange(len(rows)), drawn)
        at = rng.random(len(owner))
        genes = np.where(cancer[rows][owner] == 1, np.searchsorted(bounds[1], at), np.searchsorted(bounds[0], at))
        ones = np.ones(len(owner), np.float32)
        return sparse.coo_matrix((ones, (owner, genes)), (len(rows), DATA_GENES)).tocsr()

    def pieces() -> Iterator:
        for rows in np.array_split(np.arange(n), range(8192, n, 8192)):
            own = obs.iloc[rows]
            yield AnnData(counts(rows), obs=own, var=var, obsm={"spatial": place[rows] * 32.0}, uns={"section": about})

    about = {"patient": path.stem}
    obs, var = pd.DataFrame(index=[f"s_{i:06d}" for i in range(n)]), pd.DataFrame(index=names)
    storage.write_h5ad_pieces(pieces(), path)
    encoder = {"id": "bench", "digest": "bench", "patch_px": 224, "patch_um": np.array([55.0])}
    features = rng.standard_normal((n, IMAGE_FEATURES), dtype=np.float32)
    image = AnnData(features, obs=obs, uns={"encoder": encoder})
    storage.write_h5ad(image, path.with_suffix(".image.h5ad"))
    table = pd.DataFrame({"spot": image.obs_names, "label": cancer, "region": ""})
    storage.write_tsv(table, path.with_suffix(".labels.tsv"))
    return {}


def measure_build(paths: str, folder: str) -> dict:
    """As scripts/build_fold.py."""
    import scanpy  # noqa: F401
    import skmisc.loess  # noqa: F401

    from ctrflow import storage
    from ctrflow.folds import tables

    paths = [Path(path) for path in paths.split(",")]
    names = [f"S{n:03d}" for n in range(len(paths))]
    start_s = time.process_time()
    spots = {name: storage.read_h5ad(path, with_x=False) for name, path in zip(names, paths, strict=True)}
    images = {
        name: storage.read_h5ad(path.with_suffix(".image.h5ad"), with_x=False)
        for name, path in zip(names, paths, strict=True)
    }
    labels = {
        name: storage.read_tsv(path.with_suffix(".labels.tsv")) for name, path in zip(names[:-1], paths, strict=False)
    }
    target = names[-1]
    train = tables.train_view({name: spots[name] for name in labels}, {name: images[name] for name in labels}, labels)
    view = tables.target_view({target: spots[target]}, {target: images[target]})
    train, view = tables.build_views(train, view, 3000)
    storage.write_h5ad_pieces(view, Path(folder, "target.h5ad"))
    storage.write_h5ad_pieces(train, Path(folder, "train.h5ad"))
    cpu_s = time.process_time() - start_s
    stored = sum(table.X.group["data"].shape[0] for table in spots.values())
    return {"cpu_s": cpu_s, "stored": stored, "file_mb": sum(path.stat().st_size for path in paths) // 10**6}


def measure_train(method: str, options: str, folder: str) -> dict:
    """As scripts/train_method.py."""
    from ctrflow import methods, storage
    from ctrflow.training import costs

    module, path = methods.load(method), Path(folder, "train.h5ad")
    costs.load(module)
    start_s = time.process_time()
    train = storage.read_h5ad(path, with_layers=module.SPEC.counts)
    options = methods.resolve_options(module.SPEC, json.loads(options))
    if method == "spacrd" and train.n_obs > WHOLE_EPOCHS:
        options["epochs_align"] = 0
        train.obs.loc[np.random.default_rng(0).permutation(train.n_obs) >= 10_000, "label"] = np.nan
    model = module.Model.fit(train, options, 1)
    storage.write_safetensors(model.tensors(), {}, Path(folder, f"{method}.safetensors"))
    cpu_s = time.process_time() - start_s
    return {"cpu_s": cpu_s, "stored": train.X.nnz, "file_mb": path.stat().st_size // 10**6}


def measure_score(method: str, options: str, folder: str) -> dict:
    """As scripts/infer_scores.py."""
    from ctrflow import methods, storage
    from ctrflow.training import costs

    module, path = methods.load(method), Path(folder, "target.h5ad")
    costs.load(module)
    start_s = time.process_time()
    target = storage.read_h5ad(path, with_layers=module.SPEC.counts)
    tensors, _ = storage.read_safetensors(Path(folder, f"{method}.safetensors"))
    model = module.Model.from_tensors(tensors, methods.resolve_options(module.SPEC, json.loads(options)), 1)
    scores = model.score(target)
    cpu_s = time.process_time() - start_s
    assert np.isfinite(scores).all()
    return {"cpu_s": cpu_s, "stored": target.X.nnz, "file_mb": path.stat().st_size // 10**6}


# --- demo ------------------------------------------------------------------------------------------------------------


def demo(folder: Path) -> None:
    """The demo, and a map of one section: seconds, CPU seconds, and what starting the jobs takes of them."""
    import whole

    whole.demo(folder)


# ---------------------------------------------------------------------------------------------------------------------


def rss_mb() -> int:
    """The peak of this process so far, MB. (`getrusage` would count what the parent was when it forked.)"""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024


BENCHMARKS = {
    "aggregate": aggregate,
    "patches": patches,
    "jpeg": jpeg,
    "vit": vit,
    "growth": growth,
    "visium_hd": visium_hd,
    "spacrd": spacrd,
    "meatrd": meatrd,
    "report": report,
    "graph": graph,
    "data": data,
    "demo": demo,
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        from ctrflow.logs import limit_threads

        limit_threads(1)
        result = globals()[sys.argv[2]](*json.loads(sys.argv[3]))
        print(json.dumps(result | {"rss_mb": rss_mb()}))
    else:
        main(sys.argv[1:])
