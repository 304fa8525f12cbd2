"""Folders of pictures with a metadata table, as people write them."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.shards import picture

__all__ = ["picture_table"]


def picture_table(root: Path, rows: list[dict[str, Any]], form: str = "csv") -> str:
    """A picture for each row, and a metadata table of the form csv, jsonl or parquet."""
    root.mkdir(parents=True)
    for number in range(len(rows)):
        (root / f"{number}.png").write_bytes(picture(number))
    rows = [{"file_name": f"{number}.png", **row} for number, row in enumerate(rows)]
    if form == "csv":
        with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif form == "jsonl":
        (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), root / "metadata.parquet")
    return str(root)
