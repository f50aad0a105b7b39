"""Weights of a network: from a local file, a Python package, the hub's cache, or the hub. Reading them never runs code.

The hub is Hugging Face's (or the mirror in HF_ENDPOINT). Its token comes from the environment (HF_TOKEN) or from
`hf auth login`; it is sent to the hub only, and never written to a message, a log or a file.
"""

import errno
import hashlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from ctrflow.errors import InputError
from ctrflow.logs import without_token

logger = logging.getLogger("ctrflow")

HUB, PACKAGE, RANDOM = "hub", "package", "random"
_FILES = (".safetensors", ".bin", ".pt", ".pth")
_PHASE_S = 4.0  # to connect, and to answer
_DEADLINE_S = 8.0  # of the request: a name look-up has no timeout of its own
_BY_HAND = "or download the file elsewhere and set `weights: <path>`"
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM)


@dataclass(frozen=True)
class Source:
    """Where weights are published.

    Attributes
    ----------
    page : web page to request access or find the file
    repository : on the hub; empty if the weights are not there
    revision : of the repository; None: the newest
    file : in the repository
    package : file below the folder of a Python package of the environment, "module/path"; empty if there is none
    """

    page: str
    repository: str = ""
    revision: str | None = None
    file: str = "model.safetensors"
    package: str = ""


def access(source: Source, weights: str, name: str) -> str | None:
    """None if the weights are available, else the problem and its cure. Takes seconds, downloads nothing."""
    try:
        if weights == RANDOM:
            return None
        if weights != HUB:
            return _unreadable(find(source, weights, name))
        require_hub(source, name)
        if cached(source):
            return None
        ask_hub(source, name)
    except InputError as error:
        return str(error)
    return None


