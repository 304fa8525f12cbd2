"""From a recipe to a machine that is rented: what SkyPilot, Slurm, Kubernetes and HF Jobs take."""

from ptft.launch.kubernetes import Form
from ptft.launch.rendered import Rendered, System, render_launch, submit, write_rendered
from ptft.launch.section import LaunchFile, launch_json_schema, load_launch

__all__ = [
    "Form",
    "LaunchFile",
    "Rendered",
    "System",
    "launch_json_schema",
    "load_launch",
    "render_launch",
    "submit",
    "write_rendered",
]
