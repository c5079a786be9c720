"""What the configuration says of the ledger, and which database that means."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from routellm.config import check_range

LEDGER_URL = "ROUTELLM_LEDGER_URL"
"""The environment variable that names the database where the configuration does not."""


class LedgerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`gateway: {ledger: ...}`.

    Attributes:
        url: a path of an SQLite file, or `postgresql://USER:PASSWORD@HOST/NAME`. Empty: what the environment variable
            ROUTELLM_LEDGER_URL names, else a file in the user's data folder.
        batch_seconds: rows are written so often, and so much is lost at the most when the process is killed.
        batch_rows: rows of one transaction; so many waiting are written at once.
        buffer_rows: rows that wait while the database can't be written; further ones are dropped, and counted.
        buffer_prompt_megabytes: text of prompts that waits; beyond it, rows are kept without their prompt.
        retention_days: rows older than that are deleted; None keeps them.
        prompts: keep the text of prompts.
        prompt_retention_days: prompts older than that are deleted, their rows stay; None keeps them as long as the row.
        redact: "package.module:function", called with each prompt before it is kept; what it returns is kept, None means
            nothing is. It runs in the writer's thread.
    """

    url: str = ""
    batch_seconds: float = 0.2
    batch_rows: int = 500
    buffer_rows: int = 20_000
    buffer_prompt_megabytes: float = 64.0
    retention_days: float | None = None
    prompts: bool = False
    prompt_retention_days: float | None = 30.0
    redact: str = ""

    def __post_init__(self) -> None:
        check_range("batch_seconds", self.batch_seconds, 0.01, 1.0)
        check_range("batch_rows", self.batch_rows, 1, 10_000)
        check_range("buffer_rows", self.buffer_rows, self.batch_rows, 1_000_000)
        check_range("buffer_prompt_megabytes", self.buffer_prompt_megabytes, 0.0, 10_000.0)
        check_range("retention_days", self.retention_days, 0.01, 36_500.0)
        check_range("prompt_retention_days", self.prompt_retention_days, 0.01, 36_500.0)
        if self.redact and not re.fullmatch(r"[\w.]+:[\w.]+", self.redact):
            raise ValueError(f"redact is {self.redact!r}; it must be like 'package.module:function'")
        if self.redact and not self.prompts:
            raise ValueError("redact is set but prompts are not kept; set prompts: true, or leave it out")

    def __repr__(self) -> str:
        return f"LedgerSettings(url={hide_password(self.url)!r}, prompts={self.prompts}, ...)"


def ledger_url(given: str | None, environ: Mapping[str, str]) -> str:
    """The database that is meant: what is given, else what the environment names, else the file in the user's data folder."""
    from platformdirs import user_data_path

    return given or environ.get(LEDGER_URL, "") or str(user_data_path("routellm", appauthor=False) / "ledger.sqlite")


def hide_password(text: str) -> str:
    """`text` with `***` for the password of a URL in it."""
    text = re.sub(r"(://[^\s:/@]*):\S*@", r"\1:***@", text)
    return re.sub(r"([?&]\w*password=)[^&\s'\"]*", r"\1***", text)
