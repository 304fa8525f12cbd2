"""``python3 -m serving.image.bom ROOT``: the bill of materials of an image's root, to stdout.

Of the packages of Python what their own metadata say, of Debian's what dpkg knew of them when the
root was put together (``serving.image.lean``), and the interpreter. Needs no package itself.
"""

import re
import sys
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from urllib.parse import quote

from ptft import __version__
from ptft.cyclonedx import Component, bill, licences, pypi_component

__all__ = ["components", "main"]

_CLASSIFIER = "License :: OSI Approved :: "


def main(root: Path) -> str:
    """The document of a root file system."""
    ref = f"pkg:oci/ptft@{__version__}"
    subject: Component = {"type": "container", "bom-ref": ref, "name": "ptft"}
    subject |= {"version": __version__, "licenses": licences("Apache-2.0")}
    return bill(subject, components(root), version=__version__)


def components(root: Path) -> list[Component]:
    """Every package of Python and of Debian in a root, and the interpreter, once each."""
    found = [_of_python(_headers(path)) for path in sorted(root.glob("**/*.dist-info/METADATA"))]
    for path in sorted((root / "var/lib/dpkg/status.d").glob("*")):
        found.append(_of_debian(_headers(path), root))
    number = ".".join(map(str, sys.version_info[:3]))
    interpreter: Component = {"type": "application", "bom-ref": f"python@{number}"}
    interpreter |= {"name": "python", "version": number, "licenses": licences("PSF-2.0")}
    return list({one["bom-ref"]: one for one in [*found, interpreter]}.values())


def _headers(path: Path) -> Message:
    return HeaderParser().parsestr(path.read_text(encoding="utf-8", errors="replace"))


def _of_python(headers: Message) -> Component:
    classified = [
        str(one).removeprefix(_CLASSIFIER)
        for one in headers.get_all("Classifier") or []
        if str(one).startswith(_CLASSIFIER)
    ]
    said = headers["License-Expression"] or headers["License"] or next(iter(classified), "")
    if len(str(said)) > 100 and classified:
        said = classified[0]  # some give the whole text
    return pypi_component(headers["Name"], headers["Version"], str(said))


def _of_debian(headers: Message, root: Path) -> Component:
    name, version = headers["Package"], headers["Version"]
    release = re.search(r'^VERSION_CODENAME="?([\w.-]+)', _read(root / "etc/os-release"), re.M)
    distro = f"&distro={release[1]}" if release else ""
    architecture = headers["Architecture"]
    purl = f"pkg:deb/debian/{name}@{quote(version, safe='.~-')}?arch={architecture}{distro}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.stdout.write(main(Path(sys.argv[1])))
