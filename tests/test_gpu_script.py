"""``make gpu``, each part on a CPU and as small as can be: it is to run at first contact."""

from pathlib import Path

import pytest
import torch

from tests.gpu import HEAD, SECONDS, main, record


def test_every_part_runs_and_is_recorded(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n\n## One\n\ntext\n")
    assert main(["--smoke", "--results", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("# Results\n\n## One\n\ntext\n\n## On a GPU\n\n")
    assert f"torch {torch.__version__}" in text
    assert "`tests/train/test_gpu.py`: " in text
    assert "times open_clip's speed" in text
    assert "| cpu | " in text
    assert sum(SECONDS.values()) < 8 * 60


def test_a_second_time_takes_the_place_of_the_first(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text(f"# Results\n\n{HEAD}\n\nold\n\n## After\n\nkept\n")
    record(page, "new")
    record(page, "newer")
    assert page.read_text() == f"# Results\n\n{HEAD}\n\nnewer\n\n## After\n\nkept\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: it would run")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert "torch sees no GPU here" in capsys.readouterr().err
