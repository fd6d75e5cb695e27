"""Reports: what was measured below a folder, as one HTML page, PNG figures and Markdown tables."""

from train.reports.findings import Findings, gather
from train.reports.pages import write_report

__all__ = ["Findings", "gather", "write_report"]
