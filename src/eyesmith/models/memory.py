"""Whether this machine can hold a model, asked before it is built: afterwards the process would end without a word."""

import os

import torch

from eyesmith.errors import ConfigError


def check_memory(num_params: int, what: str) -> None:
    """Raise ConfigError where `num_params` fp32 numbers, those of `what`, are more than the machine's memory.

    Asks nothing on other devices, `meta` among them.
    """
    if torch.get_default_device().type != "cpu" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 4 * num_params > there:
        raise ConfigError(
            f"{what} have {num_params / 1e9:.1f} G parameters, {4 * num_params / 1e9:.0f} GB in fp32, and this machine "
            f"has {there / 1e9:.0f} GB; take a smaller model (EVA02-L-14 and ViT-L-14 have 0.3 G), or build it on "
            "another device"
        )