def find(source: Source, weights: str, name: str) -> Path:
    """The weights file; downloaded from the hub unless it is in the hub's cache.

    Parameters
    ----------
    weights : a path, "package" or "hub"
    name : of the encoder, for messages

    Raises
    ------
    InputError
        if there is no such file, or the hub cannot be reached or denies access; the message says where to request it.
    """
    if weights == PACKAGE:
        return packaged(source, name)
    if weights != HUB:
        return local(weights)
    require_hub(source, name)
    held = cached(source)
    if held:
        return held
    ask_hub(source, name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HTTPError

    logger.info("%s: downloading %s of %s", name, source.file, source.repository)
    try:
        return Path(hf_hub_download(source.repository, source.file, revision=source.revision))
    except (HTTPError, OSError) as error:
        raise refusal(source, name, error) from None


def local(weights: str) -> Path:
    """The path of a local weights file.

    Raises
    ------
    InputError
        if it is missing, or in a format that `read` does not support.
    """
    path = Path(weights)
    if not path.is_file():
        raise InputError(f"{without_token(weights)}: no such weights file; correct `weights` in the configuration")
    if path.suffix not in _FILES:
        raise InputError(f"{path}: unknown suffix; weights are a .safetensors, .bin, .pt or .pth file")
    return path


def packaged(source: Source, name: str) -> Path:
    """The weights file in an installed Python package, which is not imported.

    Raises
    ------
    InputError
        if no package has weights of this encoder, or it is not installed.
    """
    from importlib.util import find_spec

    if not source.package:
        raise InputError(f"{name}: no package has its weights; set `weights` to hub or to the path of a file")
    module, _, file = source.package.partition("/")
    spec = find_spec(module)
    folders = spec.submodule_search_locations if spec else None
    if not folders or not (Path(folders[0]) / file).is_file():
        raise InputError(f"{name}: the package {module.replace('_', '-')} is not installed; install requirements.txt")
    return Path(folders[0]) / file


def require_hub(source: Source, name: str) -> None:
    """Raise an InputError if the weights are not on the hub."""
    if not source.repository:
        raise InputError(f"{name}: the weights are not on the hub; download {source.page} and set `weights: <path>`")


def cached(source: Source) -> Path | None:
    """The file in the hub's cache, if it is there; works offline."""
    from huggingface_hub import try_to_load_from_cache

    held = try_to_load_from_cache(source.repository, source.file, revision=source.revision)
    return Path(held) if isinstance(held, str) else None


def ask_hub(source: Source, name: str) -> None:
    """Check once, with a short timeout (the hub library's retries take 27 s), that the file can be downloaded.

    Raises
    ------
    InputError
        if it cannot, or if there is no answer.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HTTPError

    quieten()
    token = _token()
    url = hf_hub_url(source.repository, source.file, revision=source.revision)
    try:
        _within(_DEADLINE_S, lambda: get_hf_file_metadata(url, token=token, timeout=_PHASE_S), (HTTPError, OSError))
    except (HTTPError, OSError) as error:
        raise refusal(source, name, error) from None


def quieten() -> None:
    """Keep the hub's libraries from logging server responses, which contain signed addresses."""
    logging.getLogger("huggingface_hub").handlers.clear()  # it would print everything twice
    for chatty in ("huggingface_hub", "httpx2", "httpcore2"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


def refusal(source: Source, name: str, error: Exception) -> InputError:
    """The cause and cure of a failed hub request, without text from the server, which might repeat the token."""
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

    status = getattr(getattr(error, "response", None), "status_code", None)
    failed = f"{name}: weights cannot be downloaded"
    gated = f"If they are gated, request access on {source.page} and set HF_TOKEN"
    # without a token, a gated repository may look missing
    if isinstance(error, RepositoryNotFoundError) or status in (401, 403):
        given = "the current token has no access" if _token() else "no token is set"
        return InputError(
            f"{name}: access denied; the weights are gated, or the name is wrong; request access on {source.page} and "
            f"set the environment variable HF_TOKEN to a token of that account ({given}), {_BY_HAND}"
        )
    if status in (404, 410):
        where = f"{source.file} of {source.repository}" + (f" at {source.revision}" if source.revision else "")
        return InputError(f"{failed} (the hub has no {where}); see {source.page}, {_BY_HAND}")
    if status:
        return InputError(f"{failed} (the hub answers {status}); try again later, {_BY_HAND}. {gated}")
    if isinstance(error, OfflineModeIsEnabled):
        return InputError(f"{failed} (HF_HUB_OFFLINE is set and they are not in the cache); unset it, {_BY_HAND}")
    if getattr(error, "errno", None) in _NOT_WRITABLE:
        return InputError(f"{failed} (the hub's cache: {error.strerror}); free space or set HF_HOME, {_BY_HAND}")
    return InputError(f"{failed} ({_reason(error)}); check the network, {_BY_HAND}. {gated}")


def read(path: Path) -> dict:
    """The content of a weights file: a state dict, or as its authors wrapped it.

    Raises
    ------
    InputError
        if it is damaged, or contains more than tensors and plain values.
    """
    import argparse
    from pickle import UnpicklingError

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        try:
            content = load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path}: not a complete safetensors file ({error}); download it again") from error
        _require_numbers(content, path)
        return content
    damaged = f"{path}: not a complete file of torch tensors; download it again"
    try:  # weights_only runs no code from the file; training scripts also store their arguments, a plain Namespace
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:  # torch's message advises to disable weights_only
        raise InputError(f"{damaged}, or save its tensors as .safetensors") from error
    except (RuntimeError, EOFError, ValueError, LookupError, OSError) as error:
        raise InputError(f"{damaged} ({first_line(error)})") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise not_plain(path)
    _require_numbers(content, path)
    return content


def _require_numbers(content: dict, path: Path) -> None:
    """Reject NaN, and expanded tensors, which could take any amount of memory when used."""
    import torch

    for key, value in content.items():
        if isinstance(value, dict):
            _require_numbers(value, path)
        if not isinstance(value, torch.Tensor):
            continue
        if value.layout != torch.strided or value.is_quantized:
            raise not_plain(path)
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            shape = " x ".join(map(str, value.shape))
            raise InputError(f"{path}: {key} is {shape}, but fewer numbers are stored; download it again")
        if value.is_floating_point() and value.float().isnan().any():
            raise InputError(f"{path}: NaN in {key}; download it again")


def not_plain(path: Path) -> InputError:
    """The error for a file that is not a plain state dict."""
    return InputError(f"{path}: not a plain state dict (names to tensors); save `model.state_dict()` as .safetensors")


def digest(model) -> str:
    """SHA-256 of names, types, shapes and values of a torch module's weights, independent of their file format."""
    content = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        content.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        content.update(value.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


def first_line(error: Exception) -> str:
    """The first line of an error's message, else its type."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _unreadable(path: Path) -> str | None:
    """The problem with a local file, by its size and format; its tensors are not read."""
    from zipfile import is_zipfile

    from safetensors import SafetensorError, safe_open

    if not path.stat().st_size:
        return f"{path}: an empty file; download it again"
    if path.suffix != ".safetensors":
        with path.open("rb") as handle:
            old = handle.read(1) == b"\x80"  # from before torch 1.6, not a zip file
        return None if old or is_zipfile(path) else f"{path}: not a complete file of torch tensors; download it again"
    try:
        safe_open(path, framework="numpy").__exit__(None, None, None)
    except SafetensorError as error:
        return f"{path}: not a complete safetensors file ({error}); download it again"
    return None


def _token() -> str | None:
    """The hub's token, if there is one."""
    from huggingface_hub import get_token

    token = get_token()
    # the HTTP library would reject it with a message that repeats it
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise InputError("HF_TOKEN: contains characters that no token has (a space, a line break); set it again")
    return token


def _reason(error: Exception) -> str:
    """The first line of an error, with the token masked."""
    token = _token()
    text = without_token(first_line(error))
    return text.replace(token, "***") if token else text


def _within(seconds: float, call: Callable, expected: tuple[type[Exception], ...]):
    """The result of `call`, which may raise the expected errors; raises TimeoutError if it takes too long."""
    outcome: Future = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except expected as error:
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()  # daemon: a stuck name look-up must not hold the process
    try:
        return outcome.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {seconds:g} s") from error
