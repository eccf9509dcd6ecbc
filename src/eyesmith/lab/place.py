"""Where cells run: processes on this machine's cores or GPUs, Slurm through submitit, or Ray.

All three start the same thing for a cell, `eyesmith.lab.work` on its folder, so what is in the folder does not depend
on where it was made.
"""

import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eyesmith.errors import ConfigError, MissingDependencyError
from eyesmith.files import not_linked

OUTPUT_FILE = "output.txt"  # in the cell's folder: all that its process printed
STOP_S = 60  # that a stopped process has to save its state


@dataclass(frozen=True, kw_only=True)
class PlaceConfig:
    """Where the cells run, and how many at a time."""

    kind: Literal["local", "slurm", "ray"] = "local"
    workers: int = 0
    """Cells at a time; 0 is one for each GPU or, without one, for each `threads` cores. Slurm: jobs in the queue."""
    threads: int = 1
    """Processor threads of a cell: small cells gain more from neighbours than from a second thread."""
    gpus_per_cell: int = 0
    """GPUs that Slurm or Ray gives to a cell; on this machine cells take turns on those there are."""
    partition: str = ""
    """Slurm's."""
    minutes: int = 240
    """Time limit of a Slurm job; a cell that did not end goes on when the command is given again."""

    def __post_init__(self) -> None:
        if self.workers < 0 or self.threads < 1 or self.gpus_per_cell < 0 or self.minutes < 1:
            raise ConfigError(
                "place: expected workers and gpus_per_cell of 0 or more, threads and minutes of 1 or more, got "
                f"{self.workers}, {self.gpus_per_cell}, {self.threads}, {self.minutes}"
            )


class Job(ABC):
    """A cell that runs."""

    @abstractmethod
    def status(self) -> int | None:
        """None while it runs, then its exit status."""

    @abstractmethod
    def stop(self) -> None:
        """Ask it to save and end; returns at once."""


class Place(ABC):
    """Somewhere that runs cells. room: how many at a time."""

    room: int

    @abstractmethod
    def start(self, folder: Path) -> Job:
        """Run the cell that `folder` asks for."""

    def close(self) -> None:  # noqa: B027  most places have nothing to close
        """Nothing runs here any more."""


def open_place(config: PlaceConfig, out: Path) -> Place:
    """The place of a config. out: where a scheduler keeps its own files. Raises MissingDependencyError, ConfigError."""
    if config.kind == "slurm":
        return _Submitit(config, out / "jobs")
    if config.kind == "ray":
        return _Ray(config)
    return _Local(config)


def room_of(config: PlaceConfig) -> int:
    """Cells that a config runs at a time, on this machine where it says nothing."""
    import torch

    return config.workers or torch.cuda.device_count() or max((os.cpu_count() or 1) // config.threads, 1)


class _LocalJob(Job):
    def __init__(self, process: subprocess.Popen[bytes], on_end: Callable[[], None]) -> None:
        self._process, self._on_end = process, on_end

    def status(self) -> int | None:
        status = self._process.poll()
        if status is not None:
            self._on_end()
        return status

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)


class _Local(Place):
    def __init__(self, config: PlaceConfig) -> None:
        import torch

        num_gpus = torch.cuda.device_count()
        self._threads = config.threads
        self.room = room_of(config)
        self._free = list(range(self.room))
        self._num_gpus = num_gpus

    def start(self, folder: Path) -> Job:
        slot = self._free.pop(0)
        threads = str(self._threads)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if self._num_gpus:
            environment["CUDA_VISIBLE_DEVICES"] = _visible_gpu(slot % self._num_gpus)
        with open(folder / OUTPUT_FILE, "ab", opener=not_linked) as output:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "eyesmith.lab.work", str(folder), "--end-with", str(os.getpid())],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C comes to the grid alone, which tells its cells
            )
        return _LocalJob(process, lambda: self._free.append(slot))


def _visible_gpu(number: int) -> str:
    shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return shown[number] if number < len(shown) else str(number)


def work_in_job(folder: str) -> int:
    """What a scheduler runs for a cell; the exit status."""
    from eyesmith.lab.work import main

    return main(Path(folder))


class _SubmititJob(Job):
    def __init__(self, job: Any) -> None:
        self._job = job

    def status(self) -> int | None:
        if not self._job.done():
            return None
        try:
            return int(self._job.result())
        except Exception as error:  # whatever the scheduler says is the cell's failure
            sys.stderr.write(f"{error}\n")
            return 1

    def stop(self) -> None:
        self._job.cancel()


class _Submitit(Place):
    def __init__(self, config: PlaceConfig, folder: Path, cluster: str = "slurm") -> None:
        try:
            import submitit
        except ImportError as error:
            raise MissingDependencyError(
                "place.kind=slurm needs submitit, which is not installed: pip install 'eyesmith[slurm]'"
            ) from error
        self.room = config.workers or 1000
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        except RuntimeError as error:
            raise ConfigError(f"place.kind=slurm: {error}; take place.kind=local where there is no Slurm") from None
        partition = {"slurm_partition": config.partition} if config.partition else {}
        self._executor.update_parameters(
            name="eyesmith-lab",
            timeout_min=config.minutes,
            cpus_per_task=config.threads,
            gpus_per_node=config.gpus_per_cell,
            **partition,
        )

    def start(self, folder: Path) -> Job:
        return _SubmititJob(self._executor.submit(work_in_job, str(folder.resolve())))


class _RayJob(Job):
    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def status(self) -> int | None:
        done, _ = self._ray.wait([self._reference], timeout=0)
        if not done:
            return None
        try:
            return int(self._ray.get(self._reference))
        except Exception as error:  # a lost worker is the cell's failure, not the grid's
            sys.stderr.write(f"{error}\n")
            return 1

    def stop(self) -> None:
        self._ray.cancel(self._reference, force=False)


class _Ray(Place):
    """Each cell is a task with a worker process of its own."""

    def __init__(self, config: PlaceConfig) -> None:
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise MissingDependencyError(
                "place.kind=ray needs ray, which is not installed: pip install 'eyesmith[ray]'"
            ) from error
        self._ray, self._started = ray, not ray.is_initialized()
        if self._started:
            cores = None if "RAY_ADDRESS" in os.environ else config.workers * config.threads or None
            ray.init(include_dashboard=False, log_to_driver=False, num_cpus=cores)
        total = ray.cluster_resources().get("CPU", 1)
        self.room = config.workers or max(int(total) // config.threads, 1)
        environment = {"env_vars": {"OMP_NUM_THREADS": str(config.threads)}}
        self._remote = ray.remote(
            num_cpus=config.threads, num_gpus=config.gpus_per_cell, max_retries=0, max_calls=1, runtime_env=environment
        )(work_in_job)

    def start(self, folder: Path) -> Job:
        return _RayJob(self._ray, self._remote.remote(str(folder.resolve())))

    def close(self) -> None:
        if self._started:
            self._ray.shutdown()
