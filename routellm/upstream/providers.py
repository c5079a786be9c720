"""Which endpoint a model's name stands for: known providers as data, and the way from a name to an open upstream.

Names are LiteLLM-style, `provider/rest/of/the/name`. What a name means, in this order:

1. without a slash: `claude-...` is Anthropic's, anything else OpenAI's; with an `api_base`, any name is that endpoint's own
2. `demo/NAME`, and every prefix that a plug-in registers in `UPSTREAMS`: that upstream; among them `litellm/NAME` sends any
   name through LiteLLM, and `http/NAME` with an `api_base` sends NAME, slashes and all, to that endpoint
3. a prefix in `PROVIDERS`: the provider's OpenAI-compatible endpoint, or the `api_base`, with the rest as the model's name.
   `openai/NAME` with an `api_base` stands for any OpenAI-compatible endpoint
4. a prefix in `LITELLM_PROVIDERS`: LiteLLM (extra `providers`), which knows how to speak to it
5. any other prefix with an `api_base`: the whole name is the model's at that endpoint ("meta-llama/Llama-3.1-8B-Instruct"
   on a vLLM server)
6. any other prefix: LiteLLM where it is installed, since it learns new providers often; else an error
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from routellm.errors import ConfigError, did_you_mean
from routellm.upstream.base import OPENAI_COMPATIBLE, UPSTREAMS, Format, ModelSpec, Upstream


@dataclass(frozen=True, slots=True)
class Provider:
    """An OpenAI-compatible endpoint.

    Attributes:
        base_url: up to, and without, "/chat/completions"; None where every user has their own.
        keys: environment variables that may hold the key, the first one found wins.
        bases: environment variables that override `base_url`.
        needs_key: whether `base_url` refuses calls without a key.
        path: appended to an overriding base that has no path of its own.
        headers: further request headers, by the environment variable that may hold each.
        formats: the APIs that it speaks.
        messages_bearer: whether its messages API takes the key as `authorization: Bearer` beside `x-api-key`.
    """

    base_url: str | None
    keys: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    needs_key: bool = True
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    formats: frozenset[Format] = OPENAI_COMPATIBLE
    messages_bearer: bool = True


_OLLAMA = Provider(
    "http://localhost:11434/v1", ("OLLAMA_API_KEY",), ("OLLAMA_API_BASE", "OLLAMA_HOST"), needs_key=False, path="/v1"
)

PROVIDERS: Mapping[str, Provider] = {
    "openai": Provider(
        "https://api.openai.com/v1",
        ("OPENAI_API_KEY",),
        ("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        headers={"openai-organization": "OPENAI_ORG_ID", "openai-project": "OPENAI_PROJECT_ID"},
        formats=OPENAI_COMPATIBLE | {"responses"},
    ),
    # Its messages API takes a bearer for a user's OAuth token, and refuses an API key there.
    "anthropic": Provider(
        "https://api.anthropic.com/v1",
        ("ANTHROPIC_API_KEY",),
        formats=frozenset({"chat", "messages"}),
        messages_bearer=False,
    ),
    "anyscale": Provider("https://api.endpoints.anyscale.com/v1", ("ANYSCALE_API_KEY",), ("ANYSCALE_API_BASE",)),
    "cerebras": Provider("https://api.cerebras.ai/v1", ("CEREBRAS_API_KEY",), ("CEREBRAS_API_BASE",)),
    "codestral": Provider("https://codestral.mistral.ai/v1", ("CODESTRAL_API_KEY",), ("CODESTRAL_API_BASE",)),
    "dashscope": Provider(
        "https://dashscope.aliyuncs.com/compatible-mode/v1", ("DASHSCOPE_API_KEY",), ("DASHSCOPE_API_BASE",)
    ),
    "deepinfra": Provider("https://api.deepinfra.com/v1/openai", ("DEEPINFRA_API_KEY",), ("DEEPINFRA_API_BASE",)),
    "deepseek": Provider("https://api.deepseek.com/v1", ("DEEPSEEK_API_KEY",), ("DEEPSEEK_API_BASE",)),
    "fireworks_ai": Provider(
        "https://api.fireworks.ai/inference/v1", ("FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY"), ("FIREWORKS_API_BASE",)
    ),
    "gemini": Provider("https://generativelanguage.googleapis.com/v1beta/openai", ("GEMINI_API_KEY", "GOOGLE_API_KEY")),
    "github": Provider("https://models.github.ai/inference", ("GITHUB_API_KEY", "GITHUB_TOKEN"), ("GITHUB_API_BASE",)),
    "groq": Provider("https://api.groq.com/openai/v1", ("GROQ_API_KEY",), ("GROQ_API_BASE",)),
    "hosted_vllm": Provider(None, ("HOSTED_VLLM_API_KEY",), ("HOSTED_VLLM_API_BASE",), needs_key=False),
    "huggingface": Provider("https://router.huggingface.co/v1", ("HF_TOKEN", "HUGGINGFACE_API_KEY"), ("HF_API_BASE",)),
    "hyperbolic": Provider("https://api.hyperbolic.xyz/v1", ("HYPERBOLIC_API_KEY",), ("HYPERBOLIC_API_BASE",)),
    "litellm_proxy": Provider(None, ("LITELLM_PROXY_API_KEY",), ("LITELLM_PROXY_API_BASE",), needs_key=False),
    "llamafile": Provider("http://127.0.0.1:8080/v1", ("LLAMAFILE_API_KEY",), ("LLAMAFILE_API_BASE",), needs_key=False),
    "lm_studio": Provider("http://localhost:1234/v1", ("LM_STUDIO_API_KEY",), ("LM_STUDIO_API_BASE",), needs_key=False),
    "minimax": Provider("https://api.minimax.io/v1", ("MINIMAX_API_KEY",), ("MINIMAX_API_BASE",)),
    "mistral": Provider("https://api.mistral.ai/v1", ("MISTRAL_API_KEY",), ("MISTRAL_API_BASE",)),
    "moonshot": Provider("https://api.moonshot.ai/v1", ("MOONSHOT_API_KEY",), ("MOONSHOT_API_BASE",)),
    "novita": Provider("https://api.novita.ai/openai/v1", ("NOVITA_API_KEY",), ("NOVITA_API_BASE",)),
    "nvidia_nim": Provider(
        "https://integrate.api.nvidia.com/v1", ("NVIDIA_NIM_API_KEY", "NVIDIA_API_KEY"), ("NVIDIA_NIM_API_BASE",)
    ),
    "ollama": _OLLAMA,
    "ollama_chat": _OLLAMA,
    "openrouter": Provider("https://openrouter.ai/api/v1", ("OPENROUTER_API_KEY",), ("OPENROUTER_API_BASE",)),
    "perplexity": Provider(
        "https://api.perplexity.ai", ("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"), ("PERPLEXITY_API_BASE",)
    ),
    "sambanova": Provider("https://api.sambanova.ai/v1", ("SAMBANOVA_API_KEY",), ("SAMBANOVA_API_BASE",)),
    "together_ai": Provider(
        "https://api.together.xyz/v1",
        ("TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHERAI_API_KEY"),
        ("TOGETHER_AI_API_BASE",),
    ),
    "vercel_ai_gateway": Provider(
        "https://ai-gateway.vercel.sh/v1", ("AI_GATEWAY_API_KEY", "VERCEL_AI_GATEWAY_API_KEY"), ("VERCEL_AI_GATEWAY_API_BASE",)
    ),
    "xai": Provider("https://api.x.ai/v1", ("XAI_API_KEY",), ("XAI_API_BASE",)),
    "zai": Provider("https://api.z.ai/api/paas/v4", ("ZAI_API_KEY",), ("ZAI_API_BASE",)),
}

LITELLM_PROVIDERS = frozenset(
    {
        "ai21", "ai21_chat", "azure", "azure_ai", "baseten", "bedrock", "cloudflare", "cohere", "cohere_chat", "databricks",
        "datarobot", "gigachat", "heroku", "nlp_cloud", "oci", "petals", "predibase", "replicate",
        "sagemaker", "sagemaker_chat", "snowflake", "triton", "vertex_ai", "vertex_ai_beta", "watsonx", "watsonx_text",
    }
)  # fmt: skip
"""Prefixes whose endpoints do not speak OpenAI's protocol or its way of signing in, and which LiteLLM translates for."""


