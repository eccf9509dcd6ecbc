"""On which device a model works: the one a user names, else the GPU where there is one."""

import torch

from eyesmith.errors import ConfigError


def find_device(name: str | None = None, *, local_rank: int = 0) -> torch.device:
    """The device `name` ("cpu", "cuda", "cuda:1", ...); None: the GPU where there is one, else the CPU.

    local_rank: of a process among those of its machine, each of which has the GPU of that number unless one is named.
    Raises ConfigError for a name that torch does not know, and a device that is not there or cannot hold a tensor.
    """
    wanted = name or ("cuda" if torch.cuda.is_available() else "cpu")
    has = f"cuda (with {torch.cuda.device_count()} GPUs) and cpu" if torch.cuda.is_available() else "cpu, and no GPU"
    try:
        device = torch.device(wanted)
        if device.type == "meta":
            raise ValueError("holds no numbers")
        device = torch.device("cuda", local_rank) if device == torch.device("cuda") else device
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ConfigError(
            f"device: expected a device that is there, got {wanted!r} ({reason}); torch has {has}"
        ) from None
    return device
