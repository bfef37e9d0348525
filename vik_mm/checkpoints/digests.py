"""Digests inside of checkpoint files, by which a changed bit is found.

PyTorch's archives have a checksum for each record. PyTorch writes them and never looks at them. Safetensors files have
none. Files of this project also hold a SHA-256 of all their bytes: an archive has it at its end, as the zip format's
comment, a safetensors file in its metadata. Other readers ignore both.
"""

import hashlib
import lzma
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path

ARCHIVE = b'PK\x03\x04'
_END = b'PK\x05\x06'  # begins the last record of an archive, 22 bytes and the comment
_END_SIZE = 22
_FOLDER = 0x10  # among the attributes of a record
_LABEL = b'vik_mm sha256 '
_COMMENT = re.compile(re.escape(_LABEL) + rb'[0-9a-f]{64}\Z')
_FIELD = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_EMPTY = '0' * 64  # stands in a safetensors file while its digest is made
_CHUNK = 2**22
# What zipfile raises for bytes that are wrong, those of methods of compression that PyTorch does not use among it.
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(OSError, ValueError, KeyError, RuntimeError, EOFError, OverflowError, MemoryError),
)


def sign_archive(content: bytes) -> list[bytes | memoryview]:
    """Add a digest to what ``torch.save`` wrote.

    Args:
        content (bytes): The archive; anything else, or one that has a comment, stays as it is.

    Returns:
        list[bytes | memoryview]: The file, in pieces.
    """
    end = content[-_END_SIZE:]
    if not content.startswith(ARCHIVE) or not end.startswith(_END) or not end.endswith(b'\0\0'):
        return [content]
    body = memoryview(content)[:-2]
    comment_size = struct.pack('<H', len(_LABEL) + 64)
    digest = hashlib.sha256(body)
    digest.update(comment_size + _LABEL)
    return [body, comment_size, _LABEL, digest.hexdigest().encode()]


def sign_safetensors(metadata: dict[str, str], serialize) -> bytes:
    """Serialize weights with a digest in the metadata.

    Args:
        metadata (dict[str, str]): What else the metadata holds.
        serialize (Callable): Makes the file's bytes of the metadata.

    Returns:
        bytes: The file.
    """
    content = serialize({**metadata, 'sha256': _EMPTY})
    found = _FIELD.search(content, 8, 8 + _header_size(content[:8]))
    if found is None:
        raise RuntimeError('the serializer has dropped the field of the digest')
    start = found.start(1)
    digest = hashlib.sha256(content).hexdigest().encode()
    return content[:start] + digest + content[start + 64 :]


def find_damage(path: str | os.PathLike) -> str | None:
    """Compare a file with its digest, or with the checksums of its records.

    Args:
        path (str | PathLike): A checkpoint, PyTorch's or safetensors.

    Returns:
        str | None: What is wrong; None where nothing is, or where the file has nothing to compare with. That is true of
        safetensors files of other programs, pickles older than PyTorch 1.6, and archives written without checksums.

    Raises:
        OSError: If the file cannot be read.
    """
    path = Path(path)
    with path.open('rb') as file:
        start = file.read(len(ARCHIVE))
        if path.suffix == '.safetensors':
            return _damage_of_safetensors(file)
        return _damage_of_archive(file) if start == ARCHIVE or is_archive(path) else None


def is_archive(path: str | os.PathLike) -> bool:
    """Say whether a file has the end of a zip archive, which a truncated one lacks."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # an end, but a damaged one
        return False


def _damage_of_archive(file) -> str | None:
    size = file.seek(0, os.SEEK_END)
    tail_start = max(0, size - _END_SIZE - 2**16)
    file.seek(tail_start)
    tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) - end < _END_SIZE:
        return 'its end is missing'
    comment = tail[end + _END_SIZE :]
    if len(comment) != struct.unpack_from('<H', tail, end + _END_SIZE - 2)[0]:
        return 'its end is damaged'
    if comment and not _COMMENT.match(comment):
        return 'its digest is damaged'
    if comment:
        return _differs(_hash(file, size - 64), comment[-64:])
    try:
        with zipfile.ZipFile(file) as archive:
            if not any(record.CRC for record in archive.infolist()):
                return None  # torch.serialization.set_crc32_options(False)
            for record in archive.infolist():
                if record.external_attr & _FOLDER and record.file_size:
                    return f'{record.filename} in it would be a folder'  # PyTorch would read nothing
            name = archive.testzip()
            return name and f'{name} in it does not have its checksum'
    except _ZIP_ERRORS as error:
        return f'its archive is damaged: {error}'


def _damage_of_safetensors(file) -> str | None:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = _header_size(file.read(8))
    if not 0 < length <= size - 8:
        return f'its header would have {length} bytes, and the file has {size}'
    header = file.read(length)
    field = _FIELD.search(header)
    if field is None:
        # A changed bit in the field's own name must not make a file of another program of this.
        return 'its digest is damaged' if b'"writer":"vik_mm"' in header else None
    begin = 8 + field.start(1)
    digest = _hash(file, begin)
    digest.update(_EMPTY.encode())
    file.seek(begin + 64)
    return _differs(_update(digest, file), field[1])


def _header_size(start: bytes) -> int:
    return int.from_bytes(start, 'little')


def _hash(file, size: int):
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(size, _CHUNK))):
        digest.update(chunk)
        size -= len(chunk)
    return digest


def _update(digest, file):
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest


def _differs(digest, expected: bytes) -> str | None:
    return None if digest.hexdigest().encode() == expected else 'it does not have its SHA-256'
