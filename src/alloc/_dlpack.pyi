from typing import Final

DEVICE: Final[tuple[int, int]]

def export(
    block: object,
    stream: object = None,
    max_version: tuple[int, int] | None = None,
    dl_device: tuple[int, int] | None = None,
    copy: bool | None = None,
) -> object: ...
