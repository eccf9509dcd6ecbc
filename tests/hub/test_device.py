import pytest
import torch

from eyesmith.errors import ConfigError
from eyesmith.hub.device import find_device


def test_the_gpu_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device("cpu") == torch.device("cpu")
    made: list[object] = []
    monkeypatch.setattr(torch, "zeros", lambda *_, device: made.append(device))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device() == torch.device("cuda", 0)
    assert find_device(local_rank=1) == torch.device("cuda", 1)
    assert find_device("cuda", local_rank=1) == torch.device("cuda", 1)
    assert find_device("cuda:0", local_rank=1) == torch.device("cuda", 0)
    assert find_device("cpu", local_rank=1) == torch.device("cpu")
    assert made[-1] == torch.device("cpu")  # each was tried


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", "cpu:x"])
def test_a_device_that_is_not_there_is_an_error_of_one_line(name: str) -> None:
    with pytest.raises(ConfigError, match="device: expected") as caught:
        find_device(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)
