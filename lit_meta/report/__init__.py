"""Reports of runs: figures as PNG and SVG, and one HTML page made to be read."""

from lit_meta.report.gallery import plates
from lit_meta.report.plate import Plate
from lit_meta.report.runs import Run, read_run
from lit_meta.report.write import write_report

__all__ = ["Plate", "Run", "plates", "read_run", "write_report"]
