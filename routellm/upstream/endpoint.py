"""Where an OpenAI-compatible model is reached, and with which key: read once from a spec and the environment, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # undocumented, and everywhere

from routellm.errors import ConfigError, MissingKeyError
from routellm.upstream.base import FORMATS, OPENAI_COMPATIBLE, Format, ModelSpec
from routellm.upstream.providers import PROVIDERS, Provider, provider_of

_ANY = Provider(None, needs_key=False)
"""An endpoint of which nothing but its base URL is known."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A checked base URL (no slash at its end) with what goes into each request to it. No repr shows the key.

    `formats` are the APIs that it speaks, and `messages_bearer` is as in `Provider`. `missing_key` holds the names of the
    variables that could have held a key, where one is needed and none was found.
    """

    model: str
    base_url: str
    key: str | None = field(repr=False)
    headers: Mapping[str, str]
    proxy: str | None = field(repr=False)
    missing_key: tuple[str, ...] = ()
    formats: frozenset[Format] = OPENAI_COMPATIBLE
    messages_bearer: bool = True

    def headers_for(self, path: str) -> dict[str, str]:
        """What signs in a request to `path`, with the provider's further headers."""
        headers = dict(self.headers)
        messages = path.startswith("/messages")
        if self.key is not None and messages:
            headers["x-api-key"] = self.key
        if self.key is not None and (self.messages_bearer or not messages):
            headers["authorization"] = f"Bearer {self.key}"
        return headers

    def check(self, name: str) -> None:
        """Raise MissingKeyError where a call to the model that users call `name` can't succeed for want of a key."""
        if self.missing_key:
            raise MissingKeyError(
                f"No API key for the model {name!r}: {self.base_url} needs one. Set {' or '.join(self.missing_key)} in the "
                f"environment, or give --api-key on the command line or api_key= in Python (each model can have its own)."
            )


def resolve_endpoint(spec: ModelSpec, environ: Mapping[str, str]) -> Endpoint:
    """Read base URL, key and proxy.

    A key from the environment goes to its provider only: with an `api_base` that stands for any endpoint (`openai/NAME`, a
    bare name) no key is sent unless the spec gives it, or the `api_base` is on the provider's own host. Nor is such an
    endpoint taken to speak more than is customary, unless the spec says so.

    Raises:
        ConfigError: no base URL is known, or the base URL, the key or the formats can't be used.
    """
    prefix, model = provider_of(spec)
    provider = PROVIDERS.get(prefix, _ANY)
    own_base = _own_base(provider, environ)
    base_url = check_base_url(spec.api_base, f"The base URL of {spec.name!r}") if spec.api_base else own_base
    if base_url is None:
        variables = f", or set {provider.bases[0]} in the environment" if provider.bases else ""
        raise ConfigError(
            f"The model {spec.name!r} needs the base URL of its endpoint: give --base-url on the command line or api_base= in "
            f"Python, such as http://localhost:8000/v1{variables}."
        )
    at_home = own_base is not None and _host(base_url) == _host(own_base)
    key = _clean_key(spec.api_key, f"The API key given for {spec.name!r}")
    if key is None and (at_home or prefix != "openai"):
        found = next((name for name in provider.keys if environ.get(name, "").strip()), None)
        key = _clean_key(environ[found], f"The API key in {found}") if found else None
    official = provider.base_url is not None and _host(base_url) == _host(provider.base_url)
    needs_key = provider.needs_key and official
    headers = {name: environ[variable] for name, variable in provider.headers.items() if environ.get(variable)}
    return Endpoint(
        model,
        base_url,
        key,
        headers if at_home else {},
        proxy_for(base_url, environ),
        provider.keys if needs_key and key is None else (),
        _formats(spec, provider if official or prefix != "openai" else _ANY),
        provider.messages_bearer,
    )


def check_base_url(url: str, what: str) -> str:
    """Return `url` without a slash at its end.

    Raises:
        ConfigError: it is no http or https URL, or has parts that a base URL can't have; `what` begins the message.
    """
    try:
        parts = urlsplit(url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            f"{what} is {url!r}; it must be a URL such as https://api.openai.com/v1 or http://localhost:8000/v1."
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{what} holds a user name or a password before its host; give a key as --api-key or api_key= instead."
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"{what} is {url!r}; it must end with its path, without '?' or '#'.")
    base = url.strip().rstrip("/")
    if base.endswith("/chat/completions"):
        raise ConfigError(f"{what} is {url!r}; leave out '/chat/completions', which is added to it.")
    return base


def proxy_for(url: str, environ: Mapping[str, str]) -> str | None:
    """The proxy that the environment names for `url` (https_proxy, http_proxy, all_proxy, no_proxy), or None.

    Read once, since asking the environment anew for each request takes as long as the rest of the sending.
    """
    parts = urlsplit(url)
    proxies = {name.lower()[: -len("_proxy")]: value for name, value in environ.items() if name.lower().endswith("_proxy")}
    if proxy_bypass_environment(parts.netloc, proxies):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all") or None
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _own_base(provider: Provider, environ: Mapping[str, str]) -> str | None:
    for variable in provider.bases:
        given = environ.get(variable, "").strip()
        if given:
            return check_base_url(_complete(given, provider), f"The environment variable {variable}")
    return provider.base_url


def _complete(given: str, provider: Provider) -> str:
    """Write out what a variable such as OLLAMA_HOST may leave out: "0.0.0.0" means http://127.0.0.1:11434/v1."""
    if not provider.path or provider.base_url is None:
        return given
    try:
        parts = urlsplit(given if "://" in given else f"http://{given}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return given  # refused by the check that follows, as it is
    if parts.username is not None:
        return given
    if host in (None, "0.0.0.0", "::"):  # noqa: S104  -- where a server listens, read as where to reach it
        host = "127.0.0.1"
    if port is None and "://" not in given:
        port = urlsplit(provider.base_url).port
    literal = f"[{host}]" if host is not None and ":" in host else host
    return f"{parts.scheme}://{literal}{f':{port}' if port else ''}{parts.path.rstrip('/') or provider.path}"


def _host(url: str) -> str | None:
    return urlsplit(url).hostname


def _formats(spec: ModelSpec, provider: Provider) -> frozenset[Format]:
    if spec.formats is None:
        return provider.formats
    if not spec.formats or not spec.formats <= FORMATS:
        raise ConfigError(
            f"The formats of {spec.name!r} are {sorted(spec.formats)}; name at least one of: {', '.join(sorted(FORMATS))}."
        )
    return spec.formats


def _clean_key(key: str | None, what: str) -> str | None:
    if key is None or not key.strip():
        return None
    key = key.strip()  # a key read from a file often ends in a newline
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"{what} holds characters that no HTTP header can carry (it is not shown here). Copy it again.")
    return key
