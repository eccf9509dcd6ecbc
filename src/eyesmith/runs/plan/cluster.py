"""The machines that a run is planned for."""

from dataclasses import dataclass

from eyesmith.config import check_least
from eyesmith.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The machines a plan is for. The defaults are one machine of eight H100 or H200."""

    gpus: int = 8
    """GPUs, over all machines."""
    mfu: float = 0.35
    """Share of the peak that the model's own operations reach; published CLIP runs: 0.04 to 0.39."""
    peak_tflops: float = 989.0
    """Dense bfloat16 TFLOP/s of a GPU: A100 312, H100 and H200 989, RTX 4090 165."""
    gpu_memory_gib: float = 80.0
    """Memory of a GPU."""
    machine_gpus: int = 8
    """GPUs of a machine."""
    sample_kb: float = 35.0
    """Size of a sample in shards, 1,000 bytes: an assumption, a web picture of some 300 pixels with its caption."""
    shard_samples: int = 10_000
    """Samples of a shard; img2dataset writes as many."""
    write_gb_s: float = 2.0
    """Rate at which all machines together write a state into the run folder, 1e9 bytes a second."""
    gpu_mtbf_hours: float = 50_000.0
    """Mean time between failures that stop a run, of one GPU with its share of the machine. Llama 3 (arXiv 2407.21783,
    section 3.3.4): 419 unexpected stops in 54 days of 16,384 H100."""
    restart_minutes: float = 10.0
    """From a failure to the next step: noticed, machines replaced, state read, batches made."""

    def __post_init__(self) -> None:
        check_least(self, "plan.", gpus=1, machine_gpus=1, shard_samples=1, restart_minutes=0)
        for name in ("peak_tflops", "gpu_memory_gib", "sample_kb", "write_gb_s", "gpu_mtbf_hours"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"plan.{name}: expected a positive number, got {getattr(self, name)}")
        if not 0 < self.mfu <= 1:
            raise ConfigError(f"plan.mfu: expected above 0 and up to 1, got {self.mfu}")

    @property
    def machines(self) -> int:
        """The last of them may be not full."""
        return -(-self.gpus // self.machine_gpus)

    @property
    def shard_bytes(self) -> float:
        """Of a full shard."""
        return self.shard_samples * self.sample_kb * 1000
