#!/usr/bin/python3
"""Times the hand-over of an image between two servers: scripts/hand-over-time.py PATH/qed [ROUNDS].

Each round writes 4 MiB, asks for a flush, then asks the one server to deactivate and the other to activate. Prints the
median of both together, and the longest, in milliseconds, for each mode.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

qed, rounds = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20


def ask(path, command):
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(path)
        control.sendall(json.dumps({"cmd": command}).encode() + b"\n")
        answer = json.loads(control.makefile().readline())
    assert answer["ok"], answer


def serve(name, *options):
    command = [qed, "serve", "--socket", name, "--control", name + ".c", "-f", "qed", *options, "vm.qed"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    server.stdout.readline()
    return server


for mode in ["classic=on", "journal=off", "journal=on"]:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        subprocess.run([qed, "create", "-q", "-f", "qed", "-o", mode, "vm.qed", "1G"], check=True)
        servers = {"a": serve("a"), "b": serve("b", "--inactive")}
        here, there = "a", "b"
        times = []
        for number in range(rounds):
            write = f"write -q -P {number % 255 + 1} {number * 4}M 4M"
            uri = f"nbd+unix:///?socket={here}"
            subprocess.run(["qemu-io", "-f", "raw", "-t", "unsafe", "-c", write, uri], check=True)
            # As a manager does before it stops the guest.
            ask(here + ".c", "flush")
            start = time.monotonic()
            ask(here + ".c", "deactivate")
            ask(there + ".c", "activate")
            times.append((time.monotonic() - start) * 1000)
            here, there = there, here
        for server in servers.values():
            server.terminate()
            server.wait()
        subprocess.run([qed, "check", "-q", "-f", "qed", "vm.qed"], check=True)
        os.chdir("/")
        print(f"{mode}: median {statistics.median(times):.1f} ms, longest {max(times):.1f} ms of {rounds}")
