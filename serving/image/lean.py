"""``python3 -m serving.image.lean VENV OUT``: what an image needs of a base, and nothing else.
``python3 -m serving.image.lean FOLDER``: a folder of modules, made ready for an image.

The interpreter, its library, the shared libraries that these and the packages of VENV load (found
by ldd, followed to the end), certificates, a user, and the packages without what is never imported.
OUT is then two roots, ``base`` and ``packages``, each a layer. It runs in the build stage, on any
base of Debian's kind with Python 3.11 or newer, and needs no package itself.

Files are compiled with hashes in place of times, and every time is SOURCE_DATE_EPOCH's, so that one
tree gives the same bytes twice.
"""

import compileall
import fnmatch
import os
import py_compile
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["NEVER_IMPORTED", "finish", "main"]

STDLIB_LEFT_OUT = (
    *("test", "idlelib", "lib2to3", "tkinter", "turtledemo", "turtle.py", "ensurepip"),
    *("pydoc_data", "distutils", "msilib", "config-*", "site-packages", "dist-packages"),
    *("__pycache__", "lib-dynload/_tkinter.*", "lib-dynload/*test*", "lib-dynload/xx*"),
    # with the libraries of Kerberos, databases and terminals that nothing else loads
    *("lib-dynload/nis.*", "lib-dynload/_dbm.*", "lib-dynload/_gdbm.*", "lib-dynload/readline.*"),
    *("sqlite3", "lib-dynload/_sqlite3.*", "lib-dynload/_curses*", "lib-dynload/ossaudiodev.*"),
)
NEVER_IMPORTED = (
    *("*/tests", "*/__pycache__", "*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.c", "*.h", "*.hpp"),
    *("*.dist-info/RECORD", "*.dist-info/direct_url.json", "*.dist-info/REQUESTED"),
    *("pip", "pip-*", "setuptools", "setuptools-*", "pkg_resources", "_distutils_hack"),
    "distutils-precedence.pth",
    # numpy: compilers and what compiles against it; its tests are above
    *("numpy/f2py", "numpy/distutils", "numpy/_core/include", "numpy/_core/lib", "*.a"),
    *("numpy/_core/_simd.*", "numpy/_core/*_tests.*.so"),
    # onnxruntime: tools for exporters, and a second copy of the library for programs in C
    *("onnxruntime/transformers", "onnxruntime/tools", "onnxruntime/quantization"),
    *("onnxruntime/datasets", "onnxruntime/backend", "onnxruntime/capi/libonnxruntime.so*"),
    "onnxruntime/capi/libonnxruntime_providers_tensorrt.so",  # without TensorRT's own libraries
    # Pillow: drawn text, and windows
    *("PIL/_imagingtk.*", "PIL/_imagingft.*", "pillow.libs/libfreetype-*"),
    *("pillow.libs/libharfbuzz-*", "pillow.libs/libbrotli*"),
    *("pycparser", "pycparser-*"),  # of those who compile with cffi
    *("pygments", "pygments-*"),  # colours of source code, which rich asks for in a notebook
    *("huggingface_hub/inference", "huggingface_hub/templates"),
)
FROM_THE_DRIVER = re.compile(r"libcuda\.so\.1|libnvidia-.*")
_LDD = re.compile(r"^\s*(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x", re.MULTILINE)
_MISSING = re.compile(r"^\s*(\S+) => not found", re.MULTILINE)
_LOADED_BY_NAME = ("libgcc_s.so.1", "libnss_dns.so.2", "libnss_files.so.2")
_USERS = "root:x:0:0:root:/root:/none\nptft:x:65532:65532:ptft:/tmp:/none\n"
_GROUPS = "root:x:0:\nptft:x:65532:\n"
_COPIED = ("etc/ssl/certs/ca-certificates.crt", "etc/os-release", "etc/debian_version")


def main(venv: Path, out: Path) -> None:
    """Fill ``out/base`` and ``out/packages``.

    Raises:
        SystemExit: a library that is needed is nowhere.
    """
    base, packages = out / "base", out / "packages" / venv.relative_to("/")
    (site,) = venv.glob("lib/python3*/site-packages")
    prune(site)
    shutil.copytree(venv, packages, symlinks=True, ignore=shutil.ignore_patterns("activate*"))
    for script in (packages / "bin").iterdir():
        if not script.name.startswith("python"):
            script.unlink()
    interpreter = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    stdlib = Path(sysconfig.get_path("stdlib"))
    _copy_stdlib(stdlib, base)
    files = [interpreter, *_objects(base / stdlib.relative_to("/")), *_objects(packages)]
    for path in _objects(packages):
        drop_symbols(path)
    libraries = sorted(_libraries(files, {path.name for path in _objects(packages)}, out))
    for path in [interpreter, *libraries]:
        place(path, base)
    _link(interpreter, base)
    _etc(base)
    compile_all(base / stdlib.relative_to("/"))
    compile_all(packages / "lib")
    write_packages([interpreter, *libraries, *_objects(stdlib)], base)
    for root in (base, out / "packages"):
        set_times(root)


def finish(folder: Path) -> None:
    """Compile a folder of modules, without what nobody imports, and date it."""
    prune(folder)
    compile_all(folder)
    set_times(folder)


