"""Records as plain data and JSON."""

import json
import sys


def plain(value):
    """A record, or what holds records, as dicts and lists."""
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if hasattr(value, "__match_args__") and hasattr(value, "__dict__"):
        return {name: plain(field) for name, field in vars(value).items()}
    if isinstance(value, dict):
        return {name: plain(field) for name, field in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(field) for field in value]
    return value


def as_json(value):
    """Readable JSON."""
    return json.dumps(plain(value), indent=2, default=str) + "\n"


def write_json(value):
    """Print it; the whole of what `--json` prints."""
    sys.stdout.write(as_json(value))


def simple(name, doc, arguments):
    """For a command whose one option is ``--json``: whether it was given, or a status."""
    if arguments[:1] in (["-h"], ["--help"]):
        print(doc.strip())
        return 0
    if arguments not in ([], ["--json"]):
        print(f"python -m alloc {name}: unknown arguments {arguments}", file=sys.stderr)
        return 2
    return bool(arguments)
