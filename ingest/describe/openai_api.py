"""`openai`: any endpoint that speaks OpenAI's chat API: hosted ones, vLLM, Ollama, llama.cpp, `transformers serve`.

Requests run side by side in one event loop in a thread of its own, so that a deadline can end one whatever the endpoint
does, and answers come back as they are ready. When to send, and what is tried again, is decided here and not by the
client library. The key is read from the environment when requests are made, and is in no recipe, message or log.
"""

from __future__ import annotations

import asyncio
import base64
import io
import os
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field

from featurestore.errors import BadInput, CellError, MissingExtra, ModelUnavailable
from featurestore.recipe import ModelRef
from ingest.describe.base import RUNTIME, Answer, Maker, Request, Resolved, Turn, register
from ingest.describe.chat import PicturedOptions, parts, pictures
from ingest.describe.endpoint import Failure, Telling, read_refusal, read_reply, unreachable, without
from ingest.describe.pace import TOO_MANY, Pace, backoff, retry_after

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL import Image

    from featurestore.recipe import Recipe
    from ingest.encode.base import Tools
    from ingest.encode.models import Models

HOSTED = "https://api.openai.com/v1"
CONNECT = 10.0  # seconds to reach an endpoint
LONGEST_WAIT = 600.0  # seconds an endpoint may ask to wait; beyond that the call ends
PROBE = "Say yes."
PATIENCE = 20  # times that one request may be turned away for too many requests
JPEG_QUALITY = 92


class OpenAIOptions(PicturedOptions):
    temperature: float = Field(default=0.0, ge=0, le=2, description="0 for the likeliest answer each time.")
    seed: int = Field(default=0, description="Of draws, where the endpoint heeds it.")
    omit: list[Literal["temperature", "seed", "response_format"]] = Field(
        default=[], description="What is not sent, for an endpoint that does not take it."
    )
    image_format: Literal["png", "jpeg"] = Field(
        default="png", description="How pictures are sent: png is exact, jpeg is smaller."
    )
    base_url: str | None = Field(
        default=None,
        description="Where the API is; without it OPENAI_BASE_URL, or OpenAI's own.",
        json_schema_extra=RUNTIME,
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY",
        description="Environment variable that holds the key; local endpoints need none.",
        json_schema_extra=RUNTIME,
    )
    concurrency: int = Field(
        default=8, ge=1, le=256, description="Requests under way at once.", json_schema_extra=RUNTIME
    )
    timeout: float = Field(
        default=120.0, gt=0, description="Seconds without a byte that end a try.", json_schema_extra=RUNTIME
    )
    deadline: float = Field(
        default=300.0, gt=0, description="Seconds that end a try whatever comes.", json_schema_extra=RUNTIME
    )
    retries: int = Field(
        default=4, ge=0, le=20, description="Tries after the first one.", json_schema_extra=RUNTIME
    )
    first_wait: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="Seconds before the first new try; doubled each time, up to a minute.",
        json_schema_extra=RUNTIME,
    )


@register("openai", options=OpenAIOptions)
class OpenAI(Maker[OpenAIOptions]):
    remote: ClassVar[bool] = True

    def resolve(
        self, options: OpenAIOptions, model: str | None, models: Models, device: str = "auto"
    ) -> Resolved:
        """The model is known by the name that the endpoint serves it under; what is behind it, only that knows."""
        if model is None:
            raise BadInput("encoder 'openai' needs a model", remedy='model = "the name the endpoint serves"')
        check_endpoint(options)
        return Resolved(options=options.recipe(), model=ModelRef(id=model))

    def load(self, recipe: Recipe, options: OpenAIOptions, tools: Tools) -> OpenAIDescriber:
        assert recipe.model is not None
        names = OpenAIOptions.model_fields.keys() & recipe.options.keys()
        fixed = options.model_copy(update={name: recipe.options[name] for name in names})
        check_endpoint(fixed)
        return OpenAIDescriber(recipe.model.id, fixed)


