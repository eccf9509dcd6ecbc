"""What an encoder costs on this machine: seconds and memory of a forward pass, in a process of its own."""

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from eyesmith.config import from_dict, to_dict
from eyesmith.errors import TrainingError
from eyesmith.files import load_json, write_json
from eyesmith.lab.encoders import Contender
from eyesmith.lab.result import Measured
from eyesmith.models.clip import ClipConfig
from eyesmith.models.cost import encoder_cost
from eyesmith.models.encoder import Encoder
from eyesmith.models.registry import register_encoder
from eyesmith.runs.machine import choose_device, machine_facts
from eyesmith.train.utilisation import added_memory_mib

FOLDER = "measured"  # in OUT
BATCH_SIZES = (1, 32)
WARM_UP, REPEATS = 3, 15


def measured(contender: Contender, pair: ClipConfig, out: Path, encoder_files: Sequence[str] = ()) -> Measured:
    """The cost of a contender's image tower, from `out` where it was measured before, on this machine as it is.

    pair: a model with that tower, which says size and projection. Raises TrainingError where the process fails.
    """
    name = re.sub(r"[^A-Za-z0-9.]+", "_", f"{contender.encoder}-{contender.size}-{pair.image.image_size[0]}px").lower()
    path = out / FOLDER / f"{name}.json"
    asked = {"model": to_dict(pair), "encoder_files": list(encoder_files), "machine": machine_facts()}
    request = load_json(json.dumps(asked))  # as it is read again, with lists for tuples
    known = load_json(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if known.get("request") != request:
        command = [sys.executable, "-P", "-m", "eyesmith.lab.measure"]
        done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
        if done.returncode:
            raise TrainingError(f"{contender.encoder}: could not be measured: {done.stderr.strip().splitlines()[-1:]}")
        known = {"request": request, "found": load_json(done.stdout.splitlines()[-1])}
        write_json(path, known)
    found = known["found"]
    by_batch = {name: {int(size): ms for size, ms in found[name].items()} for name in ("median", "low", "high")}
    cost = encoder_cost(pair.image)
    return Measured(
        encoder=contender.encoder,
        size=contender.size,
        parameters=cost.tower.params,
        gmacs=cost.tower.macs / 1e9,
        latency_ms=by_batch["median"],
        latency_low=by_batch["low"],
        latency_high=by_batch["high"],
        peak_mib=found["peak_mib"],
    )


def _main() -> None:
    """Read a request from standard input, print what was found as one line of JSON."""
    request = load_json(sys.stdin.read())
    for file in request["encoder_files"]:
        register_encoder(file)
    device = choose_device()
    encoder = from_dict(ClipConfig, request["model"]).image.build().eval().to(device)
    found: dict[str, Any] = {"median": {}, "low": {}, "high": {}}
    for batch_size in BATCH_SIZES:
        times = _times_ms(encoder, batch_size, device)
        low, _, high = statistics.quantiles(times, n=4)
        found["median"][batch_size], found["low"][batch_size], found["high"][batch_size] = (
            statistics.median(times),
            low,
            high,
        )
    found["peak_mib"] = _peak_mib(encoder, BATCH_SIZES[-1], device)
    sys.stdout.write(json.dumps(found) + "\n")


@torch.inference_mode()
def _times_ms(encoder: Encoder, batch_size: int, device: torch.device) -> list[float]:
    pixels = torch.rand(batch_size, 3, *encoder.image_size, device=device)
    times = []
    for _ in range(WARM_UP + REPEATS):
        began = time.perf_counter()
        encoder(pixels)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - began))
    return times[WARM_UP:]


@torch.inference_mode()
def _peak_mib(encoder: Encoder, batch_size: int, device: torch.device) -> float:
    """Memory that a forward pass adds at most; 0 where the system does not tell."""
    pixels = torch.rand(batch_size, 3, *encoder.image_size, device=device)
    return added_memory_mib(lambda: encoder(pixels), device)[1]


if __name__ == "__main__":
    _main()
