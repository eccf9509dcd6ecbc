"""What to export a model as: the choices of one export, checked before any work is done."""

from dataclasses import dataclass
from typing import Literal

from eyesmith.errors import ConfigError

Format = Literal["onnx", "onnx_int8", "torch_export"]
Part = Literal["image", "text", "both"]
Pixels = Literal["uint8", "float32"]

OPSETS = range(18, 24)  # 18 is the first that torch's exporter writes without a conversion step


@dataclass(frozen=True, kw_only=True)
class ExportTarget:
    """The form of an exported model."""

    format: Format = "onnx"
    """onnx: fp32 ONNX. onnx_int8: ONNX with 8-bit weights and activations in matrix products, for CPUs. torch_export:
    a program of torch.export."""
    part: Part = "both"
    """Which towers; each becomes a file of its own."""
    is_dynamic_size: bool = False
    """Any image size that is a multiple of the stride; only for encoders without a position table (ViTamin-XL)."""
    pixels: Pixels = "uint8"
    """uint8: RGB bytes 0..255, normalised inside the file. float32: already normalised with the card's mean and std."""
    is_unit: bool = True
    """Features of length 1, as search and classification want them; else as the head gives them."""
    opset: int = 18
    """ONNX operator set."""
    external_data: bool = False
    """Weights in a file of their own beside the ONNX file; always so for weights of 1 GiB and more."""

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise ConfigError(f"opset: expected {OPSETS[0]} to {OPSETS[-1]}, got {self.opset}")
        if self.format == "torch_export" and self.external_data:
            raise ConfigError("external_data: a torch.export program is one file; choose the format onnx")

    @property
    def parts(self) -> tuple[Literal["image", "text"], ...]:
        """The towers to write, in order."""
        return ("image", "text") if self.part == "both" else (self.part,)

    @property
    def suffix(self) -> str:
        """Of the files that hold a tower."""
        return ".pt2" if self.format == "torch_export" else ".onnx"
