"""Simulated sections in the form of the section contract."""

from pathlib import Path

import anndata as ad
import pandas as pd


def as_spots(section, folder: Path):
    """Spots of a simulated section, whose image is written to the folder, and their labels."""
    spots = ad.AnnData(
        section.counts,
        obs=pd.DataFrame(index=section.spots["spot"].to_numpy()),
        var=pd.DataFrame(index=section.genes),
        obsm={"spatial": section.spots[["x_px", "y_px"]].to_numpy(dtype=float)},
    )
    add_image(spots, section.name, section.image, section, folder)
    labels = pd.DataFrame({"spot": spots.obs_names, "label": section.spots["label"].to_numpy(), "region": ""})
    return spots, labels


def add_image(spots, name: str, pixels, section, folder: Path) -> None:
    """Write the pixels to the folder, and describe the section `name`, which has the scale of `section`."""
    from PIL import Image

    path = folder / f"{name}.png"
    Image.fromarray(pixels).save(path)
    spots.uns["section"] = {
        "section": name, "patient": name, "um_per_px": section.um_per_px, "spot_um": section.spot_um,
        "image": str(path), "image_scale": 1.0,
    }  # fmt: skip
