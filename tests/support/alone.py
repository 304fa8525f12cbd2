"""A command on a network of its own, where every attempt to leave the machine is seen.

``alone(seen, command)`` is the command within a network namespace that has loopback alone. Every
address is routed to loopback there, so that whatever is sent to any other host is a packet that a
raw socket sees: by Python or by native code, by name (a query to the resolver) or by number. Where
no namespace may be made it is the command under Python's audit hook, which native code escapes.
Either way ``seen`` holds a line for each attempt.

Within the namespace this file runs as a program.
"""

import fcntl
import ipaddress
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

__all__ = ["alone", "namespace"]

_HOOK = """
import ipaddress, os, socket, sys

def _far(host):
    host = host.decode() if isinstance(host, bytes) else str(host)
    if host in ("", "localhost", "None", socket.gethostname()):
        return ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return "" if address.is_loopback or address.is_unspecified else host

def _hook(event, values):
    if event not in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        return
    where = values[0] if event == "socket.getaddrinfo" else values[1]
    host = where[0] if isinstance(where, tuple) else where if event[-1] == "o" else ""
    if far := _far(host):
        with open(os.environ["ALONE_SEEN"], "a") as seen:
            seen.write(f"{event} {far}\\n")

sys.addaudithook(_hook)
"""
_ALL_PACKETS, _OUTGOING = 3, 4  # linux/if_ether.h, linux/if_packet.h
_IPV4, _IPV6 = 0x0800, 0x86DD
_TCP, _UDP = 6, 17
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h


@cache
def namespace() -> list[str]:
    """How a namespace is entered here; empty where none may be made."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    words = ["unshare", *user, "--net"]
    if not all(map(shutil.which, ("unshare", "ip"))):
        return []
    done = subprocess.run([*words, "true"], capture_output=True)
    return [] if done.returncode else words


def alone(seen: Path, command: list[str], *, hook: bool = False) -> list[str]:
    """The command, apart.

    Args:
        seen: a file that is made, for a line an attempt.
        command: what runs.
        hook: use the audit hook, though a namespace may be made.
    """
    seen.touch()
    if namespace() and not hook:
        return [*namespace(), sys.executable, __file__, str(seen), *command]
    folder = seen.with_suffix(".hook")
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_HOOK)
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return ["env", f"PYTHONPATH={paths}", f"ALONE_SEEN={seen}", *command]


def main() -> int:
    seen, *command = sys.argv[1:]
    with socket.socket() as any_socket:
        name = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, _GET_FLAGS, name))[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh", b"lo", flags | _UP))
    subprocess.run(["ip", "route", "add", "local", "default", "dev", "lo"], check=True)
    subprocess.run(["ip", "-6", "route", "add", "local", "::/0", "dev", "lo"], check=False)
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL_PACKETS))
    packets.bind(("lo", 0))
    packets.settimeout(0.1)
    over = threading.Event()
    watching = threading.Thread(target=_watch, args=(packets, Path(seen), over))
    watching.start()
    try:
        return subprocess.run(command).returncode
    finally:
        over.set()
        watching.join()


def _watch(packets: socket.socket, seen: Path, over: threading.Event) -> None:
    """Until it is over and nothing is left to be read."""
    while True:
        try:
            packet, (_, protocol, direction, *_) = packets.recvfrom(65536)
        except TimeoutError:
            if over.is_set():
                return
            continue
        far = _far(packet, protocol) if direction == _OUTGOING else ""
        if far:
            with seen.open("a") as file:
                file.write(f"{far}\n")


def _far(packet: bytes, protocol: int) -> str:
    """Whom a packet is for, where it begins something and is not for this machine."""
    if protocol == _IPV4:
        kind, start = packet[9], (packet[0] & 15) * 4
        source, target = ipaddress.ip_address(packet[12:16]), ipaddress.ip_address(packet[16:20])
    elif protocol == _IPV6:
        kind, start = packet[6], 40
        source, target = ipaddress.ip_address(packet[8:24]), ipaddress.ip_address(packet[24:40])
    else:
        return ""
    if kind not in (_TCP, _UDP) or (kind == _TCP and packet[start + 13] & 0x12 != 0x02):
        return ""  # ICMP is about a packet that was seen; of a connection the first one counts
    (port,) = struct.unpack_from(">H", packet, start + 2)
    query = kind == _UDP and port == 53
    if target.is_loopback and not query:
        return ""
    name = f", a query: {_name(packet[start + 8 :])}" if query else ""
    return f"{'tcp' if kind == _TCP else 'udp'} {target}:{port}{name} (from {source})"


def _name(query: bytes) -> str:
    labels, at = [], 12
    while at < len(query) and query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode(errors="replace"))
        at += 1 + query[at]
    return ".".join(labels)


if __name__ == "__main__":
    sys.exit(main())
