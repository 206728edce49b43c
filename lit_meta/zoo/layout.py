"""The files of an entry, and where entries lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lit_meta.utils.paths import own_zoo_folder, zoo_folder
from lit_meta.utils.registry import unknown
from lit_meta.utils.renamed import present_name

FORMAT = 3  # Entries without references and snapshots are of format 2, which older versions read.
CONFIG, MODEL, RULE, GOLDEN, PAGE = (
    "config.json",
    "model.safetensors",
    "rule.safetensors",
    "golden.safetensors",
    "README.md",
)
SNAPSHOTS = "snapshots.safetensors"  # Of entries that are small enough, and of format 3.
LEGACY_CARD = "card.yaml"  # In place of config.json and golden.safetensors in entries of format 1.
FILES = (CONFIG, MODEL, RULE, GOLDEN, SNAPSHOTS, PAGE)
# The hub puts it into every repository; git reads it, and nothing here does.
_BESIDE = (".gitattributes",)
_HUB = "hf://"


@dataclass(frozen=True)
class Files:
    """Where the files of one entry are.

    Attributes:
        name: of the entry, as its folder or its repository is called.
        paths: by file name; files that are absent are left out.
        in_zoo: whether the folder lies in a zoo, where it has the name of its entry; elsewhere it may be called anything.
    """

    name: str
    paths: Mapping[str, Path]
    in_zoo: bool = False

    def path(self, file: str) -> Path:
        """Where a file is.

        Raises:
            FileNotFoundError: it is absent.
        """
        if file not in self.paths:
            raise FileNotFoundError(f"{self.name} has no file {file}: fetch the entry again")
        return self.paths[file]


def names() -> list[str]:
    """The names of all entries: those included in the package, and the user's own.

    Example:
        >>> "mlp.naca_split-digits" in names()
        True
    """
    found = set()
    for folder in _folders():
        found |= {path.parent.name for card in (CONFIG, LEGACY_CARD) for path in folder.glob(f"*/{card}")}
    return sorted(found)


def entry_folder(name: str) -> Path:
    """Where the files of an entry lie; of one that is not there yet, where they would."""
    lying = (folder / name for folder in _folders() if name in names() and _is_entry(folder / name))
    return next(lying, own_zoo_folder() / name)


def is_path(source: str | Path) -> bool:
    """Whether the user wrote a path rather than a name of the zoo.

    Example:
        >>> is_path(Path("mine")), is_path("./mine"), is_path("runs/mine"), is_path("mine"), is_path("mine/../../x")
        (True, True, True, False, False)
    """
    if isinstance(source, Path):
        return True
    if source.startswith(("/", "./", "../", "~")) or source in (".", ".."):
        return True
    parts = Path(source).parts
    return len(parts) > 1 and ".." not in parts and not source.startswith(_HUB)


def locate(source: str | Path) -> Files:
    """The files of an entry by its name, its folder, or ``"hf://owner/name@revision"``.

    Raises:
        KeyError: no entry of that name; the nearest are named.
        FileNotFoundError: no such folder, or it holds no entry.
        ValueError: the folder holds a file that is no part of an entry, or the address is not one of the hub.
    """
    if isinstance(source, str) and source.startswith(_HUB):
        from lit_meta.zoo.hub import download

        return download(source.removeprefix(_HUB))
    if not is_path(source):
        if source not in names():
            source = present_name(str(source))
        if source not in names():
            raise unknown("zoo entry", source, names(), listed_by="lit-meta zoo list")
        return _in_folder(entry_folder(str(source)), in_zoo=True)
    folder = Path(source).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not _is_entry(folder):
        raise FileNotFoundError(f"{folder} holds no zoo entry: there is no {CONFIG}")
    return _in_folder(folder.resolve(), in_zoo=False)


def _in_folder(folder: Path, *, in_zoo: bool) -> Files:
    legacy = not (folder / CONFIG).is_file()
    known = (LEGACY_CARD, MODEL, RULE, PAGE) if legacy else FILES
    for path in sorted(folder.iterdir()):
        outside = path.is_symlink() and path.resolve().parent != folder.resolve()
        if path.name not in (*known, *_BESIDE) or path.is_dir() or outside:
            raise ValueError(
                f"{folder} holds {path.name!r}, which is no part of an entry ({', '.join(known)}): remove it"
            )
    return Files(folder.name, {file: folder / file for file in known if (folder / file).is_file()}, in_zoo)


def _is_entry(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or (folder / LEGACY_CARD).is_file()


def _folders() -> tuple[Path, Path]:
    """The package's zoo comes first, so that no added entry can replace one of its entries."""
    return zoo_folder(), own_zoo_folder()
