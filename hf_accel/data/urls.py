"""Images named by a URL: fetched whole, up to a size, into memory."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

import hf_accel
from hf_accel.data.images import UnreadableImageError

MOST_BYTES = 100_000_000  # of a file: a server may never stop sending
TIMEOUT_SECONDS = 20  # without an answer


def is_url(name: str) -> bool:
    return name.lower().startswith(("http://", "https://"))


def fetch_image(url: str) -> bytes:
    """The content of an image file on the web.

    Raises:
        UnreadableImageError: it cannot be fetched, or it is larger than MOST_BYTES.
    """
    try:
        request = urllib.request.Request(url, headers={"User-Agent": f"hf_accel/{hf_accel.__version__}"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
            content: bytes = answer.read(MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        error.close()
        raise UnreadableImageError(url, f"the server answers {error.code} {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        raise UnreadableImageError(
            url, f"it cannot be fetched ({cause}): check the address and the connection, or download it first"
        ) from error
    if len(content) > MOST_BYTES:
        raise UnreadableImageError(url, f"the file is larger than {MOST_BYTES // 1_000_000} MB: download it first")
    return content
