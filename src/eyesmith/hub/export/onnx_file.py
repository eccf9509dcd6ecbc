"""Programs of torch.export to ONNX files, their 8-bit form, and running both in onnxruntime."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from eyesmith.errors import MissingDependencyError

LARGE_BYTES = 1 << 30  # weights from here on lie beside the ONNX file; protobuf itself ends at 2 GiB
_HINT = "pip install 'eyesmith[export]'"


def require_onnx() -> None:
    """Raise MissingDependencyError unless the packages that write and run ONNX files are installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(f"ONNX files need the package {error.name or 'onnx'}: {_HINT}") from error


def has_external_data(program: ExportedProgram, *, is_wanted: bool) -> bool:
    """Whether the program's weights go into a file of their own."""
    weights = sum(tensor.nbytes for tensor in program.state_dict.values())
    return is_wanted or weights >= LARGE_BYTES


def write_onnx(
    program: ExportedProgram,
    path: Path,
    *,
    takes: Mapping[str, Sequence[int | str]],
    gives: Mapping[str, Sequence[int | str]],
    opset: int,
    external_data: bool,
    facts: Mapping[str, str],
) -> None:
    """Write a program to `path` (and `path`.data, where the weights are to be apart).

    takes, gives: axes of each input and output by its name, in order, a free axis by its name. facts: put into the
    metadata of the file. Nodes say nothing of the code they came from.
    """
    import onnx_ir

    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=list(takes),
            output_names=list(gives),
            verbose=False,
        )
    assert made is not None
    model: Any = made.model
    _strip(model)
    for values, named in ((model.graph.inputs, takes), (model.graph.outputs, gives)):
        for value, axes in zip(values, named.values(), strict=True):
            value.shape = onnx_ir.Shape(axes)
    model.metadata_props.update(facts)
    model.producer_name = "eyesmith"
    made.save(path, external_data=external_data)


def _strip(model: Any) -> None:
    """Take out what the exporter says of the Python code behind each node, and all shapes but those at both ends.

    Every reader infers them; onnxruntime's quantizer transposes weights and then stumbles over the old shapes.
    """
    graph = model.graph
    ends = {id(value) for value in graph.outputs}
    for node in graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            if id(value) not in ends:
                value.shape = value.type = None
    for value in graph.initializers.values():
        value.metadata_props.clear()
        value.shape = value.type = None
    for value in (*graph.inputs, *graph.outputs):
        value.metadata_props.clear()
    graph.metadata_props.clear()
    model.metadata_props.clear()


def quantize(source: Path, target: Path, *, external_data: bool) -> None:
    """Write the 8-bit form of an fp32 ONNX file.

    Matrix products with a weight take int8 weights, one scale for each output channel, and activations rounded to
    uint8 with a scale found at run time. Convolutions, attention products and all the rest stay fp32.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with warnings.catch_warnings(), _quiet(None):
        warnings.simplefilter("ignore")
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=external_data,
        )


class OnnxRunner:
    """An ONNX file, run by onnxruntime on the CPU."""

    def __init__(self, path: Path, *, num_threads: int | None = None) -> None:
        """num_threads: None: as many as torch uses."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads() if num_threads is None else num_threads
        options.log_severity_level = 3  # errors; it warns of every constant it folds
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = [one.name for one in self._session.get_inputs()]

    def __call__(self, batch: Tensor) -> Tensor:
        """The features of one batch, fp32 [B, D], by a file with one input and one output."""
        (features,) = self.outputs(batch)
        return features

    def outputs(self, *inputs: Tensor) -> list[Tensor]:
        """All outputs, in the file's order, of all its inputs in its order."""
        given = {name: value.numpy() for name, value in zip(self._inputs, inputs, strict=True)}
        return [torch.from_numpy(np.asarray(one)) for one in self._session.run(None, given)]


@contextmanager
def _quiet(*names: str | None) -> Iterator[None]:
    """These loggers (None: the root) say nothing below an error: their advice is for authors of exporters."""
    handlers = list(logging.root.handlers)
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        logging.root.handlers[:] = handlers  # quantize_dynamic logs on the root, which installs a handler
