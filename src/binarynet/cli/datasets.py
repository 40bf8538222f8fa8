"""`binarynet datasets`: what is there, where, and whether it is what was published."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.text import Text

from binarynet.cli._console import print_json, stdout
from binarynet.cli._options import DataDir, Json

if TYPE_CHECKING:
    from binarynet.data import FileStatus

_INDENT = 15
_MARKS = {"published": "green", "differs": "yellow", "unchecked": "yellow", "damaged": "red", "missing": "red"}


def datasets(data: DataDir = None, json: Json = False) -> None:
    """List the data sets: what is there, where, checksums."""
    from binarynet.data import status
    from binarynet.data.status import DatasetStatus

    found = status(data)
    if json:
        print_json([asdict(entry) for entry in found])
        return
    console = stdout()
    width = min(console.width, 100)

    def below(text: Text, indent: int = _INDENT) -> None:
        for line in text.wrap(console, width - indent):
            line.rstrip()
            console.print(Text(" " * indent) + line, soft_wrap=True)

    def show(entry: DatasetStatus) -> None:
        state = ("ready", "green") if entry.ready else ("not here", "yellow")
        where = f"  {entry.where}" if entry.where else ""
        console.print(Text.assemble((f"{entry.name:<{_INDENT}}", "bold"), state, where), soft_wrap=True)
        below(Text(entry.summary, style="dim"))
        present = any(file.path is not None for file in entry.files)
        for file in entry.files if present else ():
            size = f"{file.size_bytes:>11,}" if file.size_bytes is not None else " " * 11
            name = file.path.name if file.path is not None else file.name
            below(Text.assemble(f"{name:<27}{size}  ", (_check(file), _MARKS[file.check])))
        if any(file.check == "differs" for file in entry.files):
            below(Text("numbers of images are those of the published files"))
        if not (entry.ready and entry.files):
            below(Text(entry.detail))
        console.print()

    for entry in found:
        show(entry)
    below(
        Text(
            "Your own data are taken wherever a data set is named: a folder with one folder of PNG or JPEG pictures "
            "per class, or an .npz file with x (uint8) and y (class indices)."
        ),
        indent=0,
    )


def _check(file: FileStatus) -> str:
    """What is known of a file; its checksum only where it has it, the published one where it should."""
    if file.check == "published":
        return f"md5 {file.md5[:8]}  published"
    if file.check == "differs":
        return f"differs from md5 {file.md5[:8]}"
    if file.check == "missing":
        return f"missing (md5 {file.md5[:8]})" if file.md5 else "missing"
    return file.check
