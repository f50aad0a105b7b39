"""What other viewers open: AnnData for scanpy and squidpy, SpatialData for napari, CSV for Loupe Browser and Xenium
Explorer, GeoJSON for QuPath, a table for a spreadsheet.

Each function returns the content; `storage.write_h5ad`, `write_text`, `write_json` and `write_tsv` put it in a file,
`write_spatialdata` in a folder.

A *run* is a task, an encoder and a variant of a method ("transfer|uni|spacrd"). `scores` and `calls` are frames with
the spot ids as index and one column per run: the mean score over the seeds (higher = more cancer-like; NaN = not
scored) and 1 cancer, 0 other, NaN not scored. `sd`, the sd of the score over seeds, is a frame of the runs that have
two or more; where there is none, nothing is written of it. `regions` are the called spots of each run joined to
polygons, found once a section by `section_regions`.
"""

from ctrflow.export.columns import safe_names
from ctrflow.export.h5ad import section_h5ad
from ctrflow.export.loupe import loupe_csv
from ctrflow.export.qupath import qupath_geojson
from ctrflow.export.regions import find_regions, section_regions, tessellate
from ctrflow.export.spatialdata_zarr import section_spatialdata, write_spatialdata
from ctrflow.export.summary import summary_row, summary_table
from ctrflow.export.xenium import xenium_csv

__all__ = [
    "find_regions", "loupe_csv", "qupath_geojson", "safe_names", "section_h5ad",
    "section_regions", "section_spatialdata", "summary_row", "summary_table", "tessellate",
    "write_spatialdata", "xenium_csv",
]  # fmt: skip
