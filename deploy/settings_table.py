"""Owns the table of settings in docs/settings.md; knows where it goes and not what a setting is for.

`python deploy/settings_table.py` writes it from the code; with --check it writes nothing, and exits 1
where it differs.
"""

import re
import sys
from dataclasses import fields
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/settings.md"
_BETWEEN = re.compile(r"(?<=<!-- settings -->\n).*(?=\n<!-- /settings -->)", re.DOTALL)


def table() -> str:
    """A row for each setting: its variable, flag, default, and what it is."""
    sys.path.insert(0, str(ROOT))
    from service.settings import Settings

    rows = ["| variable | flag | default | |", "|---|---|---|---|"]
    for setting in fields(Settings):
        value = "models/default" if setting.name == "model" else setting.default
        default = "" if value == "" else f"`{value}`"
        flag = "--" + setting.name.replace("_", "-")
        rows.append(f"| `QA_{setting.name.upper()}` | `{flag}` | {default} | {setting.metadata['help']} |")
    return "\n".join(rows)


def main() -> int:
    """Write or check the page; the exit status."""
    before = PAGE.read_text(encoding="utf-8")
    text = _BETWEEN.sub(lambda _: table(), before)
    if text == before:
        return 0
    if "--check" in sys.argv[1:]:
        print("docs/settings.md: run deploy/settings_table.py.", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
