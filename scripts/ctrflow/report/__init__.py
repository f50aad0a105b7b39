"""The report of a study: one HTML page that opens from disk, with maps, tables and figures inside."""

from ctrflow.report.page import PICTURE_PX, write_report

__all__ = ["PICTURE_PX", "write_report"]
