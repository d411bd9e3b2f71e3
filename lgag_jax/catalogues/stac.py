"""Reads STAC: static catalogues, on this disk or at a server, and the search of a STAC API."""

import collections
import pathlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pystac
import pystac_client
import requests
import shapely
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from requests.adapters import HTTPAdapter
from shapely.geometry.base import BaseGeometry

from lgag_jax.catalogues import addresses, buckets, open_image
from lgag_jax.options.area import Imagery
from lgag_jax.runtime import files

_MAX_BYTES = 64 << 20  # Of a JSON file.
_MAX_FILES = 2_000_000
_MAX_MESSAGE = 300  # Characters of what a server says.
_BUSY = (429, 500, 502, 503, 504)  # Such an answer may be another one the next time.
_ITEM_SEARCH = "item-search"


def read_items(
  source: str, area: BaseGeometry | None, settings: Imagery
) -> Iterator[tuple[pystac.Item, str]]:
  """Yields items and the addresses that theirs are relative to.

  `source` is a catalogue, collection, item or item collection, or an API, which yields what it finds.
  Raises ValueError naming a file that is not STAC, and AddressError for one that must not be read.
  """
  remote = addresses.is_remote(source)
  reader = _JsonReader(settings, allow_remote=remote or settings.remote)
  root = reader.read(source)
  if remote and any(_ITEM_SEARCH in str(one) for one in root.get("conformsTo") or ()):
    yield from _search(source, area, settings)
    return
  yield from reader.items(source, root)


def _search(
  source: str, area: BaseGeometry | None, settings: Imagery
) -> Iterator[tuple[pystac.Item, str]]:
  client = pystac_client.Client.open(source, stac_io=_ApiReader(settings))
  found = client.search(
    collections=list(settings.collections) or None, datetime=settings.dates or None,
    intersects=None if area is None else shapely.geometry.mapping(area), limit=100,
  )
  seen: set[tuple[str, str]] = set()
  for page in found.pages_as_dicts():
    before = len(seen)
    items = [_item(one, source, root=client) for one in page.get("features") or ()]
    seen.update((str(item.collection_id), item.id) for item in items)
    if len(seen) == before or before > _MAX_FILES:  # It would go on for ever.
      what = "the same items again" if len(seen) == before else f"more than {_MAX_FILES} items"
      raise ValueError(f"{source} gives {what}: narrow the search by --area, --dates or --collections.")
    for item in items:
      own = item.get_self_href() or ""
      yield item, own if addresses.is_remote(own) else source


class _LimitedAdapter(HTTPAdapter):
  """Reads whole answers, but no larger ones than a catalogue may have."""

  def send(self, request: Any, stream: bool = False, **options: Any) -> requests.Response:
    response = super().send(request, stream=True, **options)
    # Requests has no limit of its own; this is where `response.content` would keep what it reads.
    response._content = _read_limited(response, request.url)
    return response


def _limit(session: requests.Session, **options: Any) -> None:
  for scheme in ("http://", "https://"):
    session.mount(scheme, _LimitedAdapter(**options))


