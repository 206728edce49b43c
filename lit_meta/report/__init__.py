"""Reports on runs: figures as PNG and SVG, a self-contained HTML page, and figures in TensorBoard."""

from lit_meta.report.figure_log import FigureLog, log_figures, log_run
from lit_meta.report.panel import Panel
from lit_meta.report.panels import run_panels
from lit_meta.report.runs import Run, read_run
from lit_meta.report.write import write_report

__all__ = ["FigureLog", "Panel", "Run", "log_figures", "log_run", "read_run", "run_panels", "write_report"]
