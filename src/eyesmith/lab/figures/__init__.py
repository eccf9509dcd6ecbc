from eyesmith.lab.figures.comparisons import ablation_chart, correlation_chart, cost_charts
from eyesmith.lab.figures.curves import data_chart, resolution_chart, size_chart
from eyesmith.lab.figures.style import Chart

__all__ = [
    "Chart",
    "ablation_chart",
    "correlation_chart",
    "cost_charts",
    "data_chart",
    "resolution_chart",
    "size_chart",
]
