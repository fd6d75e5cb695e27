"""Reports: what was measured below a folder, as one HTML page, PNG figures and Markdown tables."""

from train.reports.findings import Findings, gather
from train.reports.pages import write_report
from train.reports.tables import headline

__all__ = ["Findings", "gather", "headline", "write_report"]
