"""Files that are written whole or not at all, checked when they are read, and locked while in use."""
import os
import shutil
import zlib
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:     # Windows: nothing is locked, and nobody may start two processes on the same folder
    fcntl = None

SEAL = b"crc32 "


def checksum(paths):
    """One number for the content of some files, eight hexadecimal digits."""
    total = 0
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                total = zlib.crc32(block, total)
    return f"{total:08x}"


def seal(path):
    """Append the file's checksum: 14 bytes, which readers of zip files (and torch.load) pass over."""
    with open(path, "ab") as file:
        file.write(SEAL + checksum([path]).encode())


def seal_of(path):
    """True if a file is as it was sealed, False if it was changed or cut, None if it bears no seal."""
    with open(path, "rb") as file:
        size, total = os.path.getsize(path) - len(SEAL) - 8, 0
        file.seek(max(size, 0))
        if size < 0 or not (found := file.read()).startswith(SEAL):
            return None
        file.seek(0)
        while block := file.read(min(2**20, size - file.tell())):
            total = zlib.crc32(block, total)
    return found == SEAL + f"{total:08x}".encode()


@contextmanager
def named(path):
    """An error in writing gets the name of the file: neither a full disk nor torch's writer says it."""
    try:
        yield
    except OSError as error:
        why = f"{error.strerror}; what was there before is whole, and the same command goes on from it"
        raise OSError(error.errno, why, str(path)) from None
    except RuntimeError as error:                              # what torch.save makes of an OSError
        why = str(error).split("\n")[0]
        raise OSError(getattr(error.__context__, "errno", None), why, str(path)) from None


@contextmanager
def replaced(path, before=None):
    """A temporary path to write to, which then takes the place of `path`: whole, on the disk, or not at all.

    before: a path under which the file that was there is kept
    """
    temporary = Path(f"{path}.tmp")
    with named(path):
        try:
            yield temporary
            with open(temporary, "ab") as file:               # a power cut must not leave an empty file
                os.fsync(file.fileno())
            if before and os.path.exists(path):
                os.replace(path, before)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder, mark=""):
    """A temporary folder to write to, which then takes the place of `folder`: whole, or not at all.

    mark: part of its name, where another process may write the same; otherwise it takes the place of what a
          process that was killed has left
    """
    temporary = Path(f"{folder}.{mark}tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, folder)
    finally:                                                   # a full disk gets its space back
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path, wait=False):
    """Make a file, and its folder, and hold its lock.

    The kernel takes it back however the process ends, so none is left behind.
    wait: until another process gives it back.  Otherwise raises ValueError if another holds it.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ValueError(f"{Path(path).parent} is in use by another process: wait for its end, or choose "
                             "another --out") from None
        except OSError:                                        # a file system without locks: as without fcntl
            pass
        yield
