"""Files that are written completely or not at all, and locks on folders."""
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:     # Windows has no fcntl: nothing is locked, and two processes must not share a folder
    fcntl = None


class UserError(Exception):
    """A user's mistake, raised where input is read.  The message is one line: the place and the fix."""


def refuse(wrong, message):
    """Raise UserError with a message if something is wrong.  The message is formatted even if nothing is."""
    if wrong:
        raise UserError(message)


def read_json(path, fix):
    """The object in a JSON file, None without a file.  Raises UserError, ending in `fix`, if it is broken."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (not a JSON object): {fix}")
    return content


@contextmanager
def named(path):
    """Add the file name to write errors: neither a full disk nor torch's writer reports it."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; the same command resumes later", str(path)) from None
    except RuntimeError as error:                              # torch.save turns an OSError into this
        why = str(error).split("\n")[0]
        raise OSError(getattr(error.__context__, "errno", None), why, str(path)) from None


@contextmanager
def replaced(path, before=None):
    """Yield a temporary path whose file replaces `path` on success; `before` keeps the previous file."""
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
    """Yield a temporary folder.  On success it becomes `folder`, on failure it is deleted.

    mark: part of the temporary name if several processes may write the folder; else remains are overwritten
    """
    temporary = Path(f"{folder}.{mark}tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, folder)
    finally:                                                   # free the disk space after a failure
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(path, wait=False):
    """Create a lock file (and its folder) and hold its lock; the kernel releases it however the process ends.

    wait: wait for another process to release it; otherwise raise UserError if another process holds it
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(f"{Path(path).parent} is in use by another process: wait until it ends, or "
                            "choose another folder") from None
        except OSError:                                        # a file system without locks
            pass
        yield
