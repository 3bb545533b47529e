"""Where vectors come from: the built-in embedder, or an upstream with /embeddings."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp

from gateway.call import Usage
from gateway.config import places
from gateway.config.schema import Config, Upstream
from gateway.config.schema_semantic import ModelAt
from gateway.errors import EmbedderUnavailable
from gateway.matcher.vectors import Local, Source
from gateway.policy.pricing import PriceTable
from gateway.ports_semantic import Vectors
from gateway.prices.catalogue import ensure_compiled
from gateway.prices.load import load as load_prices
from gateway.semantic import parts, upstream

SECONDS = 5.0  # that an upstream may take
MOST_ANSWER = 16 * 1024 * 1024


class Finder:
    """`event` writes to the journal what an upstream's embeddings cost."""

    def __init__(self, state: Path, event: Callable[..., object]) -> None:
        self._state = state
        self._event = event

    def find(self, config: Config, executor: ThreadPoolExecutor) -> Source:
        """Raises EmbedderUnavailable, OSError."""
        stated = config.cache.semantic.embedder
        if isinstance(stated, ModelAt):
            prices = load_prices(ensure_compiled(self._state), config.prices)
            return Remote(stated, config.upstreams[stated.upstream], prices, self._event)
        parts.require()
        module = importlib.import_module("gateway.semantic.minilm")  # onnxruntime is not needed for an upstream
        return Local(module.MiniLM(places.embedder(config)), executor)


class Remote:
    """Embeddings of an upstream that speaks the API of OpenAI, called with its own key."""

    def __init__(self, stated: ModelAt, place: Upstream, prices: PriceTable, event: Callable[..., object]) -> None:
        self.name = f"{stated.upstream}/{stated.model}"
        self._model = stated.model
        self._url = f"{place.url.rstrip('/').removesuffix('/v1')}/v1/embeddings"
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {place.key}", **place.headers}
        self._provider = place.provider or ""
        self._prices = prices
        self._event = event
        self._size: int | None = None
        self._session: aiohttp.ClientSession | None = None

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(SECONDS), headers=self._headers)
        try:
            async with self._session.post(self._url, data=upstream.question(self._model, texts)) as response:
                body = await response.content.read(MOST_ANSWER)
                if response.status != 200:
                    raise EmbedderUnavailable(f"{self.name} answered {response.status}")
        except (TimeoutError, aiohttp.ClientError) as error:
            raise EmbedderUnavailable(f"{self.name}: {type(error).__name__}") from None
        found = upstream.answer(body, len(texts), self._size)
        self._size = found.vectors.shape[1]
        self._tell(len(texts), found.tokens)
        return found.vectors

    def _tell(self, texts: int, tokens: int | None) -> None:
        """What it cost, for metrics; unknown is never zero."""
        usage = Usage(input_tokens=tokens or 0)
        money = self._prices.price(self._provider, self._model, usage, time.time()) if tokens is not None else None
        cost = money.total if money is not None else None
        self._event("cache_embedded", texts=texts, tokens=tokens or 0, cost=cost if cost is not None else -1)