class OpenAIDescriber:
    """Answers of one model of one endpoint. What it learns of the endpoint's limits holds from call to call."""

    def __init__(self, model: str, options: OpenAIOptions) -> None:
        self._model = model
        self._options = options
        self._key = _key(options)
        self._pace = Pace()
        self._length = "max_tokens"  # newer hosted models call it max_completion_tokens
        self._answered = False
        self._probed = False
        self._probing = asyncio.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="describe-openai", daemon=True)
        self._thread.start()
        self._client: Any = self._run(self._connect())
        self._changed = asyncio.Event()

    def describe(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer | CellError]]:
        """Raises ModelUnavailable where the endpoint refuses the key or the model, or is not there."""
        ready: queue.SimpleQueue[tuple[int, Answer | CellError] | BaseException | None] = queue.SimpleQueue()
        work = asyncio.run_coroutine_threadsafe(self._all(requests, ready), self._loop)
        try:
            while (result := ready.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:  # nobody listens any more: what is under way is ended too
            work.cancel()

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _connect(self) -> Any:
        import openai

        options = self._options
        return openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=_base_url(options),
            max_retries=0,
            timeout=openai.Timeout(options.timeout, connect=min(CONNECT, options.timeout)),
        )

    async def _all(self, requests: Sequence[Request], ready: queue.SimpleQueue[Any]) -> None:
        """Every request through `concurrency` workers; the end, or what ended it, is put last."""
        telling = Telling()
        places = iter(range(len(requests)))

        async def work() -> None:
            for place in places:
                result = await self._one(requests[place])
                if isinstance(result, Answer) or await self._alive(requests[place], result):
                    self._answered = True
                for done in telling.heard(place, result, self._answered):
                    ready.put(done)

        workers = [
            asyncio.ensure_future(work()) for _ in range(min(self._options.concurrency, len(requests)))
        ]
        try:
            await asyncio.gather(*workers)
            for done in telling.rest(self._answered):
                ready.put(done)
            ready.put(None)
        except Exception as error:
            ready.put(error)
        finally:
            for worker in workers:
                worker.cancel()

    async def _alive(self, request: Request, failure: Failure) -> bool:
        """Whether the endpoint answers a harmless question of the same shape, asked once, before it has answered any.

        Without it, the few requests that are left at the end and fail by themselves would look like a dead endpoint,
        and never come to their last attempt.
        """
        if self._answered or not failure.everyone or failure.code == "unreachable":
            return False
        async with self._probing:  # the others that failed meanwhile wait for what it says
            if not self._answered and not self._probed:
                result, _, _ = await self._try(await asyncio.to_thread(self._body, harmless(request)))
                self._probed = True
                return isinstance(result, Answer)
        return False

    async def _one(self, request: Request) -> Answer | Failure:
        """One request, tried again as long as that may help."""
        body = await asyncio.to_thread(self._body, request)
        tries = turned_away = 0
        while True:
            result, status, asked = await self._try(body)
            if isinstance(result, Answer) or result.fatal or not result.retry:
                return result
            if asked is not None and asked > LONGEST_WAIT:
                remedy = f"run the same command again in {asked / 60:.0f} minutes; what was answered is kept"
                raise ModelUnavailable(f"{result.message}; it asks to wait {asked:,.0f} s", remedy=remedy)
            if status == TOO_MANY:
                turned_away += 1
            else:
                tries += 1
            if tries > self._options.retries or turned_away > PATIENCE:
                return result
            if asked is None:
                await asyncio.sleep(backoff(tries + turned_away, self._options.first_wait))

    async def _try(self, body: Mapping[str, Any]) -> tuple[Answer | Failure, int | None, float | None]:
        """(what came of it, the status if there was one, seconds that the endpoint asks to wait)."""
        import openai

        window = await self._turn()
        options, begun = self._options, time.monotonic()
        status: int | None = None
        headers: Mapping[str, str] = {}
        try:
            async with asyncio.timeout(options.deadline):
                reply = await self._client.chat.completions.with_raw_response.create(
                    **body, **{self._length: options.max_tokens}
                )
            status, headers = reply.status_code, reply.headers
            kind = headers.get("content-type", "")
            result = read_reply(reply.content, kind, time.monotonic() - begun)
        except openai.APIStatusError as error:
            status, headers = error.status_code, error.response.headers
            result = read_refusal(status, error.body if error.body is not None else error.response.text)
            if status == 400 and self._length == "max_tokens" and error.param == self._length:
                self._length = "max_completion_tokens"
                result = Failure("http_400", result.message, retry=True)
        except (openai.APITimeoutError, TimeoutError) as error:
            result = _late(error, options)
        except openai.APIConnectionError as error:
            result = unreachable(error)
        finally:
            self._pace.ended(window, status, headers)
            self._changed.set()
        if isinstance(result, Failure):
            result = without(result, self._key)
        return result, status, retry_after(headers) if status is not None and status >= 400 else None

    async def _turn(self) -> int:
        """Wait until a request may go out, and count it as going."""
        while (seconds := self._pace.wait()) != 0:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
        return self._pace.started()

    def _body(self, request: Request) -> dict[str, Any]:
        options = self._options
        body: dict[str, Any] = {"model": self._model, "messages": []}
        for turn in request.turns:
            content = [self._part(part) for part in parts(turn, options.max_pixels)]
            plain = len(content) == 1 and content[0]["type"] == "text"
            body["messages"].append({"role": turn.role, "content": content[0]["text"] if plain else content})
        body |= {"temperature": options.temperature, "seed": options.seed}
        if request.schema is not None:
            wanted = {"name": "answer", "schema": request.schema, "strict": closed(request.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        for name in options.omit:
            body.pop(name, None)
        return body

    def _part(self, part: str | Image.Image) -> dict[str, Any]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        return {"type": "image_url", "image_url": {"url": data_url(part, self._options.image_format)}}


def harmless(request: Request) -> Request:
    """A question that can do no harm, with a picture and a schema where `request` has them."""
    from PIL import Image

    picture = (Image.new("RGB", (64, 64), "grey"),) if pictures(request) else ()
    return Request("", (Turn("user", (*picture, PROBE)),), request.schema)


def check_endpoint(options: OpenAIOptions) -> None:
    """Whether there is an endpoint that takes the key. Raises MissingExtra, BadInput, ModelUnavailable."""
    try:
        import openai
    except ImportError as error:
        raise MissingExtra(
            f"encoder 'openai' needs the package openai: {error}", remedy="pip install 'dualview[openai]'"
        ) from error
    address, key = _base_url(options), _key(options)
    if not key and address.startswith(HOSTED):
        raise ModelUnavailable(
            f"no key for {HOSTED}: the environment variable {options.api_key_env} is not set",
            remedy=f"export {options.api_key_env}=..., or set base_url for an endpoint of your own",
        )
    timeout = openai.Timeout(CONNECT)
    with openai.OpenAI(api_key=key or "none", base_url=address, max_retries=1, timeout=timeout) as client:
        try:
            client.models.with_raw_response.list()
            return
        except openai.APIStatusError as error:
            failure = read_refusal(error.status_code, error.body)
            if failure.code not in ("not_allowed", "no_credit"):
                return  # not every endpoint lists its models; whether it has this one, the first request shows
        except openai.APITimeoutError:
            failure = Failure(
                "timeout", f"no answer within {CONNECT:.0f} s", remedy="see whether it is overloaded"
            )
        except openai.APIConnectionError as error:
            failure = unreachable(error)
    said = without(failure, key)
    raise ModelUnavailable(f"{_shown(address)}: {said.message}", remedy=said.remedy)


def closed(schema: Any) -> bool:
    """Whether every object of a JSON schema requires all its keys and allows no other, as strict mode asks."""
    if isinstance(schema, list):
        return all(closed(part) for part in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        keys = set(schema.get("properties", {}))
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != keys:
            return False
    return all(closed(part) for part in schema.values())


def data_url(picture: Image.Image, image_format: Literal["png", "jpeg"]) -> str:
    buffer = io.BytesIO()
    if image_format == "png":
        picture.save(buffer, "PNG", compress_level=1)
    else:
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _late(error: BaseException, options: OpenAIOptions) -> Failure:
    whole = isinstance(error, TimeoutError)
    seconds, option = (options.deadline, "deadline") if whole else (options.timeout, "timeout")
    return Failure("timeout", f"no answer within {seconds:g} s (option {option})", retry=True)


def _base_url(options: OpenAIOptions) -> str:
    return options.base_url or os.environ.get("OPENAI_BASE_URL") or HOSTED


def _key(options: OpenAIOptions) -> str:
    return os.environ.get(options.api_key_env, "").strip()


def _shown(address: str) -> str:
    """An address without a password that may be in it."""
    found = urlsplit(address)
    return f"{found.scheme}://{found.hostname or ''}{f':{found.port}' if found.port else ''}{found.path}"
