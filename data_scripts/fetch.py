"""Fetching archives, resuming where a transfer broke off, and checking what arrived."""

from __future__ import annotations

import tarfile
import time
import zipfile
from pathlib import Path

import pooch
import requests
import urllib3
from tqdm.auto import tqdm

from data_scripts.benchmark import Archive
from data_scripts.convert import write

CHUNK = 2**16  # bytes at a time; what is missing of the last piece is fetched again
ATTEMPTS, PAUSE = 5, 2.0  # tries for one archive, seconds between them
TIMEOUT = 30  # seconds without a byte
BROKEN_OFF = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)

pooch.get_logger().setLevel("WARNING")  # our own lines say what happens


def fetch(archive: Archive, folder: Path, *, progress: bool = True) -> str:
    """Have an archive in `folder`, whole and checked; one that is there is only checked.

    What a broken transfer left is kept as `FILE.part`, and the next call continues it.

    Returns:
        what the check found, see `verify`.

    Raises:
        ValueError: it cannot be fetched, or is not what it should be; says where it is to be had and
            where to put it.
    """
    path = folder / archive.file
    if not path.is_file():
        if archive.url is None:
            raise ValueError(f"{archive.file} needs registration: fetch it from {archive.page} into {folder}")
        folder.mkdir(parents=True, exist_ok=True)
        known = archive.md5 and f"md5:{archive.md5}"
        try:
            pooch.retrieve(archive.url, known, archive.file, folder, downloader=Resume(path, progress))
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise ValueError(
                f"could not fetch {archive.url} ({_reason(error)}); try again, which resumes, "
                f"or fetch it by hand and put it at {path}"
            ) from error
        except ValueError as error:  # pooch: the checksum differs
            raise ValueError(f"{archive.url} did not give the published file: {error}") from error
        if archive.md5:  # pooch has compared it; once is enough for 19 GB
            return f"{archive.file}: md5 {archive.md5} as published"
    return verify(archive, folder)


def verify(archive: Archive, folder: Path) -> str:
    """Check an archive: against the published MD5, or else against the SHA-256 of the first time.

    Returns:
        one line that says which.

    Raises:
        ValueError: it is missing, or its checksum differs.
    """
    path, record = folder / archive.file, folder / f"{archive.file}.sha256"
    if not path.is_file():
        raise ValueError(f"{archive.file} is not in {folder}")
    kind = "md5" if archive.md5 else "sha256"
    found = pooch.file_hash(str(path), alg=kind)
    if archive.md5 is None and not record.is_file():
        if not (zipfile.is_zipfile(path) or tarfile.is_tarfile(path)):  # a web page, as like as not
            raise ValueError(f"{path} is no archive: remove it and fetch it again")
        write(record, f"{found}  {archive.file}\n".encode())
        return f"{archive.file}: no checksum is known; recorded its SHA-256 {found}"
    known = archive.md5 or record.read_text(encoding="utf-8").split()[0]
    if found != known:
        raise ValueError(f"{path} has {kind} {found}, but should have {known}: remove it and fetch it again")
    return f"{archive.file}: {kind} {found} as {'published' if archive.md5 else 'recorded'}"


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP {response.status_code} {response.reason}"
    return "no answer in time" if isinstance(error, requests.Timeout) else type(error).__name__


class Resume:
    """A pooch downloader that continues `FILE.part` by a range request, several times if need be.

    A server that cannot continue, or whose file has changed since, sends all of it again.

    Args:
        path: where the archive will lie; the part and its tag lie beside it.
        progress: show a progress bar.
    """

    def __init__(self, path: Path, progress: bool = True) -> None:
        self.path, self.progress = path, progress
        self.part, self.tag = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.part.tag")

    def __call__(self, url: str, output_file: str, pooch: object, check_only: bool = False) -> None:
        """Fetch `url` into `output_file`; raises what requests and urllib3 do."""
        for attempt in range(1, ATTEMPTS + 1):
            before = self._size()
            try:
                self._transfer(url)
                break
            except BROKEN_OFF:
                if attempt == ATTEMPTS or self._size() == before:  # nothing came: no use in trying on
                    raise
                time.sleep(PAUSE)
        self.part.replace(output_file)
        self.tag.unlink(missing_ok=True)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _transfer(self, url: str) -> None:
        have = self._size() if self.tag.is_file() else 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": self.tag.read_text(encoding="utf-8")}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code != 416:
                answer.raise_for_status()
                return self._store(answer, have if answer.status_code == 206 else 0)
            if answer.headers.get("Content-Range") == f"bytes */{have}":
                return None  # all of it is there
        self.part.unlink()
        return self._transfer(url)

    def _store(self, answer: requests.Response, have: int) -> None:
        total = have + int(answer.headers.get("Content-Length", 0)) or None
        name, off = self.path.name, not self.progress
        with (
            self.part.open("ab" if have else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name, disable=off) as bar,
        ):
            if not have:
                self.tag.unlink(missing_ok=True)
                if tag := _validator(answer):
                    self.tag.write_text(tag, encoding="utf-8")
            for chunk in answer.raw.stream(CHUNK, decode_content=False):  # a .tgz is no encoded .tar
                file.write(chunk)
                bar.update(len(chunk))


def _validator(answer: requests.Response) -> str:
    """What tells a later request that the file is still the same; a weak tag cannot vouch for bytes."""
    tag = answer.headers.get("ETag", "W/")
    return answer.headers.get("Last-Modified", "") if tag.startswith("W/") else tag
