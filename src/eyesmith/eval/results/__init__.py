from eyesmith.eval.results.clip_benchmark import (
    read_run,
    read_runs_csv,
    run_file_name,
    run_task,
    write_run,
    write_runs_csv,
)
from eyesmith.eval.results.compare import MetricName, ModelComparison, TaskComparison, compare_folders
from eyesmith.eval.results.datacomp import (
    EVAL_RESULTS_FILE,
    INFO_FILE,
    append_eval_result,
    read_eval_results,
    read_info,
    read_result_folder,
    write_info,
)
from eyesmith.eval.results.models import ModelResults, TaskRecord, merge
from eyesmith.eval.results.open_clip import read_open_clip_csv, write_results_csv, write_retrieval_csv
from eyesmith.eval.results.predictions import TaskPredictions, prediction_files, read_predictions, write_records
from eyesmith.eval.results.reading import read_result, read_results
from eyesmith.eval.results.rows import ResultRow, append_rows, read_rows
from eyesmith.eval.results.task_result import TaskResult

__all__ = [
    "EVAL_RESULTS_FILE",
    "INFO_FILE",
    "MetricName",
    "ModelComparison",
    "ModelResults",
    "ResultRow",
    "TaskComparison",
    "TaskPredictions",
    "TaskRecord",
    "TaskResult",
    "append_eval_result",
    "append_rows",
    "compare_folders",
    "merge",
    "prediction_files",
    "read_eval_results",
    "read_info",
    "read_open_clip_csv",
    "read_predictions",
    "read_result",
    "read_result_folder",
    "read_results",
    "read_rows",
    "read_run",
    "read_runs_csv",
    "run_file_name",
    "run_task",
    "write_info",
    "write_records",
    "write_results_csv",
    "write_retrieval_csv",
    "write_run",
    "write_runs_csv",
]
