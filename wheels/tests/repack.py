"""Another release of jemalloc-sys, made from a wheel of ours: what an index may hold later."""

import base64
import hashlib
import re
import zipfile


def repack(wheel, folder, version, replaced=None):
    """Write `wheel` into `folder` under another version; the path.

    `replaced` maps names in the wheel to new contents.
    """
    name, old = wheel.name.split("-")[:2]
    before, after = f"{name}-{old}.dist-info/", f"{name}-{version}.dist-info/"
    path = folder / wheel.name.replace(f"-{old}-", f"-{version}-", 1)
    records = []
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for item in source.infolist():
            content = (replaced or {}).get(item.filename, source.read(item))
            if item.filename in (before + "METADATA", f"{name}/_version.py"):
                content = re.sub(re.escape(old), version, content.decode()).encode()
            item.filename = item.filename.replace(before, after)
            if item.filename == after + "RECORD":
                continue
            out.writestr(item, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            records.append(f"{item.filename},sha256={digest.decode()},{len(content)}\n")
        out.writestr(after + "RECORD", "".join(records) + f"{after}RECORD,,\n")
    return path