def provider_of(spec: ModelSpec) -> tuple[str, str]:
    """The provider's prefix and the model's name at its endpoint; "http" where no provider is known, only an `api_base`.

    Raises:
        ConfigError: the name is empty on one side of its slash.
    """
    prefix, slash, rest = spec.name.partition("/")
    if not prefix.strip() or (slash and not rest.strip()):
        raise ConfigError(
            f"The model's name is {spec.name!r}; it must be a name such as 'gpt-4o', or PROVIDER/NAME such as "
            f"'groq/llama-3.1-8b-instant'."
        )
    if not slash:
        bare = "openai" if spec.api_base or not prefix.startswith("claude-") else "anthropic"
        return bare, spec.name
    if prefix in PROVIDERS or prefix == "http":
        return prefix, rest
    return "http", spec.name


def open_upstream(spec: ModelSpec, environ: Mapping[str, str]) -> Upstream:
    """The upstream that `spec.name` stands for; see the module's docstring. Opens no connection.

    Args:
        spec: the model.
        environ: the environment, from which keys and base URLs are taken where `spec` has none.

    Raises:
        ConfigError: the name, the base URL or the key can't be used, or no provider of this prefix is known.
    """
    provider, _ = provider_of(spec)
    prefix, slash, _ = spec.name.partition("/")
    if slash and prefix in UPSTREAMS:
        return _construct(prefix, spec, environ)
    if provider != "http":
        return _construct("http", spec, environ)
    if prefix in LITELLM_PROVIDERS:
        return _construct("litellm", spec, environ)
    if spec.api_base:
        return _construct("http", spec, environ)
    if find_spec("litellm") is None:
        known = [*UPSTREAMS, *PROVIDERS, *LITELLM_PROVIDERS]
        raise ConfigError(
            f"The model {spec.name!r} names the provider {prefix!r}, which is not known{did_you_mean(prefix, known)}. "
            f"Known: {', '.join(sorted(PROVIDERS))}. For an OpenAI-compatible endpoint of your own give its base URL too "
            f'(--base-url or api_base=). For every provider that LiteLLM knows, run: pip install "routellm[providers]"'
        )
    return _construct("litellm", spec, environ)


def _construct(name: str, spec: ModelSpec, environ: Mapping[str, str]) -> Upstream:
    # A registered class takes what the base class promises, which the type `type[Upstream]` can't say.
    constructor: object = UPSTREAMS[name]
    assert callable(constructor)
    upstream = constructor(spec, environ)
    if not isinstance(upstream, Upstream):
        raise ConfigError(
            f"UPSTREAMS[{name!r}] is {constructor!r}, which is not a subclass of routellm.upstream.base.Upstream."
        )
    return upstream
