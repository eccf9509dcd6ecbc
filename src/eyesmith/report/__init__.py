"""Pages, plots and tables out of run folders."""

from eyesmith.report.losses import write_losses as write_losses
from eyesmith.report.page import write_report as write_report
from eyesmith.report.terminal import splits_table as splits_table
