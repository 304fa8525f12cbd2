"""ONNX files of small modules: axes, external weights, and what is stripped."""

import logging
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from ptft.errors import ExportError, ParityError
from ptft.export import graph
from ptft.export.graph import Tower, check_axes, write_graph
from ptft.export.parity import compare_embeddings, measure_parity, run_apart
from ptft.onnx import graph_file
from ptft.onnx.quantise import learns_ranges


class Pooled(nn.Module):
    """int64 (B, L) -> (B, 4); ``fixed`` bakes one length in."""

    def __init__(self, fixed: int | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(300, 4)
        self.fixed = fixed

    def forward(self, input_ids: Tensor) -> Tensor:
        rows = self.embedding(input_ids)
        if self.fixed is not None:
            rows = rows + torch.zeros(1, self.fixed, 4)
        return rows.mean(dim=1)


def tower(module: nn.Module, *, length: bool = True) -> Tower:
    axes: dict[int, tuple[str, int | None]] = {0: ("batch", None)}
    if length:
        axes[1] = ("length", 16)
    example = torch.arange(12).reshape(2, 6)
    return Tower(module.eval(), "input_ids", "text_embeds", example, axes)


@pytest.mark.parametrize("external", [False, True])
def test_any_batch_and_length_also_with_weights_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external: bool
) -> None:
    if external:
        monkeypatch.setattr(graph_file, "EXTERNAL_OVER", 1000)
    module = Pooled()
    path = tmp_path / "text_model.onnx"
    write_graph(tower(module), path)
    assert (tmp_path / "text_model.onnx_data").is_file() is external
    batches = {name: np.arange(b * n).reshape(b, n) for name, b, n in (("a", 1, 1), ("b", 3, 16))}
    expected = {
        name: module(torch.from_numpy(batch)).detach().numpy() for name, batch in batches.items()
    }
    parity = measure_parity(path, batches, expected)
    assert parity.max_abs < 1e-6
    assert parity.shapes == ["1x1", "3x16"]
    assert parity.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert parity.bytes > 300 * 4 * 4


def test_a_length_that_comes_out_fixed_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "text_model.onnx"
    wanted = r"text_model\.onnx: input_ids has axes \['batch', 6\]; wanted: \['batch', 'length'\]"
    with pytest.raises(ExportError, match=wanted):  # torch's exporter itself says nothing
        write_graph(tower(Pooled(fixed=6)), path)
    write_graph(tower(Pooled(), length=False), path)
    with pytest.raises(ExportError, match=wanted):
        check_axes(path, tower(Pooled()))


def test_axes_are_checked_without_the_weights(tmp_path: Path) -> None:
    module = Pooled()
    module.embedding = nn.Embedding(500_000, 4)
    path = tmp_path / "text_model.onnx"
    write_graph(tower(module), path)
    weights = 500_000 * 4 * 4
    assert path.stat().st_size > weights
    tracemalloc.start()
    try:
        check_axes(path, tower(module))
        assert not learns_ranges(path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < weights / 10


def test_nothing_is_said_or_left_of_the_machine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "text_model.onnx"
    with caplog.at_level(logging.WARNING):
        write_graph(tower(Pooled()), path)
    assert not caplog.records
    assert capsys.readouterr() == ("", "")
    proto = onnx.load(path)
    assert (proto.producer_name, proto.doc_string) == ("ptft", "")
    assert [(opset.domain, opset.version) for opset in proto.opset_import] == [("", graph.OPSET)]
    text = str(proto)
    assert "stack_trace" not in text
    assert "metadata_props" not in text
    assert __file__ not in text


def test_a_difference_is_measured_on_normalised_rows() -> None:
    a = np.array([[3.0, 4.0]], np.float32)
    assert compare_embeddings(2 * a, a, "x")[0] == 0.0
    largest, raw, cosine = compare_embeddings(np.array([[4.0, 3.0]], np.float32), a, "x")
    assert largest == pytest.approx(0.2)
    assert raw == pytest.approx(1.0)
    assert cosine == pytest.approx(0.96)
    with pytest.raises(ParityError, match="shape"):
        compare_embeddings(a[:, :1], a, "x")


def test_nan_is_no_parity(tmp_path: Path) -> None:
    module = Pooled()
    with torch.no_grad():
        module.embedding.weight.fill_(torch.nan)
    path = tmp_path / "text_model.onnx"
    write_graph(tower(module), path)
    batch = {"a": np.zeros((2, 3), np.int64)}
    with pytest.raises(ParityError):
        measure_parity(path, batch, {"a": np.ones((2, 4), np.float32)})


def test_a_file_that_is_no_model_is_an_export_error(tmp_path: Path) -> None:
    path = tmp_path / "text_model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"text_model\.onnx: onnxruntime cannot run it"):
        run_apart(path, {"a": np.zeros((1, 1), np.int64)})
