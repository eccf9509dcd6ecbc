from eyesmith.hub.export.bundle import ExportReport, export_model
from eyesmith.hub.export.parity import ExportRow
from eyesmith.hub.export.target import ExportTarget

__all__ = ["ExportReport", "ExportRow", "ExportTarget", "export_model"]
