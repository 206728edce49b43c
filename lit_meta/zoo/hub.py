"""The Hugging Face hub: entries fetched from it, and uploaded to it. Needs the extra ``hub``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_meta.zoo.layout import CONFIG, FILES, SNAPSHOTS, Files, locate

if TYPE_CHECKING:
    from torch import nn

_ADDRESS = re.compile(r"(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(@(?P<revision>[\w./-]+))?")
_LARGEST = 2 << 30  # Bytes of a file.
# Errors of the hub's client, and of the libraries that it calls the network with.
_UNREACHABLE = {
    *(
        "LocalEntryNotFoundError",
        "OfflineModeIsEnabled",
        "ConnectionError",
        "ConnectError",
        "Timeout",
        "TimeoutException",
    ),
}


def from_pretrained(repository: str, *, revision: str | None = None, with_rule: bool = False) -> nn.Module:
    """A network of the hub, as `lit_meta.zoo.load`.

    Args:
        repository: ``"owner/name"``.
        revision: a branch, a tag or a commit; None takes the main branch.
        with_rule: as of `lit_meta.zoo.load`.

    Raises:
        FileNotFoundError: there is no such repository or file, or the hub cannot be reached and nothing of it is kept here.
        ModuleNotFoundError: huggingface_hub is not installed.
        ValueError: the address is none, or what came is no entry.
    """
    from lit_meta.zoo.entries import load

    return load(f"hf://{repository}" + (f"@{revision}" if revision else ""), with_rule=with_rule)


def push_to_hub(
    source: str | Path, repository: str, *, private: bool = False, message: str = "", token: str | None = None
) -> str:
    """Uploads an entry; it is checked before anything leaves this machine.

    Args:
        source: the name of an entry, or the folder of one (`lit_meta.zoo.save` makes it of a module).
        repository: ``"owner/name"``; made if it does not exist.
        private: whether a new repository is visible to its owner alone.
        message: of the commit.
        token: of the hub; None takes the one that ``hf auth login`` has stored.

    Returns:
        The address, for `lit_meta.zoo.load`.

    Raises:
        ModuleNotFoundError: huggingface_hub is not installed.
        OSError: the hub cannot be reached, or refuses.
        ValueError: the entry is damaged or of format 1, or the address is none.
    """
    from lit_meta.zoo.entries import load

    match = _match(repository)
    if match["revision"]:
        raise ValueError(f"an upload goes to a repository, without a revision, got {repository!r}")
    files = locate(source)
    if CONFIG not in files.paths:
        raise ValueError(
            f"{files.name} has the format 1, which the hub does not know: lit-meta zoo migrate {files.name}"
        )
    load(source, with_rule=True)
    hub = _client()
    try:
        api = hub.HfApi(token=token)
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=str(files.path(CONFIG).parent),
            allow_patterns=list(FILES),
            commit_message=message or f"Upload {files.name}",
        )
    except Exception as error:
        raise _refused(hub, error, repository) from None
    return f"hf://{repository}"


def download(address: str) -> Files:
    """The files of an entry on the hub, from its cache where they are there already.

    Args:
        address: ``"owner/name"`` or ``"owner/name@revision"``.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: as of `from_pretrained`.
    """
    match = _match(address)
    repository = f"{match['owner']}/{match['name']}"
    hub = _client()
    paths: dict[str, Path] = {}
    for file in FILES:
        if file == SNAPSHOTS and SNAPSHOTS.encode() not in paths[CONFIG].read_bytes():
            continue  # The card does not list it.
        try:
            path = Path(hub.hf_hub_download(repository, file, revision=match["revision"]))
        except Exception as error:
            raise _refused(hub, error, f"{address} ({file})") from None
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{address}: {file} has {path.stat().st_size:,} bytes, more than any entry")
        paths[file] = path
    return Files(match["name"], paths)


def _match(address: str) -> Any:
    match = _ADDRESS.fullmatch(address)
    if match is None or ".." in address:
        raise ValueError(f"an address of the hub is owner/name or owner/name@revision, got {address!r}")
    return match


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise ModuleNotFoundError(
            "entries of the hub need huggingface_hub: pip install 'lit-meta[hub]'", name="huggingface_hub"
        ) from None
    return huggingface_hub


def _refused(hub: Any, error: Exception, what: str) -> Exception:
    """An error of the client, or of the network below it, as one line."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds:
        return FileNotFoundError(f"the hub has no {what}: it holds no lit-meta entry of the present format")
    if kinds & {"RepositoryNotFoundError", "RevisionNotFoundError"}:
        return FileNotFoundError(f"the hub has no {what}, or it is private (hf auth login)")
    if kinds & _UNREACHABLE:
        return FileNotFoundError(
            f"the hub cannot be reached, and {what} is not kept on this machine: fetch it where there is a network, or load "
            "a folder"
        )
    if isinstance(error, OSError) or "HTTPError" in kinds or "HfHubHTTPError" in kinds:
        return OSError(f"the hub refused {what}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    return error
