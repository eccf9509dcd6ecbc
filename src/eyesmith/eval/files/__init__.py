from eyesmith.eval.files.clip_benchmark import (
    read_run,
    read_runs_csv,
    run_file_name,
    run_task,
    write_run,
    write_runs_csv,
)
from eyesmith.eval.files.datacomp import (
    EVAL_RESULTS_FILE,
    INFO_FILE,
    append_eval_result,
    read_eval_results,
    read_info,
    read_result_folder,
    write_info,
)
from eyesmith.eval.files.open_clip import read_open_clip_csv, write_results_csv, write_retrieval_csv
from eyesmith.eval.files.reading import read_result, read_results
from eyesmith.eval.files.records import ModelResults, TaskRecord, merge

__all__ = [
    "EVAL_RESULTS_FILE",
    "INFO_FILE",
    "ModelResults",
    "TaskRecord",
    "append_eval_result",
    "merge",
    "read_eval_results",
    "read_info",
    "read_open_clip_csv",
    "read_result",
    "read_result_folder",
    "read_results",
    "read_run",
    "read_runs_csv",
    "run_file_name",
    "run_task",
    "write_info",
    "write_results_csv",
    "write_retrieval_csv",
    "write_run",
    "write_runs_csv",
]
