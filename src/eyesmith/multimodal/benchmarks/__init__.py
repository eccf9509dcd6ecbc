"""LLaVA-1.5's twelve benchmarks, and MMVP: questions read, answers scored here, or written for who scores them."""

from eyesmith.multimodal.benchmarks.question import BenchQuestion
from eyesmith.multimodal.benchmarks.read import read_benchmark
from eyesmith.multimodal.benchmarks.run import answer_benchmark, read_answers, write_results
from eyesmith.multimodal.benchmarks.table import BENCHMARKS, Benchmark

__all__ = [
    "BENCHMARKS",
    "BenchQuestion",
    "Benchmark",
    "answer_benchmark",
    "read_answers",
    "read_benchmark",
    "write_results",
]