def prune(folder: Path) -> None:
    """Take out of a folder of packages what no service imports (``NEVER_IMPORTED``)."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if any(_fits(name, pattern) for pattern in NEVER_IMPORTED):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _fits(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern)


def _copy_stdlib(stdlib: Path, base: Path) -> None:
    def left_out(folder: str, names: list[str]) -> set[str]:
        below = Path(folder).relative_to(stdlib)
        return {
            name
            for name in names
            if any(
                _fits((below / name).as_posix(), pattern) or _fits(name, pattern)
                for pattern in STDLIB_LEFT_OUT
            )
        }

    shutil.copytree(stdlib, base / stdlib.relative_to("/"), ignore=left_out)


def _objects(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.so*")) if path.is_file()]


def drop_symbols(path: Path) -> None:
    """Cut off a shared library what no program loads: debug symbols, the table of sections.

    They stand behind the last segment that the loader maps (elf(5): the program headers say where
    it ends), so what is mapped keeps every byte. A file of another kind stays as it is.
    """
    with path.open("r+b") as file:
        head = file.read(64)
        if len(head) < 64 or head[:6] != b"\x7fELF\x02\x01":
            return
        (at,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        file.seek(at)
        table = file.read(size * count)
        parts = [struct.unpack_from("<4Q", table, n * size + 8) for n in range(count)]
        end = max(at + size * count, *(offset + length for offset, _, _, length in parts))
        file.seek(40)
        file.write(struct.pack("<Q", 0))  # e_shoff
        file.seek(58)
        file.write(struct.pack("<HHH", 0, 0, 0))  # e_shentsize, e_shnum, e_shstrndx
        file.truncate(end)


def _libraries(files: Iterable[Path], bundled: set[str], out: Path) -> Iterator[Path]:
    """Shared libraries outside the packages that ``files`` load, the loader among them.

    Args:
        bundled: names of those that packages bring.
        out: the folder that the packages lie below.
    """
    seen: set[str] = set()
    for file in files:
        told = subprocess.run(["ldd", file], capture_output=True, text=True, check=False).stdout
        for name in _MISSING.findall(told):
            if name not in bundled and not FROM_THE_DRIVER.fullmatch(name):
                raise SystemExit(
                    f"{file}: needs {name}, which is neither in the base nor a package"
                )
        seen |= {match["path"] for match in _LDD.finditer(told)}
    outside = {path for path in seen if not Path(path).is_relative_to(out)}
    folders = {str(Path(path).parent) for path in outside}
    for name in _LOADED_BY_NAME:
        outside |= {f"{folder}/{name}" for folder in folders if Path(folder, name).exists()}
    yield from map(Path, sorted(outside))


def place(path: Path, base: Path) -> None:
    """Copy a file to its own place below ``base``, as what it is and not as a link.

    A top folder that is a link in the base (``/lib`` of a merged ``/usr``) is one here.
    """
    top = Path("/", path.parts[1])
    if top.is_symlink():
        made = base / top.relative_to("/")
        if not made.is_symlink():
            base.mkdir(parents=True, exist_ok=True)
            made.symlink_to(top.readlink())
        path = top.resolve() / path.relative_to(top)
    target = base / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy2(path.resolve(), target)


def _link(interpreter: Path, base: Path) -> None:
    """``python3`` beside the interpreter, to which the virtual environment's own name leads."""
    link = base / interpreter.relative_to("/").with_name("python3")
    if not link.exists():
        link.symlink_to(interpreter.name)


def _etc(base: Path) -> None:
    for name in _COPIED:
        if Path("/", name).is_file():
            place(Path("/", name), base)
    etc = base / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text(_USERS)
    (etc / "group").write_text(_GROUPS)
    (etc / "nsswitch.conf").write_text("hosts: files dns\n")
    (base / "tmp").mkdir(exist_ok=True)
    (base / "tmp").chmod(0o1777)


def compile_all(folder: Path) -> None:
    """Compile every module; a pyc names the hash of its source and no time."""
    compileall.compile_dir(
        folder,
        quiet=1,
        workers=1,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        stripdir=str(folder),
        maxlevels=50,
    )


def write_packages(files: Iterable[Path], base: Path) -> None:
    """What Debian knows of the packages that files came from: their state, which scanners read at
    ``/var/lib/dpkg/status.d``, and their licences."""
    names: set[str] = set()
    for file in files:
        for path in {str(file), str(file.resolve()), str(file.resolve()).removeprefix("/usr")}:
            words = ["dpkg-query", "--search", path]
            told = subprocess.run(words, capture_output=True, text=True, check=False).stdout
            names |= {
                name for line in told.splitlines() for name in line.split(": ")[0].split(", ")
            }
    state = base / "var/lib/dpkg/status.d"
    state.mkdir(parents=True, exist_ok=True)
    for name in sorted(names):
        told = subprocess.run(
            ["dpkg-query", "--status", name], capture_output=True, text=True, check=False
        ).stdout
        plain = name.partition(":")[0]
        (state / plain).write_text(re.sub(r"^Conffiles:\n(?: .*\n)*", "", told, flags=re.M))
        licence = Path("/usr/share/doc", plain, "copyright")
        if licence.is_file():
            place(licence, base)


def set_times(root: Path) -> None:
    """Give every file and folder the time that SOURCE_DATE_EPOCH declares, or that of 1980."""
    when = int(os.environ.get("SOURCE_DATE_EPOCH") or 315532800)
    for folder, folders, files in os.walk(root, topdown=False):
        for name in [*folders, *files]:
            os.utime(Path(folder, name), (when, when), follow_symlinks=False)
    os.utime(root, (when, when))


if __name__ == "__main__":
    if len(sys.argv) == 2:
        finish(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
