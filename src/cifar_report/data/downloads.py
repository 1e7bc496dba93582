"""Downloads that resume, try several addresses, and are verified before they get their name."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import requests
import tenacity
import urllib3
from tqdm import tqdm

from cifar_report.base import files
from cifar_report.base.errors import InputError

LARGEST = 2_000_000_000  # bytes of a download: a server that never ends must not fill the disk
BLOCK = 1 << 16  # bytes written at a time: at most so many are fetched again after a break
TRANSIENT = (408, 425, 429)  # status codes below 500 that a later attempt may not meet
HOPELESS = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.TooManyRedirects)


class _Failed(Exception):
    """A transfer failed for good; the message is the reason."""


class _Interrupted(_Failed):
    """A transfer failed, and the next attempt may succeed."""


def fetch(
    urls: Sequence[str],
    target: Path,
    sha256: str,
    advice: str,
    *,
    attempts: int = 6,
    first_wait: float = 1.0,
    timeouts: tuple[float, float] = (10.0, 60.0),
) -> None:
    """Makes `target` the file with this SHA-256, from the first address that gives it; asks none if it is already.

    Bytes collect in `<target>.part`, which outlives a failure or a kill and is continued by the next attempt (HTTP
    Range, RFC 9110 section 14), even from another address: the SHA-256 decides in the end. Two processes take turns.

    Args:
        urls: http or https addresses of the same file, tried in turn.
        advice: what to do where none of them gives it, for the message.
        attempts: at each address; a refusal such as 404 ends them at once.
        first_wait: seconds between the first two attempts; doubles from then on, to 30 at most.
        timeouts: seconds to connect, and seconds of silence, after which an attempt is given up.

    Raises:
        InputError: no address gave the file (the message says why, for each), or it cannot be written.
    """
    if _is(target, sha256):
        return
    part = target.with_name(f"{target.name}.part")
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_Interrupted),
        stop=tenacity.stop_after_attempt(attempts),
        wait=tenacity.wait_exponential(multiplier=first_wait, max=30),
        before_sleep=_tell_of_wait,
        reraise=True,
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.take_lock(target.with_name(f".{target.name}.lock")) or nullcontext():
            if _is(target, sha256):
                return  # another process fetched it meanwhile
            if not _is(part, sha256):
                _try_each(urls, part, sha256, advice, retry, timeouts)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(target)
    except OSError as error:
        raise InputError(
            f"{error.filename or part}: expected to write a download of {target.name} there, found "
            f"'{error.strerror or error}'; make room or give permission, or {advice}"
        ) from error


def _try_each(
    urls: Sequence[str],
    part: Path,
    sha256: str,
    advice: str,
    retry: tenacity.Retrying,
    timeouts: tuple[float, float],
) -> None:
    """Makes `part` the file, from the first address that gives it."""
    reasons = []
    for url in urls:
        try:
            _fill(url, part, sha256, retry, timeouts)
            return
        except _Failed as failure:
            reasons.append(f"{url}: {failure}")
            print(f"gave up {url}: {failure}", flush=True)
    kept = f"; {part} keeps what came, and the same command goes on from there" if part.exists() else ""
    raise InputError(
        "\n  ".join([f"{part.with_suffix('')}: no address gave this file", *reasons]) + f"\n{advice}{kept}"
    )


def _fill(url: str, part: Path, sha256: str, retry: tenacity.Retrying, timeouts: tuple[float, float]) -> None:
    """Makes `part` the file, from one address; wrong bytes are removed."""
    inherited = part.exists() and part.stat().st_size > 0
    retry(_transfer, url, part, timeouts)
    found = files.sha256(part)
    if found == sha256:
        return
    part.unlink()
    if not inherited:
        raise _Failed(f"expected SHA-256 {sha256}, found {found}")
    # What an earlier attempt or another address had left may be at fault, so this address is heard on its own.
    print(f"{part}: did not begin as this file does; fetched anew", flush=True)
    _fill(url, part, sha256, retry, timeouts)


def _transfer(url: str, part: Path, timeouts: tuple[float, float]) -> None:
    """Appends to `part` what it lacks of the file, or writes it anew where the server sends the whole."""
    have = part.stat().st_size if part.exists() else 0
    # Without compression on the way, since a byte range and the SHA-256 are those of the file itself.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=timeouts) as response:
            resumed = response.status_code == 206
            elsewhere = resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if response.status_code == 416 or elsewhere:
                part.unlink(missing_ok=True)
                raise _Interrupted("the server cannot go on from where the file was left")
            _check_status(response)
            have = have if resumed else 0
            left = response.raw.length_remaining
            print(f"fetching {url}" + (f" from byte {have}" if have else ""), flush=True)
            with (
                part.open("ab" if resumed else "wb") as file,
                tqdm(
                    desc=part.stem,
                    initial=have,
                    total=None if left is None else have + left,
                    unit="B",
                    unit_scale=True,
                    disable=None,  # quiet where there is no terminal
                ) as bar,
            ):
                for block in response.raw.stream(BLOCK, decode_content=False):
                    file.write(block)
                    bar.update(len(block))
                    if file.tell() > LARGEST:
                        part.unlink()
                        raise _Failed(f"sent more than {LARGEST:,} bytes")
    except HOPELESS as error:
        raise _Failed(_reason(error)) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _Interrupted(_reason(error)) from error


def _check_status(response: requests.Response) -> None:
    if response.status_code in (200, 206):
        return
    failure = _Interrupted if response.status_code in TRANSIENT or response.status_code >= 500 else _Failed
    raise failure(f"the server answered {response.status_code} {response.reason or ''}".rstrip())


def _reason(error: BaseException) -> str:
    """What the innermost of nested errors says: requests and urllib3 wrap the one that tells."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _tell_of_wait(state: tenacity.RetryCallState) -> None:
    assert state.outcome and state.next_action  # tenacity sets both before it sleeps
    print(f"{state.outcome.exception()}; next attempt in {state.next_action.sleep:.0f} s", flush=True)


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and files.sha256(path) == sha256
