"""Reads what ``ptft launch`` wrote as the systems' own libraries do, in their environment.

Arguments: files; ``*.sky.yaml`` are SkyPilot tasks, others objects of Kubeflow's models. Prints a
JSON object: by file, what was understood.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml


def sky_task(path: Path) -> dict[str, Any]:
    import sky

    task = sky.Task.from_yaml(str(path))
    (resources,) = task.resources
    again = task.to_yaml_config()
    return {
        "name": task.name,
        "nodes": task.num_nodes,
        "accelerators": resources.accelerators,
        "spot": resources.use_spot,
        "image": resources.image_id,
        "config": resources.cluster_config_overrides,
        "recovery": resources.job_recovery,
        "run": task.run,
        "mounts": again.get("file_mounts", {}),
    }


def kubeflow_objects(path: Path) -> list[dict[str, Any]]:
    """Each read into its model and written again: what the model has no place for is lost."""
    from kubeflow_trainer_api import models

    kinds = {"JobSet": models.JobsetV1alpha2JobSet, "TrainJob": models.TrainerV1alpha1TrainJob}
    found = []
    for document in yaml.safe_load_all(path.read_text()):
        model = kinds[document["kind"]].from_dict(document)
        found.append(json.loads(model.to_json()))
    return found


if __name__ == "__main__":
    told = {
        name: sky_task(Path(name)) if name.endswith(".sky.yaml") else kubeflow_objects(Path(name))
        for name in sys.argv[1:]
    }
    print(json.dumps(told))  # noqa: T201