class _ApiReader(StacApiIO):
  """Follows links to servers only, never to local files."""

  def __init__(self, settings: Imagery):
    super().__init__(timeout=settings.timeout, max_retries=None)
    self._settings = settings
    _limit(self.session)

  def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
    href = source.absolute_href if isinstance(source, pystac.Link) else str(source)
    if not href.lower().startswith(("http://", "https://")):
      raise addresses.AddressError(f"The STAC API names {href[:200]!r}, which is not at a server.")
    read = lambda: self._read_once(source, href, *args, **kwargs)
    return open_image.repeated(read, href, self._settings)

  def json_loads(self, txt: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return files.parse_json(txt, "An answer of the STAC API")

  def _read_once(self, source: Any, href: str, *args: Any, **kwargs: Any) -> str:
    try:
      return super().read_text(source, *args, **kwargs)
    except APIError as error:
      status = getattr(error, "status_code", None)
      busy = status in _BUSY or isinstance(error.__context__, requests.RequestException)
      answer = f"status {status}: {error}" if status else str(error)
      raise (OSError if busy else ValueError)(
        f"{href} cannot be read: {answer[:_MAX_MESSAGE]}"
      ) from error


class _JsonReader:
  """Reads the JSON files of a static catalogue."""

  def __init__(self, settings: Imagery, *, allow_remote: bool):
    self._settings, self._allow_remote = settings, allow_remote
    self._session = requests.Session()
    _limit(self._session, pool_maxsize=settings.readers)

  def items(self, address: str, root: dict) -> Iterator[tuple[pystac.Item, str]]:
    """Yields the items below a file, level by level; each file is read once, so cycles end."""
    level: Iterable[tuple[str, dict]] = [(address, root)]
    seen, unread = {addresses.identity(address)}, True
    with ThreadPoolExecutor(self._settings.readers) as pool:
      while unread:
        children: list[str] = []
        for base, content in level:
          yield from ((item, base) for item in _items_in(content, base))
          for href in _children_of(content):
            child = addresses.resolve(href, base, allow_remote=self._allow_remote)
            if (identity := addresses.identity(child)) not in seen:
              seen.add(identity)
              children.append(child)
          if len(seen) > _MAX_FILES:
            raise ValueError(
              f"{address} has more than {_MAX_FILES} files: name one of its collections."
            )
        level, unread = self._read_ahead(children, pool), bool(children)

  def _read_ahead(
    self, children: Iterable[str], pool: ThreadPoolExecutor
  ) -> Iterator[tuple[str, dict]]:
    """Yields files with what they hold, in order, and holds no more than the readers need."""
    reading: collections.deque[tuple[str, Future[bytes]]] = collections.deque()
    for child in children:
      reading.append((child, pool.submit(self._content, child)))
      if len(reading) > 2 * self._settings.readers:
        yield self._next(reading)
    while reading:
      yield self._next(reading)

  def _next(self, reading: collections.deque[tuple[str, Future[bytes]]]) -> tuple[str, dict]:
    address, content = reading.popleft()
    return address, _parsed(content.result(), address)  # One at a time: parsed, it takes more memory.

  def read(self, address: str) -> dict:
    """Returns a JSON object; raises ValueError naming a file that is none, OSError if it is missing."""
    return _parsed(self._content(address), address)

  def _content(self, address: str) -> bytes:
    return open_image.repeated(lambda: self._bytes(address), address, self._settings)

  def _bytes(self, address: str) -> bytes:
    if not addresses.is_remote(address):
      path = pathlib.Path(address)
      if not path.is_file():
        raise FileNotFoundError(f"{address}: no such file.")
      with path.open("rb") as file:
        return _limited(file.read(_MAX_BYTES + 1), address)
    if address.lower().startswith("s3:"):
      return _limited(buckets.read(address, _MAX_BYTES + 1, self._settings), address)
    try:
      response = self._session.get(address, timeout=self._settings.timeout)
      response.raise_for_status()
    except requests.RequestException as error:
      raise OSError(f"{address} cannot be read: {error}") from error
    return response.content


def _parsed(content: bytes, address: str) -> dict:
  try:
    value = files.parse_json(content.decode("utf-8-sig"), address)
  except UnicodeDecodeError as error:
    raise ValueError(f"{address} is not valid JSON: {error}. Restore it.") from error
  if not isinstance(value, dict):
    raise ValueError(f"{address} is not STAC: it holds a {type(value).__name__}.")
  return value


def _children_of(content: dict) -> list[str]:
  if content.get("type") not in ("Catalog", "Collection"):
    return []
  links = [link for link in content.get("links") or () if isinstance(link, dict)]
  return [str(link.get("href", "")) for link in links if link.get("rel") in ("child", "item")]


def _read_limited(response: requests.Response, address: str) -> bytes:
  chunks, size = [], 0
  for chunk in response.iter_content(1 << 20):
    chunks.append(chunk)
    size += len(chunk)
    if size > _MAX_BYTES:
      response.close()
      break
  return _limited(b"".join(chunks), address)


def _limited(content: bytes, address: str) -> bytes:
  if len(content) > _MAX_BYTES:
    raise ValueError(f"{address} has more than {_MAX_BYTES >> 20} MiB, too much for a catalogue.")
  return content


def _items_in(content: dict, address: str) -> Iterator[pystac.Item]:
  kind = content.get("type")
  features = content.get("features") if kind == "FeatureCollection" else [content] * (kind == "Feature")
  if kind not in ("Feature", "FeatureCollection", "Catalog", "Collection"):
    raise ValueError(
      f"{address} is not STAC: its type is {str(kind)[:40]!r}, not Catalog, Collection, Feature or "
      "FeatureCollection."
    )
  for feature in features or ():
    yield _item(feature, address, href=address)


def _item(feature: Any, address: str, **options: Any) -> pystac.Item:
  try:
    item = pystac.Item.from_dict(feature, migrate=True, preserve_dict=False, **options)
  except Exception as error:  # pystac raises many kinds for content that is not STAC.
    raise ValueError(f"{address} holds an item that is not STAC: {error!r:.200}.") from error
  if not isinstance(item.id, str) or not isinstance(item.collection_id, str | None):
    name = f"{item.id!r:.80} of the collection {item.collection_id!r:.80}"
    raise ValueError(f"{address} holds an item that is not STAC: its id is {name}.")
  return item
