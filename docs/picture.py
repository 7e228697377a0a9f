#!/usr/bin/env python3
"""Draws docs/status.svg: what `pipeline-state status` prints on a terminal of 80 columns.

    docs/picture.py [BINARY]        # default: target/debug/pipeline-state

The output is real: a pipeline with a phase, tasks, a signal, a script that holds a lock and one
that waits for it. The picture follows the reader's light or dark colours.
"""

import fcntl
import html
import os
import pathlib
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS, ROWS = 80, 24
WIDTH, HEIGHT, PAD = 8.4, 18, 14
COLOURS = {"31": "red", "32": "green", "33": "yellow", "36": "cyan", "1": "bold"}
LIGHT = {"rect": "#ffffff", "text": "#24292f", ".red": "#cf222e", ".green": "#1a7f37",
         ".yellow": "#9a6700", ".cyan": "#0550ae"}
DARK = {"rect": "#0d1117", "text": "#e6edf3", ".red": "#ff7b72", ".green": "#3fb950",
        ".yellow": "#d29922", ".cyan": "#79c0ff"}


def fills(colours):
    return " ".join(f"{what} {{ fill: {colour} }}" for what, colour in colours.items())


STYLE = f"""
  rect {{ stroke: #8b949e }}
  text {{ font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace }}
  .bold {{ font-weight: bold }}
  {fills(LIGHT)}
  @media (prefers-color-scheme: dark) {{ {fills(DARK)} }}"""


def on_terminal(command, env, directory):
    """What a command prints on a terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    child = subprocess.Popen(command, env=env, cwd=directory, stdout=slave, stderr=slave)
    os.close(slave)
    printed = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # the last writer is gone
            break
        if not piece:
            break
        printed += piece
    child.wait()
    return printed.decode().replace("\r\n", "\n")


def scene(binary):
    """The terminal's lines: the command and what it prints."""
    top = pathlib.Path(tempfile.mkdtemp())
    root = top / "shop"
    root.mkdir()
    (top / "bin").mkdir()
    (top / "bin/pipeline-state").symlink_to(binary)
    env = {"PATH": f"{top}/bin:{os.environ['PATH']}", "HOME": str(top), "TERM": "xterm-256color",
           "AUDIT_LOG": str(root / "audit.log")}
    for name, body in {
        "build.sh": "pipeline-state state init -q && pipeline-state set phase=deploy -q"
                    " && pipeline-state state complete lint unit-tests package -q"
                    " && pipeline-state state signal BUILD_DONE -q",
        "deploy.sh": "pipeline-state lock acquire deploy -q; sleep 60; :",
        "rollback.sh": "pipeline-state lock acquire deploy 60 -q; :",
    }.items():
        (root / name).write_text(f"#!/bin/sh\n{body}\n")
        (root / name).chmod(0o755)
    subprocess.run(["./build.sh"], env=env, cwd=root, check=True)
    scripts = []
    for name, rows in (("deploy.sh", 1), ("rollback.sh", 2)):
        script = subprocess.Popen([f"./{name}"], env=env, cwd=root, start_new_session=True,
                                  stderr=subprocess.DEVNULL)
        scripts.append(script)
        listed = ""
        while listed.count('"lock":"deploy"') < rows:
            listed = subprocess.check_output(["pipeline-state", "lock", "list", "json"], env=env,
                                             cwd=root, text=True)
            time.sleep(0.05)
    try:
        printed = on_terminal(["pipeline-state", "status"], env, root)
    finally:
        for script in scripts:
            os.killpg(script.pid, 15)
            script.wait()
        shutil.rmtree(top)
    return f"$ pipeline-state status\n{printed}".replace(f"{top}/", "/home/me/").rstrip("\n")


def spans(line):
    """The line's text with its colours."""
    out, style = [], ""
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        code = re.fullmatch(r"\x1b\[([0-9;]*)m", part)
        if code:
            style = COLOURS.get(code[1], "")
        elif part:
            text = html.escape(part, quote=False)
            out.append(f'<tspan class="{style}">{text}</tspan>' if style else text)
    return "".join(out)


def draw(lines):
    width, height = COLUMNS * WIDTH + 2 * PAD, len(lines) * HEIGHT + 2 * PAD
    body = "\n".join(
        f'  <text xml:space="preserve" x="{PAD}" y="{PAD + HEIGHT * place + 13}">{spans(line)}</text>'
        for place, line in enumerate(lines) if line)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" '
            f'width="{width:.0f}" height="{height}">\n<style>{STYLE}\n</style>\n'
            f'  <rect x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1}" rx="8"/>\n'
            f"{body}\n</svg>\n")


def main():
    binary = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parent / "target/debug/pipeline-state")
    (HERE / "status.svg").write_text(draw(scene(binary.resolve()).split("\n")))


main()
